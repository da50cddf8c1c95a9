"""
The accounts of the twin's AWS, each with principals of its own.
"""

import re
from datetime import datetime
from typing import Final

from local.aws.error import AwsError
from local.aws.identity import AccessKey, Directory, Role, Session
from local.aws.policy import Caller

_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)


class Accounts:
    """
    All accounts; what one does not know is asked of the others.

    Args:
        first: Whose is the account that is there from the start.
    """

    def __init__(self, first: Directory) -> None:
        self._directories = {first.account: first}

    def add(self, account: str) -> Directory:
        """
        Open another account, and give its principals.

        Raises:
            ValueError: Its number is malformed or taken.
        """
        if not _ACCOUNT.fullmatch(account) or account in self._directories:
            raise ValueError(f"account {account!r} is malformed, or there already")
        directory = Directory(account)
        self._directories[account] = directory
        return directory

    def directory(self, account: str) -> Directory:
        """Give the principals of *account*, which is there."""
        return self._directories[account]

    def exists(self, arn: str) -> bool:
        """Say whether a policy can name *arn* as a principal."""
        return any(directory.exists(arn) for directory in self._directories.values())

    def role(self, arn: str) -> Role | None:
        """Find a role, in whatever account."""
        roles = (directory.role(arn) for directory in self._directories.values())
        return next((role for role in roles if role is not None), None)

    def issue(self, session: Session, now: datetime) -> tuple[AccessKey, str, str]:
        """Give a role session's credentials, its ARN and its id, in the role's account."""
        return self.directory(session.role.arn.split(":")[4]).issue(session, now)

    def authenticate(
        self, access_key_id: str, session_token: str | None, now: datetime
    ) -> tuple[Caller, str]:
        """
        Find who has this access key, as `Directory.authenticate`.

        Raises:
            AwsError: InvalidClientTokenId or ExpiredToken.
        """
        *others, last = self._directories.values()
        for directory in others:
            try:
                return directory.authenticate(access_key_id, session_token, now)
            except AwsError as error:
                if error.code != "InvalidClientTokenId":
                    raise
        return last.authenticate(access_key_id, session_token, now)
