"""
The difference of two policies, in words: one line a statement that is more, less or another.
"""

import json
from collections.abc import Iterator, Mapping

Json = Mapping[str, object]


def differences(live: object, expected: object) -> tuple[str, ...]:
    """Say how the policy *live* differs from the one *expected*; nothing where it does not."""
    if live == expected:
        return ()
    return tuple(_compare(live, expected)) or ("the order of statements is another",)


def _compare(live: object, expected: object) -> Iterator[str]:
    ours, theirs = _statements(expected), _statements(live)
    for sid in theirs.keys() - ours.keys():
        yield f"statement {sid} is deployed and not ours: {json.dumps(theirs[sid])}"
    for sid in ours.keys() - theirs.keys():
        yield f"statement {sid} is missing"
    for sid, statement in ours.items():
        if sid in theirs and theirs[sid] != statement:
            yield f"statement {sid} differs in {', '.join(_fields(theirs[sid], statement))}"
    if _rest(live) != _rest(expected):
        yield "what stands beside the statements differs"


def _statements(policy: object) -> dict[str, Json]:
    values = policy.get("Statement", []) if isinstance(policy, dict) else []
    items = values if isinstance(values, list) else [values]
    found: dict[str, Json] = {}
    for number, item in enumerate(items):
        if isinstance(item, dict):
            sid = str(item.get("Sid") or f"number {number}")
            found[f"{sid} again" if sid in found else sid] = item
    return found


def _rest(policy: object) -> object:
    if not isinstance(policy, dict):
        return policy
    return {name: value for name, value in policy.items() if name != "Statement"}


def _fields(live: Json, expected: Json) -> Iterator[str]:
    for name in sorted({*live, *expected}):
        if live.get(name) != expected.get(name):
            yield (
                f"{name}: deployed {json.dumps(live.get(name))}, "
                f"expected {json.dumps(expected.get(name))}"
            )
