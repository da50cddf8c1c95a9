"""
The key ring: the HPKE keys that requests can be sealed to now, and what each has opened.

A key is made inside after boot, serves an hour, opens 10 more minutes, and takes the memory of
what it opened with it. SPEC.md section 4.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from app.protocol.authorization import Authorization
from app.protocol.constants import (
    HPKE_OVERLAP_SECONDS,
    HPKE_ROTATION_SECONDS,
    MAX_SEEN_PER_KEY,
)
from app.protocol.errors import BusyError, ReplayError, UnknownKeyError
from app.protocol.sealing import SealedRequest, derive_key_id, open_request, parse_opened


@dataclass(slots=True)
class _Key:
    private: X25519PrivateKey = field(repr=False)
    public: bytes
    made: float
    seen: set[bytes] = field(default_factory=set, repr=False)


class KeyRing:
    """
    The current key and the one before it. Safe to use from many threads.

    Args:
        manifest_digest: Every request is bound to it.

        clock: Monotonic seconds.

        capacity: Requests remembered per key.
    """

    def __init__(
        self,
        *,
        manifest_digest: bytes,
        clock: Callable[[], float],
        capacity: int = MAX_SEEN_PER_KEY,
    ) -> None:
        self._manifest_digest = manifest_digest
        self._clock = clock
        self._capacity = capacity
        self._lock = threading.Lock()
        self._keys: dict[bytes, _Key] = {}
        self._current = self._add()

    def public_key(self) -> bytes:
        """Give the public key to seal to now, 32 bytes."""
        with self._lock:
            self._turn()
            return self._current.public

    def open(self, request: SealedRequest) -> tuple[Authorization, bytes]:
        """
        Open *request*, once, and give its authorization and its envelope, still sealed.

        Raises:
            UnknownKeyError: The key it was sealed to is gone; attest again.

            EnvelopeError: It does not open.

            ProtocolError: It opens and breaks the format inside.

            ReplayError: It was opened before.

            BusyError: Its key has opened all that it can remember; the next key is ready.
        """
        with self._lock:
            self._turn()
            key = self._keys.get(request.key_id)
        if key is None:
            raise UnknownKeyError
        opened = open_request(
            request, private_key=key.private, manifest_digest=self._manifest_digest
        )
        self._remember(key, request.enc)
        return parse_opened(opened)

    def _remember(self, key: _Key, enc: bytes) -> None:
        with self._lock:
            if self._keys.get(derive_key_id(key.public)) is not key:
                raise UnknownKeyError  # destroyed while its request was being opened
            if enc in key.seen:
                raise ReplayError
            if len(key.seen) >= self._capacity:
                # The key goes, and what it has seen with it: nothing can be opened twice.
                del self._keys[derive_key_id(key.public)]
                if key is self._current:
                    self._current = self._add()
                raise BusyError
            key.seen.add(enc)

    def _turn(self) -> None:
        now = self._clock()
        if now - self._current.made >= HPKE_ROTATION_SECONDS:
            self._current = self._add()
        oldest = now - HPKE_ROTATION_SECONDS - HPKE_OVERLAP_SECONDS
        self._keys = {name: key for name, key in self._keys.items() if key.made > oldest}

    def _add(self) -> _Key:
        private = X25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        key = _Key(private, public, self._clock())
        self._keys[derive_key_id(public)] = key
        return key
