import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from local.twin.parent import Recorder


def answer(environ: dict[str, object], _: object) -> Iterable[bytes]:
    """Read the request; answer with a hundred bytes, in two pieces."""
    source = environ["wsgi.input"]
    assert isinstance(source, Iterator | io.IOBase) or hasattr(source, "read")
    source.read()
    yield from (b"a" * 50, b"b" * 50)


def ask(recorder: Recorder, body: bytes) -> bytes:
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body)}
    return b"".join(recorder(environ, lambda *_: lambda _: None))


def test_the_latest_exchanges_are_kept(tmp_path: Path) -> None:
    """
    What crossed the parent is kept up to a limit; the oldest goes, and the newest is whole.
    """
    recorder = Recorder(answer, tmp_path, limit=1000)
    for number in range(30):
        assert len(ask(recorder, b"%03d" % number)) == 100
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    requests = sorted(tmp_path.glob("*.request"))
    assert [path.read_bytes() for path in requests] == [b"%03d" % n for n in range(21, 30)]
    assert all(path.with_suffix(".answer").stat().st_size == 100 for path in requests)


def test_one_that_is_larger_than_the_limit_is_kept(tmp_path: Path) -> None:
    """
    The last exchange is there in any case, for whoever shows it.
    """
    recorder = Recorder(answer, tmp_path, limit=10)
    for _ in range(3):
        ask(recorder, b"request")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".answer", ".request"]
