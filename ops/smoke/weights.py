"""
Sealed weights: without the document of an approved image nobody here has their key opened.

What the owner's policy says, only its owner can read; that it refuses, anybody can see who has the
wrapped key, and that lies on the host.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.protocol.asker.weights import KEY_NAME, WrappedWeightsKey, parse_wrapped_key
from app.protocol.constants import DIGEST, PURPOSE, PURPOSE_WEIGHTS
from app.protocol.errors import ConfigError
from ops.smoke.host import Host, decrypt_script, require_host_refused
from ops.smoke.refusal import require_refused
from ops.smoke.report import CheckError, NotRunError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

WRAPPED_KEY: Final = f"/var/lib/enclave-llm/weights/{KEY_NAME}"  # app/parent's folder of weights
_SID: Final = "OpenWeights"


def find_weights_key(template: Path) -> str | None:
    """
    Find in a synthesised template the key that the host role may have weights opened under.

    Raises:
        ConfigError: There is no such template.
    """
    try:
        resources = json.loads(template.read_text())["Resources"].values()
    except (OSError, ValueError, LookupError, AttributeError):
        raise ConfigError(f"{template} is not readable: synthesise it, bin/cdk synth") from None
    for resource in resources:
        for policy in resource.get("Properties", {}).get("Policies", ()):
            for statement in policy["PolicyDocument"]["Statement"]:
                if statement.get("Sid") == _SID:
                    return str(statement["Resource"])
    return None


def check_weights_key(
    key_arn: str, host: Host, clients: Mapping[str, "KMSClient"]
) -> tuple[str, Mapping[str, object]]:
    """
    Require that KMS opens the host's wrapped weights key neither for its role nor for *clients*.

    Args:
        clients: KMS's, by whose they are.

    Raises:
        CheckError: Somebody is answered, or the host's package is sealed under another key.

        NotRunError: The host or AWS cannot be asked.
    """
    wrapped = _read(host, key_arn)
    context = {PURPOSE: PURPOSE_WEIGHTS, DIGEST: wrapped.package_digest.hex()}
    script = decrypt_script(wrapped.key_arn.region, key_arn, wrapped.wrapped, context)
    facts: dict[str, object] = {
        "the host role": require_host_refused(
            host, script, "Decrypt of the weights key by the host role"
        )
    }
    for who, kms in clients.items():
        facts[who] = require_refused(
            lambda kms=kms: kms.decrypt(  # type: ignore[misc]  # bound in the loop
                KeyId=key_arn, CiphertextBlob=wrapped.wrapped, EncryptionContext=context
            ),
            f"Decrypt of the weights key by {who}",
        )
    told = f"without a document {', '.join(facts)} open no weights ({facts['the host role']})"
    return told, facts


def _read(host: Host, key_arn: str) -> WrappedWeightsKey:
    code, output = host.run(f"cat {WRAPPED_KEY}")
    if code:
        raise NotRunError(f"the host shows no {WRAPPED_KEY}")
    try:
        wrapped = parse_wrapped_key(output.encode())
    except ConfigError as error:
        raise CheckError(str(error)) from None
    if wrapped.key_arn.text != key_arn:
        raise CheckError(
            f"the host's weights are sealed under {wrapped.key_arn.text}, the stack has {key_arn}"
        )
    return wrapped
