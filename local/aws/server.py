"""
The twin of AWS: KMS and STS of one Region, for unmodified clients of one account or more.

Every request is authenticated (SigV4), authorised under all policies that apply, and recorded.
Not built on moto: see `local/aws/kms/store.py` for what it would let through.
"""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from cryptography import x509

from local.aws import sts
from local.aws.accounts import Accounts
from local.aws.audit import AuditEvent, AuditTrail, event_time
from local.aws.error import AwsError, validation_error
from local.aws.http_endpoint import HttpResponse, Respond, serving_tcp, serving_unix
from local.aws.identity import Directory
from local.aws.kms.admin import AdminActions, default_key_policy
from local.aws.kms.call import Call, Json
from local.aws.kms.recipient import Recipients
from local.aws.kms.service import DataActions
from local.aws.kms.store import Key, KeyStore
from local.aws.policy import Caller
from local.aws.sigv4 import HttpRequest, parse_signature, verify_signature
from local.signers.tls import TlsFiles

Answer = Mapping[str, Json]
Transform = Callable[[str, Answer], Answer]
BOTH: Final = frozenset({"kms", "sts"})

_TARGET: Final = "TrentService."
_FORM: Final = "application/x-www-form-urlencoded"
_XML: Final = "text/xml"
_JSON: Final = "application/x-amz-json-1.1"
# KMS's names for errors that STS's protocol names otherwise; all with status 400.
_KMS_NAMES: Final = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "IncompleteSignature": "IncompleteSignatureException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "MissingAuthenticationToken": "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "ValidationError": "ValidationException",
}


class TwinAws:
    """
    One Region: an account, and others that `add_account` opens.

    Args:
        account: 12 digits.

        nsm_root: Under which attestation documents are genuine here.

        now: The clock of AWS: signatures, sessions and documents are checked against it.

        audit_path: File to which audit events are appended as lines of JSON.

        transform_answer: Bends KMS's answers in tests: gets action and answer, gives another.
    """

    def __init__(
        self,
        *,
        account: str,
        region: str,
        nsm_root: x509.Certificate,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        audit_path: Path | None = None,
        transform_answer: Transform = lambda _, answer: answer,
    ) -> None:
        self.account = account
        self.region = region
        self.identity = Directory(account)
        self.audit = AuditTrail(audit_path)
        self.transform_answer = transform_answer
        self._now = now
        self._accounts = Accounts(self.identity)
        self._store = KeyStore(region)
        self._admin = AdminActions(self._store, self._accounts, now)
        data = DataActions(self._store, Recipients(nsm_root=nsm_root, now=now))
        self._actions = {**data.actions, **self._admin.actions}
        self._sts = sts.Sts(self._accounts, now)

    def add_account(self, account: str) -> Directory:
        """
        Open another account, and give its principals.

        Raises:
            ValueError: Its number is malformed or taken.
        """
        return self._accounts.add(account)

    def add_key(
        self, policy: str | None = None, *, description: str = "", account: str | None = None
    ) -> str:
        """
        Make a key and give its ARN.

        Args:
            policy: Key policy, JSON; AWS's default without one.

            account: Whose; the first account's without one.

        Raises:
            AwsError: The policy is malformed or names principals that don't exist.
        """
        owner = self._accounts.directory(account or self.account)
        text = policy or default_key_policy(owner.root_arn)
        parsed = self._admin.parse_key_policy(text)
        created = self._now()
        return self._store.create(
            owner.account, policy_text=text, policy=parsed, description=description, created=created
        ).arn

    def set_key_policy(self, key: str, policy: str) -> None:
        """
        Replace a key's policy, as CloudFormation would: no caller, no lock-out check.

        Raises:
            AwsError: There is no such key, or the policy is malformed.
        """
        parsed = self._admin.parse_key_policy(policy)
        found: Key = self._store.find(key, self.account)
        with self._store.lock:
            found.policy_text, found.policy = policy, parsed

    @contextmanager
    def serve(
        self, *, port: int = 0, tls: TlsFiles | None = None, services: frozenset[str] = BOTH
    ) -> Iterator[str]:
        """Serve on 127.0.0.1 until the block ends; give the endpoint's URL."""
        respond = self._respond(services)
        with serving_tcp(respond, port=port, tls=_context(tls)) as bound:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{bound}"

    @contextmanager
    def serve_unix(
        self, path: Path, *, tls: TlsFiles, services: frozenset[str] = frozenset({"kms"})
    ) -> Iterator[None]:
        """Serve on a Unix socket until the block ends: what vsock-proxy leads to, in the cloud."""
        with serving_unix(self._respond(services), path=path, tls=_context(tls)):
            yield

    def _respond(self, services: frozenset[str]) -> Respond:
        def respond(request: HttpRequest) -> HttpResponse:
            if request.headers.get("x-amz-target", "").startswith(_TARGET) and "kms" in services:
                return self._respond_kms(request)
            form = request.headers.get("content-type", "").partition(";")[0].strip() == _FORM
            if form and "sts" in services:
                return self._respond_sts(request)
            return HttpResponse(404, "text/plain", b"")

        return respond

    def _respond_kms(self, request: HttpRequest) -> HttpResponse:
        action = request.headers["x-amz-target"].removeprefix(_TARGET)
        try:
            caller = self._authenticate(request, "kms")
            host = request.headers.get("host")
            call = Call(action, _parse_json(request.body), caller, host=host)
            answer = self._answer_kms(call)
        except AwsError as error:
            code = _KMS_NAMES.get(error.code, error.code)
            status = 412 if error.status == 412 else 400
            body = {"__type": code, "message": error.message}
            return HttpResponse(status, _JSON, json.dumps(body).encode())
        return HttpResponse(200, _JSON, json.dumps(answer).encode())

    def _answer_kms(self, call: Call) -> Answer:
        error_code: str | None = None
        try:
            handler = self._actions.get(call.action)
            if handler is None:
                raise AwsError("UnknownOperationException")
            return self.transform_answer(call.action, handler(call))
        except AwsError as error:
            error_code = _KMS_NAMES.get(error.code, error.code)
            raise
        finally:
            self._record_kms(call, error_code)

    def _respond_sts(self, request: HttpRequest) -> HttpResponse:
        try:
            call = sts.StsCall(self._authenticate(request, "sts"), _parse_form(request.body))
            answer = self._answer_sts(call)
        except AwsError as error:
            return HttpResponse(error.status, _XML, sts.encode_error(error).encode())
        return HttpResponse(200, _XML, sts.encode_answer(call.action, answer).encode())

    def _answer_sts(self, call: sts.StsCall) -> sts.Xml:
        error_code: str | None = None
        try:
            return self._sts.answer(call)
        except AwsError as error:
            error_code = error.code
            raise
        finally:
            self.audit.append(self._event(call.caller, call.action[:64], error_code))

    def _authenticate(self, request: HttpRequest, service: str) -> Caller:
        access_key_id = parse_signature(request).access_key_id
        token = request.headers.get("x-amz-security-token")
        now = self._now()
        caller, secret = self._accounts.authenticate(access_key_id, token, now)
        verify_signature(request, secret, region=self.region, service=service, now=now)
        return caller

    def _record_kms(self, call: Call, error_code: str | None) -> None:
        event = self._event(call.caller, call.action[:64], error_code)
        pcr0 = None if call.attestation is None else call.attestation.pcrs[0].hex()
        context = dict(call.encryption_context) or None
        self.audit.append(
            replace(
                event,
                key_arn=call.key_arn,
                encryption_context=context,
                pcr0=pcr0,
                host=call.host,
            )
        )

    def _event(self, caller: Caller, name: str, error_code: str | None) -> AuditEvent:
        return AuditEvent(
            event_time=event_time(self._now()),
            event_name=name,
            principal_arn=caller.arn,
            source_identity=caller.facts.get("aws:SourceIdentity"),
            key_arn=None,
            encryption_context=None,
            pcr0=None,
            error_code=error_code,
        )


def _context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    return None if tls is None else tls.server_context()


def _parse_json(body: bytes) -> Mapping[str, Json]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise AwsError("SerializationException", "The request body is not a JSON object.")
    return fields


def _parse_form(body: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise validation_error("The request body is not a form.") from None
    if len(dict(pairs)) != len(pairs):
        raise validation_error("A parameter is there twice.")
    return dict(pairs)
