"""
The twin: all parties of a deployment on this machine, started, watched and stopped together.

AWS (KMS, STS) and the NSM run in threads of this process; the enclave and the parent are
processes of their own. What they write lies in one folder. The enclave is the product's program
as a process, or a built image in an emulated enclave, whose NSM is QEMU's.
"""

import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import boto3

from app.chatbot.config import ChatbotConfig
from app.chatbot.library.session import Session as LibrarySession
from app.chatbot.session.access import Access
from app.chatbot.session.session import Session, connect
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust
from app.enclave.engine.weights import load_weights, unverified_weights
from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.errors import ConfigError
from app.protocol.releases import Release
from image.eif.record import RECORD_NAME
from image.errors import ImageError
from image.files import room_for
from infra.attested_policy import KeyPolicy
from infra.key_policy import policy_of
from infra.trust_policy import trust_policy
from local.aws.identity import AccessKey
from local.aws.server import TwinAws
from local.emulator.enclave import prepare_enclave
from local.emulator.machine import parent_socket
from local.processes.image import KIT, measurements_of, pack_process_image
from local.processes.ready import wait_until_ready
from local.processes.supervise import ROOT, Child, Process
from local.signers.nsm import SoftwareNsm, serve_nsm
from local.signers.pki import Identity, make_root
from local.signers.tls import TlsFiles, make_tls
from local.twin.files import aws_session, write_askers_files
from local.twin.owner import Owner, add_owner
from local.twin.parties import (
    ENCLAVE_PROGRAM,
    PARENT_PROGRAM,
    image_weights,
    start_enclave,
    start_parent,
    start_weights_server,
)

DEMO_WEIGHTS: Final = ROOT / "local" / "demo_model" / "weights"
ACCOUNT: Final = "111122223333"  # AWS's own for documentation
REGION: Final = "us-east-1"
ROOT_NAME: Final = "the twin's root (AWS Nitro's, when deployed)"
CHAT_ROLE: Final = f"enclave-llm-chat-{REGION}"  # as the stack names it
CHAT_ROLE_ARN: Final = f"arn:aws:iam::{ACCOUNT}:role/{CHAT_ROLE}"
ASKER: Final = "asker"
ASKER_ARN: Final = f"arn:aws:iam::{ACCOUNT}:user/{ASKER}"
_MARK: Final = ".twin"  # a file in every folder that a twin may empty


@dataclass(frozen=True, slots=True)
class Deployed:
    """
    Policies read back from a deployed stack, in JSON, that the twin enforces in place of its own.
    """

    key_policy: str
    chat_role_trust: str


@dataclass(slots=True)
class Twin:
    """
    A running twin.

    Attributes:
        folder: Logs, configuration, releases.json, what the parent saw.

        nsm: Its documents can be bent by tests. An emulated enclave has its own, which signs with
            the same chain.

        aws: Its KMS and STS can, too.

        sender: Sends the enclave its weights when it starts.
    """

    folder: Path
    sockets: Path
    aws: TwinAws
    nsm: SoftwareNsm
    trust: Trust
    config: ChatbotConfig
    asker: boto3.Session
    enclave: Child
    parent: Process
    sender: Process
    owner: Owner | None = None

    @property
    def release(self) -> Release:
        """The one approved release."""
        return self.trust.releases[0]

    @property
    def record(self) -> Path:
        """The build record of the image that runs."""
        kit = self.release.kit
        return self.folder / ("image" if kit == KIT else "") / RECORD_NAME

    @property
    def parent_saw(self) -> Path:
        """The folder of request and answer bodies that crossed the parent."""
        return self.folder / "parent_saw"

    def transport(self) -> Transport:
        """Open a connection to the parent."""
        config = self.config
        return Transport(config.url, tls_ca=config.tls_ca, any_certificate=config.any_certificate)

    def access(self) -> Access:
        """Give the asker's access."""
        return Access(self.config, session=self.asker)

    def connect(self) -> Session:
        """
        Verify the enclave and give a session, as the product's chatbot does.

        Raises:
            AppError: As `app.chatbot.session.session.connect`.
        """
        return connect(
            self.transport(), self.access(), key_arn=self.config.key_arn, trust=self.trust
        )

    def open(self) -> LibrarySession:
        """
        Verify the enclave and give a session, as the library does.

        Raises:
            AppError: As `connect`.
        """
        return LibrarySession(self.connect())


@contextmanager
def run_twin(
    folder: Path,
    *,
    weights: Path = DEMO_WEIGHTS,
    program: str = ENCLAVE_PROGRAM,
    parent_program: Sequence[str] = PARENT_PROGRAM,
    deployed: Deployed | None = None,
    image: Path | None = None,
    weights_inside: bool = False,
    sealed: bool = False,
    console: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Twin]:
    """
    Start all parties, give the twin when it is ready to answer, stop everything afterwards.

    Args:
        folder: New, empty or an earlier twin's, whose files are then gone.

        weights: In the process's image with *weights_inside*, else sent, *sealed* by their owner.

        program, parent_program: In place of `ENCLAVE_PROGRAM` and `PARENT_PROGRAM`.

        deployed: Policies to enforce; by default those that the stack synthesises.

        image: EIF to run in an emulated enclave, in place of a process.

        note: Told of each step, and with *console* of what an emulated enclave's console says.

    Raises:
        UnavailableError: A party ends or is not ready in time; shows its log.

        ConfigError, WeightsError: *folder* or *weights* cannot be used, or no enclave emulated.
    """
    forget_aws_environment()
    with ExitStack() as stack:
        folder = stack.enter_context(_empty(folder.absolute()))
        sockets = _socket_folder(stack)
        tls = make_tls(folder / "tls", region=REGION)
        emulated = prepare_enclave(image, folder, tls.ca, weights, note) if image else None
        held = image_weights(folder, weights, inside=weights_inside)
        release = emulated.release if emulated else _approve_process(folder, weights, held, note)
        root = make_root(now=datetime.now(UTC))
        nsm = SoftwareNsm(root, release.measurements)
        note("starting KMS and STS with the synthesised key policy")
        policies = deployed or synthesised([release])
        aws, key_arn, asker = _serve_aws(stack, folder, sockets, tls, root, policies)
        trust = Trust(root.certificate, ROOT_NAME, (release,))
        config = _write_lists(folder, key_arn, tls, trust)
        parent = start_parent(stack, folder, sockets, config, program=parent_program)
        owner = add_owner(aws, [release], asker) if sealed else None
        sender = start_weights_server(stack, folder, sockets, weights, owner=owner)
        note("booting the enclave" if emulated else "starting the enclave, which loads the model")
        if emulated:
            enclave: Child = emulated.start(stack, sockets, nsm.chain, note, console=console)
        else:
            stack.enter_context(serve_nsm(sockets / "nsm", nsm))
            enclave = start_enclave(stack, folder, sockets, held, program=program)
        wait_until_ready(config, (enclave, parent, sender), note, emulated=emulated is not None)
        yield Twin(folder, sockets, aws, nsm, trust, config, asker, enclave, parent, sender, owner)


def _serve_aws(  # noqa: PLR0917 - called once, each by its own name
    stack: ExitStack,
    folder: Path,
    sockets: Path,
    tls: TlsFiles,
    root: Identity,
    policies: Deployed,
) -> tuple[TwinAws, str, boto3.Session]:
    """Serve KMS and STS under *policies*; give them, the key's ARN and the asker's session."""
    audit = folder / "logs" / "kms.jsonl"
    aws = TwinAws(account=ACCOUNT, region=REGION, nsm_root=root.certificate, audit_path=audit)
    asker = _add_principals(aws, policies.chat_role_trust)
    key_arn = aws.add_key(policies.key_policy)
    stack.enter_context(aws.serve_unix(parent_socket(sockets, KMS_PROXY_PORT), tls=tls))
    session = aws_session(
        folder, asker, stack.enter_context(aws.serve(tls=tls)), tls.ca, region=REGION
    )
    return aws, key_arn, session


def _socket_folder(stack: ExitStack) -> Path:
    """Give a folder with a short path: that of a Unix socket has at most 107 bytes, unix(7)."""
    place = None if len(os.fsencode(tempfile.gettempdir())) < 80 else "/tmp"  # noqa: S108
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twin-", dir=place)))


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    """Make *folder* new, or empty an earlier twin's; give it, and keep other twins out."""
    with ExitStack() as stack:
        try:
            _clear(folder, stack)
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be used ({error.strerror}): name another with --folder"
            ) from None
        yield folder


def _clear(folder: Path, stack: ExitStack) -> None:
    """Lock *folder* until *stack* ends, and empty it."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / _MARK).exists():
        raise ConfigError(
            f"{folder} holds other things: name a new folder, or a twin's, with --folder"
        )
    descriptor = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    _lock(descriptor, folder)
    (folder / _MARK).touch()
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _MARK:
            path.unlink()
    for name in ("parent_saw", "logs"):
        (folder / name).mkdir()


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another twin uses {folder}: name another with --folder") from None


def _approve_process(
    folder: Path, weights: Path, held: Path, note: Callable[[str], None]
) -> Release:
    note("packing and measuring the enclave's modules and weights")
    return approve(ROOT, weights, folder / "image", weights_inside=weights == held)


def approve(root: Path, weights: Path, folder: Path, *, weights_inside: bool = False) -> Release:
    """
    Pack the modules below *root* with *weights* as the twin's image; give the approved release.

    Args:
        folder: Holds the image afterwards.

        weights_inside: All of the weights, not model.json alone.

    Raises:
        ConfigError: The disk is full, or a file cannot be packed.

        WeightsError: *weights* is no weights package, intact where it goes in.
    """
    digest = (load_weights if weights_inside else unverified_weights)(weights).digest
    try:
        with room_for(folder):
            folder.mkdir(parents=True, exist_ok=True)
            record = pack_process_image(
                folder, root, weights, digest=digest, weights_inside=weights_inside
            )
    except ImageError as error:
        raise ConfigError(str(error)) from None
    measurements = measurements_of(record)
    name = f"{KIT}-{measurements.pcr0.hex()[:8]}"
    return Release(name, KIT, measurements, digest, datetime.now(UTC))


def policy_for(releases: Sequence[Release]) -> KeyPolicy:
    """Give the key policy that the stack synthesises for *releases*."""
    return policy_of(account=ACCOUNT, chat_role_arn=CHAT_ROLE_ARN, releases=releases)


def synthesised(releases: Sequence[Release]) -> Deployed:
    """Give the policies that the stack synthesises for *releases* and the twin's asker."""
    trust = trust_policy([ASKER_ARN], require_source_identity=False)
    return Deployed(json.dumps(policy_for(releases)), json.dumps(trust))


def forget_aws_environment() -> None:
    """
    Drop what this shell says about AWS, and proxies for this machine.

    boto3 prefers AWS_CA_BUNDLE, AWS_ENDPOINT_URL and the like to any file, and a demo that
    talked to a real account by mistake would be worse than none.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


def _add_principals(aws: TwinAws, trust: str) -> AccessKey:
    """Add the asker and the chat role, which has no rights but those of the key policy."""
    assume = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": CHAT_ROLE_ARN}
    asker = aws.identity.add_user(ASKER, [_document(assume)])
    aws.identity.add_role(CHAT_ROLE, trust=trust)
    return asker


def _document(statement: Mapping[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _free_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"https://127.0.0.1:{probe.getsockname()[1]}"


def _write_lists(folder: Path, key_arn: str, tls: TlsFiles, trust: Trust) -> ChatbotConfig:
    """Write what an asker has of the twin; give the addresses of it."""
    config = ChatbotConfig(_free_url(), key_arn, CHAT_ROLE_ARN, tls_ca=str(tls.ca))
    write_askers_files(folder, config, trust.releases[0], trust.root)
    return config
