"""
The checks: what is asked of a deployment, in the order in which it is asked.

What the client verifies is verified by the client's own code: nothing here decides whom to trust.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.aws import own_settings
from app.chatbot.config import ChatbotConfig
from app.chatbot.errors import CertificateError, LoginError
from app.chatbot.session.access import Access
from app.chatbot.session.session import Session, connect
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust
from app.protocol.constants import (
    CONVERSATION,
    CONVERSATION_BYTES,
    PURPOSE,
    PURPOSE_ANSWER,
    PURPOSE_QUESTION,
    SMOKE_CONVERSATION_PREFIX,
)
from app.protocol.question import Options
from app.protocol.releases import Measurements
from image.eif.record import BuildRecord
from infra.key_policy import policy_of
from ops.finding import counted
from ops.smoke.difference import differences
from ops.smoke.endpoints import Endpoints
from ops.smoke.host import Host, decrypt_script, require_host_refused, require_not_debug
from ops.smoke.inspection import check_receipts, check_refused_documents
from ops.smoke.refusal import require_refused
from ops.smoke.report import CheckError, How, NotRunError
from ops.smoke.weights import check_weights_key

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

Found = tuple[str, Mapping[str, object]]

_QUESTION: Final = "How do I reset my password?"  # nobody's: what is asked says nothing
_MAX_TOKENS: Final = 24
_KEY_SPEC: Final = "AES_256"


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What is checked, and with whose credentials.

    Attributes:
        asker: May assume the chat role.

        admin: The deploying principal; reads policies, and must not be able to open anything.

        built: The record of the EIF that was deployed.

        chat_role_trust: The trust policy that was synthesised.

        live_trust: Reads the one that is deployed.

        endpoints: Reads the policies of the network's endpoints, and those that were synthesised.

        host: None leaves out what only the host can show.

        weights_key: ARN of the key that weights are sealed under; None where they lie in clear.
    """

    config: ChatbotConfig
    trust: Trust
    asker: boto3.Session = field(repr=False)
    admin: boto3.Session = field(repr=False)
    built: BuildRecord
    chat_role_trust: object
    live_trust: Callable[[], object]
    endpoints: Callable[[], Endpoints]
    host: Host | None
    now: Callable[[], datetime]
    weights_key: str | None = None


class Checks:
    """One run of all checks: later ones use the session and the sealed key of earlier ones."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._access = Access(subject.config, session=subject.asker)
        self._session: Session | None = None
        self._conversation = SMOKE_CONVERSATION_PREFIX + secrets.token_bytes(
            CONVERSATION_BYTES - len(SMOKE_CONVERSATION_PREFIX)
        )

    def all(self) -> Iterator[tuple[str, How, Callable[[], Found]]]:
        """Give name, way and function of each check."""
        yield "answer", "live", self._answer
        yield "image", "live", self._image
        yield "chat role without document", "live", self._chat_role
        yield "encryption context", "live", self._contexts
        yield "deploying principal", "live", self._admin
        yield "key policy", "live", self._key_policy
        yield "trust policy", "live", self._trust_policy
        yield "grants", "live", self._grants
        yield "endpoint policies", "live", self._endpoint_policies
        if self._subject.host is not None:
            yield "host role", "live", self._host_role
            yield "foreign key", "live", self._foreign_key
            yield "debug flag", "live", self._flags
            if self._subject.weights_key:
                yield "weights key", "live", self._weights_key
        yield "refused documents", "by inspection", self._documents
        yield "receipts", "by inspection", self._receipts

    def close(self) -> None:
        """Close connections and forget credentials."""
        if self._session is not None:
            self._session.close()
        self._access.close()

    def _answer(self) -> Found:
        config = self._subject.config
        session = connect(
            Transport(config.url, tls_ca=config.tls_ca, any_certificate=config.any_certificate),
            self._access,
            key_arn=config.key_arn,
            trust=self._subject.trust,
        )
        self._session = session
        session.conversation = self._conversation
        for _ in session.ask(_QUESTION, Options(max_tokens=_MAX_TOKENS, padding="off")):
            pass
        evidence = session.evidence
        if evidence is None:
            raise CheckError("the answer has no verified receipt")
        receipt = evidence.receipt
        facts = {
            "request_sha256": receipt.request_digest.hex(),
            "answer_sha256": receipt.answer_digest.hex(),
            "manifest_sha256": receipt.manifest_digest.hex(),
            "completion_tokens": receipt.completion_tokens,
            "total_seconds": round(evidence.total_seconds, 3),
        }
        return "a question was answered whole, and the answer's receipt verifies", facts

    def _image(self) -> Found:
        enclave = self._verified().enclave
        measured, built = enclave.attestation.measurements, self._subject.built
        record = built.measurements
        expected = Measurements(record.pcr0, record.pcr1, record.pcr2)
        for name in ("pcr0", "pcr1", "pcr2"):
            got, want = getattr(measured, name).hex(), getattr(expected, name).hex()
            if got != want:
                raise CheckError(f"{name.upper()} attested is {got}, built was {want}")
        weights = enclave.manifest.weights_sha256
        if weights != built.weights_sha256:
            raise CheckError(
                f"weights attested are {weights.hex()}, built were {built.weights_sha256.hex()}"
            )
        facts = {
            "release": enclave.release.name,
            "pcr0": measured.pcr0.hex(),
            "pcr1": measured.pcr1.hex(),
            "pcr2": measured.pcr2.hex(),
            "weights_sha256": weights.hex(),
        }
        return f"attested = built = approved as {enclave.release.name}, weights too", facts

    def _chat_role(self) -> Found:
        return self._refused(self._chat_role_kms(), "the chat role without a document")

    def _admin(self) -> Found:
        return self._refused(
            self._subject.admin.client("kms", region_name=self._subject.config.region),
            "the deploying principal",
        )

    def _refused(self, kms: "KMSClient", who: str) -> Found:
        """Require that *kms* neither opens a question nor seals an answer."""
        key = self._subject.config.key_arn
        sealed = self._sealed()
        facts = {
            "Decrypt": require_refused(
                lambda: kms.decrypt(
                    KeyId=key,
                    CiphertextBlob=sealed,
                    EncryptionContext=self._context(PURPOSE_QUESTION),
                ),
                f"Decrypt of a question by {who}",
            ),
            "GenerateDataKey": require_refused(
                lambda: kms.generate_data_key(
                    KeyId=key, KeySpec=_KEY_SPEC, EncryptionContext=self._context(PURPOSE_ANSWER)
                ),
                f"GenerateDataKey of an answer by {who}",
            ),
        }
        return f"{who} opens no question and seals no answer ({facts['Decrypt']})", facts

    def _contexts(self) -> Found:
        kms, key = self._chat_role_kms(), self._subject.config.key_arn
        wrong = {
            "another purpose": self._context("smoke"),
            "no conversation": {PURPOSE: PURPOSE_QUESTION},
            "no context": {},
        }
        facts: dict[str, object] = {}
        for name, context in wrong.items():
            facts[name] = require_refused(
                lambda context=context: kms.generate_data_key(  # type: ignore[misc]  # bound in the loop
                    KeyId=key, KeySpec=_KEY_SPEC, EncryptionContext=context
                ),
                f"GenerateDataKey with {name}",
            )
        facts["question as answer"] = self._require_bound(kms)
        return "another purpose, no conversation and no context are each refused", facts

    def _require_bound(self, kms: "KMSClient") -> str:
        """Require that a question's key does not open under an answer's context."""
        try:
            kms.decrypt(
                KeyId=self._subject.config.key_arn,
                CiphertextBlob=self._sealed(),
                EncryptionContext=self._context(PURPOSE_ANSWER),
            )
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code == "InvalidCiphertextException":
                return "bound by KMS"
            raise CheckError(f"a question's key under an answer's context: {code}") from None
        raise CheckError("a question's key OPENED under an answer's context")

    def _key_policy(self) -> Found:
        config = self._subject.config
        expected = policy_of(
            account=config.key_arn.split(":")[4],
            chat_role_arn=config.chat_role_arn,
            releases=self._subject.trust.approved(),
        )
        client = self._subject.admin.client("kms", region_name=self._subject.config.region)
        answer = _read(lambda: client.get_key_policy(KeyId=config.key_arn, PolicyName="default"))
        return _require_same(json.loads(str(answer["Policy"])), expected, "the key policy")

    def _trust_policy(self) -> Found:
        subject = self._subject
        return _require_same(
            subject.live_trust(), subject.chat_role_trust, "the chat role's trust policy"
        )

    def _grants(self) -> Found:
        config = self._subject.config
        client = self._subject.admin.client("kms", region_name=config.region)
        pages = client.get_paginator("list_grants").paginate(KeyId=config.key_arn)
        grants = [grant["GrantId"] for page in pages for grant in page["Grants"]]
        if grants:
            found = counted(len(grants), "grant")
            raise CheckError(f"the key has {found}, expected none: revoke {grants[0]}")
        return "the key has no grant, by which somebody could use it beside its policy", {}

    def _endpoint_policies(self) -> Found:
        found = self._subject.endpoints()
        services = [[service for service, _ in pairs] for pairs in (found.live, found.expected)]
        if services[0] != services[1]:
            raise CheckError(
                f"the network has endpoints to {', '.join(services[0]) or 'nothing'}, synthesised "
                f"were {', '.join(services[1])}"
            )
        for (service, live), (_, expected) in zip(found.live, found.expected, strict=True):
            _require_same(live, expected, f"the policy of the endpoint to {service}")
        besides = ", and the weights', for the host role" if self._subject.weights_key else ""
        return (
            f"all {len(services[0])} endpoint policies are the synthesised ones, word for word: "
            f"enclaves reach this key alone, for the chat role alone{besides}"
        ), {}

    def _foreign_key(self) -> Found:
        policy = require_host_refused(
            self._host(),
            f"aws kms generate-data-key --region {self._subject.config.region} --key-id "
            f"{self._subject.endpoints().foreign_key_arn} --key-spec {_KEY_SPEC} "
            "--query KeyId 2>&1",
            "GenerateDataKey of another key by the host",
        )
        facts = {"GenerateDataKey": policy}
        return f"no other key of KMS can be used from the host either ({policy})", facts

    def _host_role(self) -> Found:
        config, context = self._subject.config, self._context(PURPOSE_QUESTION)
        script = decrypt_script(config.region, config.key_arn, self._sealed(), context)
        policy = require_host_refused(
            self._host(), script, "Decrypt of a question by the host role"
        )
        return f"the host role opens no question ({policy})", {"Decrypt": policy}

    def _weights_key(self) -> Found:
        subject = self._subject
        clients = {
            "the chat role": self._chat_role_kms(),
            "the deploying principal": subject.admin.client(
                "kms", region_name=subject.config.region
            ),
        }
        return check_weights_key(str(subject.weights_key), self._host(), clients)

    def _flags(self) -> Found:
        code, output = self._host().run("nitro-cli describe-enclaves")
        if code:
            raise NotRunError(f"nitro-cli describe-enclaves ended with {code}")
        enclave = require_not_debug(output)
        return "the host shows its enclave RUNNING with flags NONE", {"enclave_id": enclave}

    def _documents(self) -> Found:
        enclave = self._verified().enclave
        now = self._subject.now()
        return check_refused_documents(enclave.release, enclave.manifest, now=now), {}

    def _receipts(self) -> Found:
        return check_receipts(self._verified().enclave.release, now=self._subject.now()), {}

    def _verified(self) -> Session:
        if self._session is None:
            raise NotRunError("no enclave was verified")
        return self._session

    def _host(self) -> Host:
        if self._subject.host is None:
            raise NotRunError("the host is left out")
        return self._subject.host

    def _sealed(self) -> bytes:
        return self._access.question_key(self._conversation).wrapped

    def _context(self, purpose: str) -> dict[str, str]:
        return {PURPOSE: purpose, CONVERSATION: self._conversation.hex()}

    def _chat_role_kms(self) -> "KMSClient":
        """Give a client of the whole chat role: no session policy refuses in the key's place."""
        config, session = self._subject.config, self._subject.asker
        sts = session.client("sts", region_name=config.region)
        identity = {"SourceIdentity": config.source_identity} if config.source_identity else {}
        answer = _read(
            lambda: sts.assume_role(
                RoleArn=config.chat_role_arn,
                RoleSessionName="enclave-llm-smoke",
                DurationSeconds=900,
                **identity,  # type: ignore[arg-type]  # one text
            )
        )
        given = answer["Credentials"]
        assert isinstance(given, dict)  # noqa: S101 - as STS answers
        return session.client(
            "kms",
            region_name=config.region,
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
        )


def read_trust(admin: boto3.Session, role_arn: str) -> object:
    """
    Read the trust policy that IAM has for a role now.

    Raises:
        NotRunError: IAM does not tell.
    """
    client = admin.client("iam")
    answer = _read(lambda: client.get_role(RoleName=role_arn.rpartition("/")[2]))
    role = answer["Role"]
    return role["AssumeRolePolicyDocument"] if isinstance(role, dict) else None


def _read(call: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
    try:
        with own_settings():
            return call()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise NotRunError(f"{error.operation_name} was refused: {code}") from None
    except (LoginError, CertificateError) as error:
        raise NotRunError(str(error)) from None
    except BotoCoreError as error:
        raise NotRunError(f"AWS cannot be asked: {type(error).__name__}") from None


def _require_same(live: object, expected: object, what: str) -> Found:
    # Through JSON: lists and tuples, and what boto3 has parsed, compare as what they say.
    found = differences(json.loads(json.dumps(live)), json.loads(json.dumps(expected)))
    if found:
        raise CheckError(f"{what} is not the synthesised one: {'; '.join(found)}")
    return f"{what} is the synthesised one, word for word", {}
