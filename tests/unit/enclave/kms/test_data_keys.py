import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from app.enclave.kms import data_keys
from app.enclave.kms.client import AnswerKey
from app.enclave.kms.data_keys import DataKeys
from app.protocol.authorization import Authorization, Credentials, parse_key_arn
from app.protocol.constants import DATA_KEY_CACHE_SECONDS
from app.protocol.errors import DeniedError, KmsError
from tests.support import Clock

ARN = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
OTHER_ARN = ARN.replace("1111-", "9999-")
AUTHORIZATION = Authorization(
    credentials=Credentials("ASIAEXAMPLEEXAMPLE00", "secret", "token"),
    key_arn=parse_key_arn(ARN),
    wrapped_question_key=b"wrapped",
    answer_secret=bytes(32),
    conversation=bytes(16),
    turn=0,
)


@dataclass
class CountingKms:
    """Gives a new key at every call, and counts them."""

    calls: int = 0
    failure: Exception | None = None
    before: Callable[[], object] = field(default=lambda: None)

    def open_question_key(self, authorization: Authorization) -> bytes:
        del authorization
        self.before()
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return self.calls.to_bytes(32)

    def make_answer_key(self, authorization: Authorization) -> AnswerKey:
        return AnswerKey(b"wrapped answer key", self.open_question_key(authorization))


@pytest.fixture
def kms() -> CountingKms:
    return CountingKms()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(kms: CountingKms, clock: Clock) -> DataKeys:
    return DataKeys(kms, clock)


def test_second_turn(keys: DataKeys, kms: CountingKms) -> None:
    """
    A conversation's second turn finds both keys and asks KMS nothing.
    """
    first = keys.question_key(AUTHORIZATION), keys.answer_key(AUTHORIZATION)
    later = replace(AUTHORIZATION, turn=1, answer_secret=b"another secret")
    assert (keys.question_key(later), keys.answer_key(later)) == first
    assert kms.calls == 2


@pytest.mark.parametrize(
    "other",
    [
        replace(AUTHORIZATION, wrapped_question_key=b"another"),
        replace(AUTHORIZATION, key_arn=parse_key_arn(OTHER_ARN)),
        replace(AUTHORIZATION, conversation=b"another".ljust(16)),
        replace(
            AUTHORIZATION,
            credentials=replace(AUTHORIZATION.credentials, session_token="another"),
        ),
    ],
    ids=["wrapped question key", "key", "conversation", "session token"],
)
def test_names(keys: DataKeys, other: Authorization) -> None:
    """
    Who differs in any part of the name finds nothing of another's.
    """
    assert keys.question_key(AUTHORIZATION) != keys.question_key(other)
    assert keys.answer_key(AUTHORIZATION) != keys.answer_key(other)


def test_expiry_does_not_slide(keys: DataKeys, kms: CountingKms, clock: Clock) -> None:
    """
    A key used all the time ends as soon as one never used.
    """
    for _ in range(4):
        keys.question_key(AUTHORIZATION)
        clock.now += DATA_KEY_CACHE_SECONDS / 4
    assert kms.calls == 1
    keys.question_key(AUTHORIZATION)
    assert kms.calls == 2


def test_time_counts_from_asking(kms: CountingKms, clock: Clock) -> None:
    """
    The time KMS takes to answer is part of a key's time.
    """

    def slow() -> None:
        clock.now += 30

    kms.before = slow
    keys = DataKeys(kms, clock)
    keys.question_key(AUTHORIZATION)
    clock.now += DATA_KEY_CACHE_SECONDS - 30
    keys.question_key(AUTHORIZATION)
    assert kms.calls == 2


def test_sweep(keys: DataKeys, clock: Clock) -> None:
    """
    Looking up one conversation drops every key whose time is over.
    """
    for number in range(5):
        keys.question_key(replace(AUTHORIZATION, conversation=number.to_bytes(16)))
    clock.now += DATA_KEY_CACHE_SECONDS
    keys.question_key(AUTHORIZATION)
    assert len(keys._questions._entries) == 1


def test_bound(keys: DataKeys, kms: CountingKms, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The cache never grows over its bound; the oldest key gives way, not the newest.
    """
    monkeypatch.setattr(data_keys, "_MAX_A_KIND", 2)
    names = [replace(AUTHORIZATION, conversation=number.to_bytes(16)) for number in range(3)]
    for name in names:
        keys.answer_key(name)
    assert len(keys._answers._entries) == 2
    keys.answer_key(names[2])
    assert kms.calls == 3
    keys.answer_key(names[0])
    assert kms.calls == 4


@pytest.mark.parametrize("failure", [DeniedError(), KmsError()])
def test_failures_are_not_kept(keys: DataKeys, kms: CountingKms, failure: Exception) -> None:
    """
    A failure is told to its asker, and the next one asks again.
    """
    kms.failure = failure
    for call in (keys.question_key, keys.answer_key):
        with pytest.raises(type(failure)):
            call(AUTHORIZATION)
    kms.failure = None
    keys.question_key(AUTHORIZATION)
    assert kms.calls == 3


def test_parallel_requests(kms: CountingKms, clock: Clock) -> None:
    """
    Requests that need the same key at once make one call; another conversation's doesn't wait.
    """
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        if not asked.is_set():
            asked.set()
            assert go_on.wait(10)

    kms.before = wait
    keys = DataKeys(kms, clock)
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.append(keys.question_key(AUTHORIZATION).key))
        for _ in range(4)
    ]
    threads[0].start()
    assert asked.wait(10)
    for thread in threads[1:]:
        thread.start()
    keys.question_key(replace(AUTHORIZATION, conversation=b"another".ljust(16)))
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(got) == 4
    assert len(set(got)) == 1
    assert kms.calls == 2


def test_nothing_is_left_of_turns(keys: DataKeys) -> None:
    """
    What orders parallel requests is gone with them.
    """
    keys.question_key(AUTHORIZATION)
    assert len(keys._questions._turns) == 0


def test_repr_hides_keys(keys: DataKeys) -> None:
    """
    No key shows in any representation.
    """
    key = keys.answer_key(AUTHORIZATION)
    entry = next(iter(keys._answers._entries.values()))
    for shown in (repr(key), repr(entry), repr(keys)):
        assert repr(key.key) not in shown
