"""
The host's check at first boot: has the enclave behind this parent proven itself?

Runs on the instance, asks over the parent's own HTTPS as any client would, and needs no right in
AWS. In order: the supervisor sees the enclave running, not in debug mode; a fresh attestation
document verifies under AWS's root with the PCRs and weights of the approved release, which an
enclave gives only after its self-prompt; and KMS, asked by the enclave with credentials that
nobody has, refuses them, which takes a TLS handshake with the real KMS.
"""

import argparse
import json
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust, VerifiedEnclave, production_trust, verify_enclave
from app.parent.config import HostConfig
from app.protocol.asker.answer import open_error
from app.protocol.asker.envelope import seal_question
from app.protocol.asker.messages import parse_attestation, parse_hint
from app.protocol.asker.sealing import seal_request
from app.protocol.authorization import Authorization, Credentials, KeyArn, parse_key_arn
from app.protocol.constants import (
    ANSWER_SECRET_BYTES,
    CONVERSATION_BYTES,
    DATA_KEY_BYTES,
    NONCE_BYTES,
)
from app.protocol.errors import (
    AppError,
    AttestationError,
    ConfigError,
    DeniedError,
    KmsError,
    ProtocolError,
    UnavailableError,
)
from app.protocol.messages import Kind
from app.protocol.question import Message, Options, Question
from app.protocol.regions import REGIONS
from app.protocol.sealing import digest_request

_PAUSE_SECONDS: Final = 10
_STATUS_SECONDS: Final = 60  # older ones are of a supervisor that no longer looks
_WRAPPED_KEY_BYTES: Final = 184  # the size of a real one
_EPILOG: Final = """\
exit codes: 0 proven; 1 not within the time, the last line says what is missing; 2 wrong usage;
3 what answers is no approved enclave, which waiting does not mend
"""


@dataclass(frozen=True, slots=True)
class Host:
    """
    What is checked.

    Attributes:
        transport: To the parent.

        trust: AWS's root and the one release that runs here.

        config: Says in which Region the enclave is to reach KMS, and by which name.

        status_path: Where the supervisor says how the enclave stands.
    """

    transport: Transport
    trust: Trust
    config: HostConfig
    status_path: Path


def check_host(host: Host) -> VerifiedEnclave:
    """
    Check once; give the enclave, which has proven itself.

    Raises:
        UnavailableError: It does not run, or does not answer.

        AttestationError: It answers and is not the approved one.

        KmsError: It cannot reach KMS.

        AppError: The parent hints at something else.
    """
    require_running(host.status_path, now=time.time())
    nonce = secrets.token_bytes(NONCE_BYTES)
    document, manifest = parse_attestation(host.transport.get_attestation(nonce))
    enclave = verify_enclave(
        document, manifest, nonce=nonce, now=datetime.now(UTC), trust=host.trust
    )
    require_kms(host.transport, enclave, region=host.config.region, fips=host.config.fips)
    return enclave


def require_running(status_path: Path, *, now: float) -> None:
    """
    Require that the supervisor has just seen the approved enclave running and heard from it.

    Raises:
        UnavailableError: It has not.
    """
    try:
        status = json.loads(status_path.read_text())
    except (OSError, ValueError):
        raise UnavailableError("the supervisor has said nothing yet") from None
    match status:
        case {"at": int(at), "state": str(state), "up": bool(up)}:
            pass
        case _:
            raise UnavailableError("the supervisor's status has other fields")
    if now - at > _STATUS_SECONDS:
        raise UnavailableError(f"the supervisor last looked {now - at:.0f} s ago")
    if state != "RUNNING" or not up:
        raise UnavailableError(f"the enclave is {state.lower()} and gives no counts yet")


def require_kms(transport: Transport, enclave: VerifiedEnclave, *, region: str, fips: bool) -> None:
    """
    Require that *enclave* reaches KMS: that KMS refuses a question nobody asked.

    Raises:
        KmsError: It reaches nobody who proves to be KMS.

        AppError: It fails in another way.
    """
    authorization = _nobody(region, fips=fips)
    request = seal_request(
        authorization,
        _nothing(authorization.key_arn, authorization.conversation),
        public_key=enclave.public_key,
        manifest_digest=enclave.manifest.digest,
    )
    with closing(transport.post_chat(request)) as messages:
        kind, body = next(messages, (None, b""))
    if kind is Kind.HINT:
        raise parse_hint(body)
    if kind is not Kind.SEALED_ERROR:
        raise ProtocolError("the enclave did not refuse a question that nobody asked")
    secret = authorization.answer_secret
    error = open_error(body, answer_secret=secret, request_digest=digest_request(request))
    if isinstance(error, KmsError):
        raise KmsError("the enclave cannot reach KMS: look at enclave-llm-kms-proxy")
    if not isinstance(error, DeniedError):
        raise error


def _nobody(region: str, *, fips: bool) -> Authorization:
    """Give an authorization of nobody, for a key that is nobody's."""
    partition = REGIONS[region].partition
    key = f"arn:{partition}:kms:{region}:{'0' * 12}:key/00000000-0000-0000-0000-000000000000"
    return Authorization(
        credentials=Credentials("ASIA" + "0" * 16, secrets.token_hex(20), secrets.token_hex(32)),
        key_arn=parse_key_arn(key),
        wrapped_question_key=bytes(_WRAPPED_KEY_BYTES),
        answer_secret=secrets.token_bytes(ANSWER_SECRET_BYTES),
        conversation=secrets.token_bytes(CONVERSATION_BYTES),
        turn=0,
        fips=fips,
    )


def _nothing(key_arn: KeyArn, conversation: bytes) -> bytes:
    """Seal a question that no enclave can open."""
    question = Question((Message("user", "Are you there?"),), Options(max_tokens=1))
    key = secrets.token_bytes(DATA_KEY_BYTES)
    return seal_question(question, data_key=key, key_arn=key_arn, conversation=conversation, turn=0)


def wait_for_host(
    check: Callable[[], VerifiedEnclave],
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Check until the enclave has proven itself, *seconds* are over or waiting is in vain."""
    end = clock() + seconds
    while True:
        try:
            enclave = check()
        except AttestationError as error:
            print(f"enclave-llm: not trusted: {error}", flush=True)
            return 3
        except AppError as error:
            print(f"enclave-llm: not yet: {error}", flush=True)
        else:
            release = enclave.release
            pcr0 = release.measurements.pcr0.hex()
            print(f"enclave-llm: proven: release {release.name}, pcr0 {pcr0}", flush=True)
            return 0
        if clock() + _PAUSE_SECONDS > end:
            print(f"enclave-llm: not proven within {seconds:.0f} s", flush=True)
            return 1
        sleep(_PAUSE_SECONDS)


def main() -> int:
    """Wait for this host's enclave; give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="of the parent")
    parser.add_argument("--tls-ca", required=True, metavar="FILE", help="its certificate")
    parser.add_argument("--releases", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="host.json: whose KMS it reaches"
    )
    parser.add_argument("--status", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=1200, help="how long to wait")
    options = parser.parse_args()
    try:
        trust = production_trust(options.releases)
        config = HostConfig.from_file(options.config)
    except ConfigError as error:
        parser.error(str(error))
    transport = Transport(options.url, tls_ca=options.tls_ca)
    host = Host(transport, trust, config, options.status)
    return wait_for_host(lambda: check_host(host), seconds=options.seconds)


if __name__ == "__main__":
    sys.exit(main())
