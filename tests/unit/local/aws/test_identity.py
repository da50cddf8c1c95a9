import json
from datetime import UTC, datetime, timedelta

import pytest

from local.aws.error import AwsError
from local.aws.identity import Directory, Session

STATEMENT = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
START = datetime(2026, 11, 27, tzinfo=UTC)


def test_sessions_are_forgotten_some_time_after_their_end() -> None:
    """
    What has just expired is told as that; later it is as if it had never been, and takes no room.
    """
    directory = Directory("111122223333")
    arn = directory.add_role("chat", trust=TRUST)
    role = directory.role(arn)
    assert role is not None
    long_term = directory.add_user("asker")

    def assume(now: datetime) -> tuple[str, str | None]:
        session = Session(role, "me", now + timedelta(minutes=15), None, 0, None)
        key, _, _ = directory.issue(session, now)
        return key.access_key_id, key.session_token

    first = assume(START)
    for minutes in range(1, 60):
        assume(START + timedelta(minutes=minutes))
        now = START + timedelta(minutes=minutes)
        if minutes >= 15:
            code = "ExpiredToken" if minutes < 20 else "InvalidClientTokenId"
            with pytest.raises(AwsError) as raised:
                directory.authenticate(*first, now)
            assert raised.value.code == code
    assert len(directory._holders) <= 1 + 21
    assert directory.authenticate(long_term.access_key_id, None, now)[0].arn.endswith("user/asker")
