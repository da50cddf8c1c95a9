"""
A refusal: AWS's word that a call was denied, and which policy denied it.
"""

import re
from collections.abc import Callable
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ops.smoke.report import CheckError, NotRunError

_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException"})
# IAM user guide, "Troubleshoot access denied error messages": how AWS names the kind of policy.
_KINDS: Final = (
    ("VPC endpoint", "endpoint policy"),
    ("resource-based", "key policy"),
    ("session", "session policy"),
    ("identity-based", "identity policy"),
    ("service control", "service control policy"),
)


def refusing_policy(message: str) -> str:
    """Name the policy that *message*, AWS's own, says has refused."""
    _, _, reason = message.rpartition("on resource:")
    how = "explicit deny" if "explicit deny" in reason else "no allow"
    for words, name in _KINDS:
        if re.search(rf"{words}[\w-]* ?policy", reason):
            return f"{name}, {how}"
    return "a policy that AWS does not name"


def require_refused(call: Callable[[], object], what: str) -> str:
    """
    Require that AWS denies *call*; give the policy that refused.

    Raises:
        CheckError: It is answered, or refused for another reason than a policy.

        NotRunError: AWS cannot be asked.
    """
    try:
        call()
    except ClientError as error:
        details = error.response.get("Error", {})
        if details.get("Code") in _DENIED:
            return refusing_policy(details.get("Message", ""))
        raise CheckError(f"{what} was not denied but failed: {details.get('Code')}") from None
    except BotoCoreError as error:
        raise NotRunError(f"AWS cannot be asked: {type(error).__name__}") from None
    raise CheckError(f"{what} was ANSWERED: the policy does not protect it")
