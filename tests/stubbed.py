"""
An AWS that answers as a test wants: real boto3 clients, their answers from botocore's Stubber.

Stubber checks parameters and answers against AWS's own service models.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cache

import boto3
import pytest
from botocore.client import BaseClient
from botocore.stub import Stubber

ACCOUNT = "111122223333"
REGION = "eu-central-1"


class StubbedAws:
    """
    A session whose clients give the answers that were put in, in order, and nothing else.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = boto3.Session(region_name=REGION)
        self._stubbers: dict[str, Stubber] = {}
        self._stack = ExitStack()
        monkeypatch.setattr(self.session, "client", lambda name: self._stubber(name).client)

    def answers(self, service: str, method: str, answer: Mapping[str, object]) -> None:
        """Let the next call be *method*, with this answer."""
        self._stubber(service).add_response(method, dict(answer))

    def refuses(self, service: str, method: str, code: str, message: str = "no") -> None:
        """Let the next call be *method*, refused with *code*."""
        self._stubber(service).add_client_error(
            method, service_error_code=code, service_message=message
        )

    def assert_all_asked(self) -> None:
        """Require that every answer was asked for."""
        for stubber in self._stubbers.values():
            stubber.assert_no_pending_responses()

    def _stubber(self, service: str) -> Stubber:
        if service not in self._stubbers:
            self._stubbers[service] = self._stack.enter_context(Stubber(make_client(service)))
        return self._stubbers[service]

    def close(self) -> None:
        """Take the answers out of the clients again."""
        self._stack.close()


@cache
def make_client(service: str) -> BaseClient:
    """Give the one client of *service*; making one takes longer than a test."""
    session = boto3.Session(
        aws_access_key_id="AKIDTEST", aws_secret_access_key="nothing", region_name=REGION
    )
    client: BaseClient = session.client(service)  # type: ignore[call-overload]  # any service
    return client


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubbedAws]:
    """An AWS that answers nothing yet."""
    aws = StubbedAws(monkeypatch)
    yield aws
    aws.close()
