"""
bin/weights-policy: the policy of a key for sealed weights, for its owner to review and attach.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.chatbot.console import Terminal
from app.protocol.releases import PRODUCTION_KITS
from infra.attested_policy import KeyPolicyError
from infra.weights_policy import weights_policy_of
from ops.release_list import RefusedError, ReleaseList
from ops.weights_words import describe_weights, read_weights_policy

ROOT: Final = Path(__file__).resolve().parent.parent
_EPILOG: Final = """\
Standard output is the policy; standard error says in words who can do what under it. Each release
of the list may open the one package that its image names. Review the list first: build each image
from its source, and compare PCR0 to PCR2 (docs/weights.md says what to look for). A release that is
off the list opens nothing once KMS has the new policy, and an enclave that has started goes on.

examples:
  bin/weights-policy --owner 444455556666 \\
      --sealer arn:aws:iam::444455556666:role/model-release \\
      --host-role arn:aws:iam::111122223333:role/enclave-llm-host-eu-central-1 >policy.json
  aws kms create-key --policy file://policy.json --description "weights of …"
  aws kms put-key-policy --key-id 1234… --policy file://policy.json     for each new list

exit codes: 0 done; 1 no policy can be made of these; 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None, *, kits: frozenset[str] = PRODUCTION_KITS) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    terminal = Terminal()
    try:
        listed = ReleaseList(options.releases, Path(), kits).read()
        policy = weights_policy_of(
            account=options.owner,
            sealers=options.sealer,
            host_roles=options.host_role,
            releases=listed,
        )
    except (RefusedError, KeyPolicyError) as error:
        terminal.note(f"weights-policy: {error}")
        return 1
    terminal.piece(json.dumps(policy, indent=2) + "\n")
    for line in describe_weights(read_weights_policy(policy)):
        terminal.note(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/weights-policy",
        allow_abbrev=False,
        description="Print the policy of a key for sealed weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--owner", type=_account, required=True, metavar="ACCOUNT", help="12 digits; the key's"
    )
    for name, what in (
        ("--sealer", "role or user of that account, who seals and can do nothing else"),
        ("--host-role", "the role of the hosts, in whatever account: NAME-host-REGION"),
    ):
        parser.add_argument(
            name, required=True, action="append", metavar="ARN", help=f"{what}; may be repeated"
        )
    parser.add_argument(
        "--releases", type=Path, default=ROOT / "releases.json", metavar="FILE", help="the approved"
    )
    return parser


def _account(text: str) -> str:
    if not re.fullmatch(r"[0-9]{12}", text):
        raise argparse.ArgumentTypeError(f"{text} is not an account's 12 digits")
    return text


if __name__ == "__main__":
    sys.exit(main())
