"""
The preflight: what must be true before the enclave serves.

Its clock is near the NSM's, its randomness comes from the NSM, its model answers.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.enclave.engine.interface import Engine
from app.enclave.nsm import Nsm
from app.protocol import cbor
from app.protocol.constants import MAX_START_DRIFT_SECONDS
from app.protocol.errors import AppError, ClockError, ProtocolError
from app.protocol.question import Message, Options, Question

RNG_CURRENT: Final = Path("/sys/devices/virtual/misc/hw_random/rng_current")
_NSM_RNG: Final = "nsm-hwrng"
_SELF_PROMPT: Final = Question((Message("user", "Are you there?"),), Options(max_tokens=4))
_SELF_PROMPT_SECONDS: Final = 60
_TAG_COSE_SIGN1: Final = b"\xd2"  # which real documents leave out
_MAX_TIMESTAMP_MS: Final = 2**47  # the year 6429; datetime ends at 9999


class PreflightError(AppError):
    """Something that must be true before serving is not."""

    code = "preflight"


def require_hardware_entropy(rng_current: Path) -> None:
    """
    Require that the kernel's randomness comes from the NSM.

    Raises:
        PreflightError: Another source, or none, is selected.

    Source: Trail of Bits, "A few notes on AWS Nitro Enclaves: attack surface", randomness.
    """
    try:
        current = rng_current.read_text().strip()
    except OSError:
        current = "none"
    if current != _NSM_RNG:
        raise PreflightError(f"the kernel's random source is not {_NSM_RNG}")


def seed(nsm: Nsm, pool: Path = Path("/dev/random")) -> None:
    """
    Mix the NSM's randomness into the kernel's pool.

    Raises:
        PreflightError: The NSM gives the same bytes twice.
    """
    first, second = nsm.random(), nsm.random()
    if first == second or len(first) < 16:
        raise PreflightError("the NSM's randomness is not random")
    pool.write_bytes(first + second)


def require_clock(nsm: Nsm, *, now: datetime) -> float:
    """
    Require that *now* is near the NSM's clock, which the parent cannot set.

    Returns the drift in seconds.

    Raises:
        ClockError: It is more than `MAX_START_DRIFT_SECONDS` off.

        ProtocolError: The NSM's document has not the form of one.
    """
    document = nsm.attest(user_data=None, nonce=None, public_key=None)
    drift = abs((now - unverified_timestamp(document)).total_seconds())
    if drift > MAX_START_DRIFT_SECONDS:
        raise ClockError(
            f"system clock is {drift:.0f} s off the NSM's, at most {MAX_START_DRIFT_SECONDS}"
        )
    return drift


def unverified_timestamp(document: bytes) -> datetime:
    """
    Read the time at which *document* was made, without verifying it.

    Only for a document that the caller took from its own NSM: the enclave's one clock that the
    parent can't set.

    Raises:
        ProtocolError: It has not the form of a document.
    """
    match cbor.decode(document.removeprefix(_TAG_COSE_SIGN1), any_form=True):
        case [_, _, bytes(payload), _]:
            claims = cbor.decode(payload, any_form=True)
            if isinstance(claims, dict):
                milliseconds = cbor.integer(claims.get("timestamp"), 1, _MAX_TIMESTAMP_MS)
                return datetime.fromtimestamp(milliseconds / 1000, UTC)
    raise ProtocolError("the NSM's document states no time")


def require_answer(engine: Engine) -> None:
    """
    Require that the model answers a question of our own.

    Raises:
        PreflightError: It fails to, or takes longer than a minute.
    """
    generation = engine.start(_SELF_PROMPT, deadline=time.monotonic() + _SELF_PROMPT_SECONDS)
    while generation.finish is None:
        generation.take(0.1)
    if generation.finish.reason == "error":
        raise PreflightError("the model does not answer the self-prompt")


def utc_now() -> datetime:
    """Give the system's time, aware."""
    return datetime.now(UTC)
