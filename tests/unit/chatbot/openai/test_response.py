import pytest

from app.chatbot.openai.response import Limit, fail
from app.protocol.errors import AppError, BusyError, ConfigError, KmsError, PcrMismatchError


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (PcrMismatchError("x"), True),
        (ConfigError("the list of approved releases is gone"), True),
        (BusyError(), False),
        (KmsError("x"), False),
    ],
)
def test_clients_do_not_retry_what_a_person_has_to_mend(error: AppError, *, final: bool) -> None:
    """An enclave that is not trusted, or a list that is gone, is not asked for again and again."""
    failure = fail(error, Limit("messages", 512))
    assert ("x-should-retry" in failure.headers) == final
    assert failure.status >= 400
