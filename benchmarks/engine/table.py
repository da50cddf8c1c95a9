"""
The table: a report's figures as lines of Markdown.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

_GIB: Final = 2**30


def write_table(report: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines for one report as `python -m benchmarks.engine` writes it."""
    machine = report["machine"]
    tokens = f"{report['prompt_tokens']} tokens of prompt and {report['new_tokens']} new ones"
    yield f"{report['shape']}, {tokens}, {report['threads']} threads, {report['rounds']} rounds."
    yield f"{machine['cores']} cores of {machine['processor']},"
    yield f"{', '.join(machine['instructions'])},"
    yield f"{machine['system']}, {machine['taken']}."
    if bandwidth := report.get("bytes_per_second"):
        yield f"Memory is read at {bandwidth / 1e9:.1f} GB/s."
    yield ""
    yield from _speeds(report)
    yield ""
    yield from _goals(report)


def _speeds(report: Mapping[str, Any]) -> Iterator[str]:
    askers = report["askers"]
    heads = [f"{n} asker{'s' if n > 1 else ''}" for n in askers]
    rest = ["first token s", "of the roofline", "peak GiB", "load s"]
    yield "| contender | " + " | ".join([*heads, *rest]) + " |"
    yield "|---" * (1 + len(heads) + len(rest)) + "|"
    first = next((f for f in report["figures"] if f["askers"] == 1 and _is_original(f)), None)
    for contender in report["contenders"]:
        mine = {f["askers"]: f for f in report["figures"] if f["contender"] == contender["name"]}
        cells = [_speed(mine.get(n), first) for n in askers]
        alone = mine.get(1, {})
        cells += [
            " / ".join(f"{mine[n]['first_seconds']:.2f}" for n in askers if n in mine),
            f"{share:.0%}" if (share := alone.get("roofline_share")) else "",
            f"{contender['peak_bytes'] / _GIB:.2f}",
            f"{contender['load_seconds']:.1f}",
        ]
        yield f"| {contender['what']} | " + " | ".join(cells) + " |"


def _is_original(figure: Mapping[str, Any]) -> bool:
    return bool(figure["contender"] == "original")


def _speed(figure: Mapping[str, Any] | None, original: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    total = figure["total_tokens_per_second"]
    if original is None:
        return f"{total:.1f}"
    return f"{total:.1f} ({total / original['total_tokens_per_second']:.1f} x)"


def _goals(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["goals"]:
        return
    yield "| goal | measured | |"
    yield "|---|---|---|"
    for goal in report["goals"]:
        what = f"{goal['ours']}, {goal['askers']} ≥ {goal['least']} x {goal['theirs']}"
        verdict = "reached" if goal["reached"] else "**missed**"
        yield f"| {what}, {goal['their_askers']} | {goal['ratio']:.2f} x | {verdict} |"
