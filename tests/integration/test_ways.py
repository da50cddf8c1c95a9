"""What stands on the way to a server or to AWS, certificates and proxies, and how it is told."""

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from ssl import SSLContext

import pytest

from app.chatbot.aws import open_aws, own_settings
from app.chatbot.errors import CertificateError
from app.chatbot.evidence.advice import advise, exit_code
from app.chatbot.session.transport import Transport
from app.protocol.errors import AppError, ConfigError, UnavailableError
from local.signers.tls import TlsFiles, make_tls

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate authority that nobody trusts, and a server's certificate by it."""
    return make_tls(tmp_path_factory.mktemp("tls"), region="eu-central-1")


@contextmanager
def listening(context: SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Answer 404 to whatever comes; give the port, and what came."""
    came: list[bytes] = []

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                stream, _ = server.accept()
                with (
                    suppress(OSError),
                    context.wrap_socket(stream, server_side=True) if context else stream as talk,
                ):
                    came.append(talk.recv(65536))
                    talk.sendall(NOT_FOUND)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def ask(url: str, **settings: str) -> AppError:
    transport = Transport(url, **settings)  # type: ignore[arg-type]  # of texts alone here
    with pytest.raises(AppError) as raised:
        transport.get_attestation(bytes(32))
    transport.close()
    return raised.value


def test_the_servers_certificate(tls: TlsFiles, tmp_path: Path) -> None:
    """A certificate that does not verify is told as that, with both ways out."""
    with listening(tls.server_context()) as (port, came):
        url = f"https://127.0.0.1:{port}"
        error = ask(url)
        assert isinstance(error, CertificateError)
        assert url in str(error)
        assert "certificate" in str(error)
        for way in ("--tls-ca", "--any-certificate"):
            assert way in advise(error)
        assert "Nobody answers" not in advise(error)
        assert exit_code(error) == 1
        assert came == []
        (tmp_path / "none.pem").write_text("no certificate\n")
        for name in ("none.pem", "missing.pem"):
            error = ask(url, tls_ca=str(tmp_path / name))
            assert isinstance(error, ConfigError)
            assert "--tls-ca" in str(error)
        assert "answered 404" in str(ask(url, tls_ca=str(tls.ca)))


def test_a_server_without_tls() -> None:
    """Where plain HTTP answers to https, that is said."""
    with listening() as (port, _):
        error = ask(f"https://127.0.0.1:{port}")
        assert isinstance(error, CertificateError)
        assert "http://" in str(error)


def test_certificates_of_aws(
    tls: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Towards AWS, too, a certificate that does not verify is no network that is down."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "unused")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    session = open_aws(None, "eu-central-1")
    with listening(tls.server_context()) as (port, _):
        other = str(make_tls(tmp_path, region="eu-central-1").ca)
        for bundle, says in ((other, "certificate verify failed"), ("/nowhere", "No such file")):
            monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
            client = session.client("sts", endpoint_url=f"https://127.0.0.1:{port}")
            with pytest.raises(CertificateError, match=f"{says}.*AWS_CA_BUNDLE"), own_settings():
                client.get_caller_identity()


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that names a proxy, in either spelling."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("name", "url", "first"),
    [
        ("HTTPS_PROXY", "https://server.example", b"CONNECT server.example:443 "),
        ("https_proxy", "https://server.example", b"CONNECT server.example:443 "),
        ("HTTP_PROXY", "http://server.example", b"GET http://server.example/v1/attestation"),
    ],
)
def test_proxies(monkeypatch: pytest.MonkeyPatch, name: str, url: str, first: bytes) -> None:
    """The parent is reached through the proxy that the variables name, with its login."""
    with listening() as (port, came):
        monkeypatch.setenv(name, f"http://desk:can%40ary@127.0.0.1:{port}")
        error = ask(url)
        assert came[0].startswith(first)
        assert base64.b64encode(b"desk:can@ary") in came[0]
        if url.startswith("https"):
            assert f"through the proxy 127.0.0.1:{port}" in str(error)
        assert "ary" not in str(error)


@pytest.mark.usefixtures("no_proxies")
def test_what_no_proxy_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY is heeded; this machine itself, where tunnels end, is never behind a proxy."""
    with listening() as (port, came), listening() as (proxy, through):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        assert "answered 404" in str(ask(f"http://127.0.0.1:{port}"))
        assert len(came) == 1
        monkeypatch.setenv("NO_PROXY", "internal.invalid")
        assert isinstance(ask("http://server.internal.invalid"), UnavailableError)
        assert through == []


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("proxy", ["nonsense", "socks5://127.0.0.1:1"])
def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """What cannot be a proxy is a setting that is wrong."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        Transport("https://server.example")
