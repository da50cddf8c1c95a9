"""
A condition: the part of a policy statement that looks at the request.

Three answers, not two: it holds, it doesn't, or (None) this evaluator cannot tell, because it
meets an operator, key or variable it does not know. What None means is decided in
`local/aws/policy.py`: a Deny applies, an Allow doesn't.

Source: IAM user guide, "Condition operators", "Multivalued context keys", "Policy variables".
"""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

Context = Mapping[str, tuple[str, ...]]  # keys in lower case, as `make_context` gives them
Condition = Mapping[str, Mapping[str, tuple[str, ...]]]  # operator, key, values

# Keys that the twin puts into a request's context whenever AWS would. Any other may be present
# at AWS and absent here, so nothing is concluded from its absence.
_KNOWN_KEY: Final = re.compile(
    r"kms:encryptioncontext:.+|kms:encryptioncontextkeys"
    r"|kms:recipientattestation:(imagesha384|pcr([0-9]|[12][0-9]|3[01]))"
    r"|kms:(calleraccount|viaservice|requestalias)"
    r"|kms:(bypasspolicylockoutsafetycheck|schedulekeydeletionpendingwindowindays)"
    r"|aws:(principalarn|principalaccount|principaltype|sourceidentity|userid|username)"
    r"|sts:(sourceidentity|rolesessionname|externalid)",
    re.DOTALL,
)
_MULTIVALUED: Final = frozenset({"kms:encryptioncontextkeys"})
_OPERATOR: Final = re.compile(r"(?:(ForAllValues|ForAnyValue):)?([A-Za-z]+?)(IfExists)?")
_VARIABLE: Final = re.compile(r"\$\{([^{}]+)\}")


class UnknownPolicyError(Exception):
    """A policy says something whose meaning this evaluator does not know."""


def make_context(*parts: Mapping[str, str | Iterable[str]]) -> Context:
    """
    Give the context of a request; condition keys have no case.

    Raises:
        ValueError: Two keys differ in nothing but case, so a policy could mean either.
    """
    context: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for key, value in part.items():
            if key.lower() in context:
                raise ValueError("two context keys differ only in case")
            context[key.lower()] = (value,) if isinstance(value, str) else tuple(value)
    return context


def holds(condition: Condition, context: Context) -> bool | None:
    """
    Say whether *condition* holds for a request; None if that cannot be told.

    Every operator and key must hold; of a key's values, any.
    """
    answers = [
        _tests(operator, key, wanted, context)
        for operator, keys in condition.items()
        for key, wanted in keys.items()
    ]
    return None if None in answers else all(answers)


def is_known_operator(operator: str) -> bool:
    """Say whether *operator* is one that `holds` can evaluate."""
    parsed = _OPERATOR.fullmatch(operator)
    return parsed is not None and (parsed[2] in _TESTS or parsed[2] in _NEGATED or _is_null(parsed))


def _is_null(parsed: re.Match[str]) -> bool:
    return parsed[0] == "Null"  # takes neither prefix nor suffix


def _tests(operator: str, key: str, wanted: tuple[str, ...], context: Context) -> bool | None:
    parsed = _OPERATOR.fullmatch(operator)
    key = key.lower()
    if parsed is None or not is_known_operator(operator) or not _KNOWN_KEY.fullmatch(key):
        return None
    found = context.get(key)
    try:
        if _is_null(parsed):
            return _null(wanted, present=found is not None)
        if found is None:
            return _absent(*parsed.groups())
        if parsed[1] is None and (len(found) != 1 or key in _MULTIVALUED):
            return None  # AWS leaves a plain operator on several values undefined
        expanded = tuple(expand(value, context) for value in wanted)
        return _compare(parsed[1], parsed[2], found, expanded)
    except UnknownPolicyError:
        return None


def _null(wanted: tuple[str, ...], *, present: bool) -> bool:
    if len(wanted) != 1 or wanted[0].lower() not in {"true", "false"}:
        raise UnknownPolicyError
    return present == (wanted[0].lower() == "false")


def _absent(quantifier: str | None, name: str, if_exists: str | None) -> bool | None:
    # A negated operator holds for an absent key: IAM user guide, "Condition operators".
    if if_exists or quantifier == "ForAllValues":
        return True
    if quantifier == "ForAnyValue":
        return None if name in _NEGATED else False
    return name in _NEGATED


def _compare(
    quantifier: str | None, name: str, found: tuple[str, ...], wanted: tuple[str, ...]
) -> bool:
    negated = name in _NEGATED
    test = _TESTS[_NEGATED.get(name, name)]
    hits = [any(test(value, want) for want in wanted) != negated for value in found]
    return any(hits) if quantifier == "ForAnyValue" else all(hits)


def expand(text: str, context: Context) -> str:
    """
    Replace policy variables in *text* by what the request has.

    Raises:
        UnknownPolicyError: A variable is malformed, absent, multi-valued, or its value would
            act as a wildcard.
    """

    def value_of(variable: re.Match[str]) -> str:
        values = context.get(variable[1].lower(), ())
        if len(values) != 1 or set(values[0]) & set("*?$"):
            raise UnknownPolicyError
        return values[0]

    expanded = _VARIABLE.sub(value_of, text)
    if "${" in expanded:
        raise UnknownPolicyError
    return expanded


def like(value: str, pattern: str) -> bool:
    """Match *value* with a pattern in which ``*`` is any text and ``?`` any character."""
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def _arn_like(value: str, pattern: str) -> bool:
    # Each of the six parts on its own: a wildcard never runs across a colon before the last.
    values, patterns = value.split(":", 5), pattern.split(":", 5)
    if len(patterns) != 6:
        raise UnknownPolicyError
    return len(values) == 6 and all(map(like, values, patterns))


def _equals_ignore_case(value: str, wanted: str) -> bool:
    return value.lower() == wanted.lower()


def _number(compare: Callable[[Decimal, Decimal], bool]) -> Callable[[str, str], bool]:
    def test(value: str, wanted: str) -> bool:
        try:
            numbers = Decimal(value), Decimal(wanted)
        except InvalidOperation:
            raise UnknownPolicyError from None
        if not all(number.is_finite() for number in numbers):
            raise UnknownPolicyError
        return compare(*numbers)

    return test


_TESTS: Final[dict[str, Callable[[str, str], bool]]] = {
    "StringEquals": str.__eq__,
    "StringEqualsIgnoreCase": _equals_ignore_case,
    "StringLike": like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": _equals_ignore_case,
    "NumericEquals": _number(Decimal.__eq__),
    "NumericLessThan": _number(Decimal.__lt__),
    "NumericLessThanEquals": _number(Decimal.__le__),
    "NumericGreaterThan": _number(Decimal.__gt__),
    "NumericGreaterThanEquals": _number(Decimal.__ge__),
}
_NEGATED: Final = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}
