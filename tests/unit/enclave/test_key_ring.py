import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.enclave.key_ring import KeyRing
from app.protocol.asker.sealing import seal_request
from app.protocol.constants import HPKE_OVERLAP_SECONDS, HPKE_ROTATION_SECONDS
from app.protocol.envelope import ENVELOPE_SIZES
from app.protocol.errors import (
    AppError,
    BusyError,
    EnvelopeError,
    ProtocolError,
    ReplayError,
    UnknownKeyError,
)
from app.protocol.sealing import SealedRequest, derive_key_id, parse_sealed_request
from tests.samples import AUTHORIZATION, MANIFEST_DIGEST, changed
from tests.support import Clock

ENVELOPE = bytes(min(ENVELOPE_SIZES))
GONE = HPKE_ROTATION_SECONDS + HPKE_OVERLAP_SECONDS


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(clock: Clock) -> KeyRing:
    return KeyRing(manifest_digest=MANIFEST_DIGEST, clock=clock)


def seal(public_key: bytes) -> SealedRequest:
    """Seal a new request to *public_key*."""
    sealed = seal_request(
        AUTHORIZATION, ENVELOPE, public_key=public_key, manifest_digest=MANIFEST_DIGEST
    )
    return parse_sealed_request(sealed)


def test_opens(ring: KeyRing) -> None:
    """
    A request to the current key opens.
    """
    assert ring.open(seal(ring.public_key())) == (AUTHORIZATION, ENVELOPE)


def test_rotation(ring: KeyRing, clock: Clock) -> None:
    """
    A key serves an hour; then there is another.
    """
    first = ring.public_key()
    clock.now += HPKE_ROTATION_SECONDS - 1
    assert ring.public_key() == first
    clock.now += 1
    assert ring.public_key() != first


def test_overlap(ring: KeyRing, clock: Clock) -> None:
    """
    A key opens for ten minutes more, beside the new one, and is then destroyed.
    """
    first = ring.public_key()
    requests = [seal(first) for _ in range(3)]
    clock.now += HPKE_ROTATION_SECONDS
    ring.open(seal(ring.public_key()))
    ring.open(requests[0])
    clock.now += HPKE_OVERLAP_SECONDS - 1
    ring.open(requests[1])
    clock.now += 1
    with pytest.raises(UnknownKeyError):
        ring.open(requests[2])
    assert derive_key_id(first) not in ring._keys


def test_last_minute_of_an_idle_key(ring: KeyRing, clock: Clock) -> None:
    """
    Who attests just before a rotation has the whole overlap, though nobody came in between.
    """
    clock.now += HPKE_ROTATION_SECONDS - 1
    request = seal(ring.public_key())
    clock.now += HPKE_OVERLAP_SECONDS
    ring.open(request)


@pytest.mark.parametrize("seconds", [GONE, 10 * GONE])
def test_idle_for_long(ring: KeyRing, clock: Clock, seconds: int) -> None:
    """
    A key that nobody used while its time ran out is destroyed by the next caller, and at most
    two keys are ever held.
    """
    request = seal(ring.public_key())
    clock.now += seconds
    with pytest.raises(UnknownKeyError):
        ring.open(request)
    assert len(ring._keys) == 1


def test_replay(ring: KeyRing, clock: Clock) -> None:
    """
    The same request opens once, under the old key too; after that it is of an unknown key.
    """
    request = seal(ring.public_key())
    ring.open(request)
    with pytest.raises(ReplayError):
        ring.open(request)
    clock.now += HPKE_ROTATION_SECONDS
    with pytest.raises(ReplayError):
        ring.open(request)
    clock.now += HPKE_OVERLAP_SECONDS
    with pytest.raises(UnknownKeyError):
        ring.open(request)


def test_garbage_is_not_remembered(ring: KeyRing) -> None:
    """
    What does not open takes no place in memory, and spoils no genuine request with its `enc`.
    """
    request = seal(ring.public_key())
    altered = SealedRequest(request.key_id, request.ciphertext[:-1] + b"?")
    with pytest.raises(EnvelopeError):
        ring.open(altered)
    ring.open(request)


def test_malformed_inside(ring: KeyRing) -> None:
    """
    What opens and is malformed is a `ProtocolError`, once: it was opened, and is remembered.
    """
    sealed = seal_request(
        changed(AUTHORIZATION, answer_secret=b""),
        ENVELOPE,
        public_key=ring.public_key(),
        manifest_digest=MANIFEST_DIGEST,
    )
    with pytest.raises(ProtocolError):
        ring.open(parse_sealed_request(sealed))
    with pytest.raises(ReplayError):
        ring.open(parse_sealed_request(sealed))


def test_unknown_key(ring: KeyRing) -> None:
    """
    A key id that none of the keys has is unknown.
    """
    with pytest.raises(UnknownKeyError):
        ring.open(SealedRequest(bytes(8), seal(ring.public_key()).ciphertext))


def test_full_memory(clock: Clock) -> None:
    """
    A key that has opened all it can remember answers `busy` once, is replaced, and is gone with
    its memory: nothing it opened can be opened again.
    """
    ring = KeyRing(manifest_digest=MANIFEST_DIGEST, clock=clock, capacity=2)
    first = ring.public_key()
    requests = [seal(first) for _ in range(4)]
    ring.open(requests[0])
    ring.open(requests[1])
    with pytest.raises(ReplayError):
        ring.open(requests[1])
    with pytest.raises(BusyError):
        ring.open(requests[2])
    assert ring.public_key() != first
    for request in requests:
        with pytest.raises(UnknownKeyError):
            ring.open(request)
    ring.open(seal(ring.public_key()))


def test_full_memory_of_the_old_key(clock: Clock) -> None:
    """
    When the key before the current one is full, it goes alone.
    """
    ring = KeyRing(manifest_digest=MANIFEST_DIGEST, clock=clock, capacity=1)
    old = ring.public_key()
    ring.open(seal(old))
    clock.now += HPKE_ROTATION_SECONDS
    current = ring.public_key()
    with pytest.raises(BusyError):
        ring.open(seal(old))
    assert ring.public_key() == current
    with pytest.raises(UnknownKeyError):
        ring.open(seal(old))


def test_one_of_many_threads_wins(ring: KeyRing) -> None:
    """
    Of threads that open the same request at once, exactly one succeeds.
    """
    threads = 8
    for _ in range(20):
        request, barrier = seal(ring.public_key()), threading.Barrier(threads)

        def attempt(request: SealedRequest, barrier: threading.Barrier) -> type[AppError] | None:
            barrier.wait()
            try:
                ring.open(request)
            except AppError as error:
                return type(error)
            return None

        with ThreadPoolExecutor(threads) as pool:
            outcomes = list(pool.map(attempt, [request] * threads, [barrier] * threads))
        assert outcomes.count(None) == 1
        assert outcomes.count(ReplayError) == threads - 1


def test_destroyed_while_opening(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A request whose key is destroyed while it is being opened is refused: the memory that would
    have to know it is gone.
    """
    ring = KeyRing(manifest_digest=MANIFEST_DIGEST, clock=clock, capacity=1)
    full, late = seal(ring.public_key()), seal(ring.public_key())
    ring.open(seal(ring.public_key()))
    remember = ring._remember

    def overtaken(*args: object) -> None:
        monkeypatch.setattr(ring, "_remember", remember)
        with pytest.raises(BusyError):
            ring.open(full)
        remember(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ring, "_remember", overtaken)
    with pytest.raises(UnknownKeyError):
        ring.open(late)
