"""
The table: a report's figures as lines of Markdown.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_GIB: Final = 2**30


def put_table(page: Path, name: str, lines: Sequence[str]) -> None:
    """
    Put *lines* into *page*, between the marks of table *name*.

    Raises:
        ValueError: The page has no such marks.
    """
    begin, end = f"<!-- table {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{page.name} has no place for the table {name}")
    text = "\n".join((before + begin, *lines, end + after))
    page.write_text(text, "utf-8")


def write_table(report: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines for one report as `python -m benchmarks.engine` writes it."""
    machine = report["machine"]
    tokens = f"{report['prompt_tokens']} tokens of prompt and {report['new_tokens']} new ones"
    yield f"{report['shape']}, {tokens}, {report['threads']} threads;"
    yield f"{machine['cores']} cores of {machine['processor']},"
    yield f"{', '.join(machine['instructions'])},"
    yield f"{machine['system']}, {machine['taken']}."
    if bandwidth := report.get("bytes_per_second"):
        yield f"Memory was read at {bandwidth / 1e9:.1f} GB/s between the runs of one asker."
    yield "Tokens a second of all answers together: median (slowest to fastest, runs)."
    yield ""
    yield from _speeds(report)
    yield ""
    yield from _goals(report)


def _speeds(report: Mapping[str, Any]) -> Iterator[str]:
    askers = report["askers"]
    heads = [f"{n} asker{'s' if n > 1 else ''}" for n in askers]
    rest = ["first token, s", "of the roofline", "other cores, most", "peak GiB", "load s"]
    yield "| contender | " + " | ".join([*heads, *rest]) + " |"
    yield "|---" * (1 + len(heads) + len(rest)) + "|"
    for contender in report["contenders"]:
        mine = {f["askers"]: f for f in report["figures"] if f["contender"] == contender["name"]}
        cells = [
            *(_speed(mine.get(n)) for n in askers),
            " / ".join(f"{mine[n]['first_seconds']:.2f}" for n in askers if n in mine),
            _share(mine.get(1), contender["weights_bytes"], report.get("bytes_per_second")),
            f"{max((f['most_other_cores'] for f in mine.values()), default=0):.1f}",
            f"{contender['peak_bytes'] / _GIB:.2f}",
            f"{contender['load_seconds']:.1f}",
        ]
        yield f"| {contender['what']} | " + " | ".join(cells) + " |"


def _speed(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    slowest, fastest = figure["spread"]
    total, runs = figure["total_tokens_per_second"], figure["runs"]
    return f"{total:.1f} ({slowest:.1f} to {fastest:.1f}, {runs})"


def _share(alone: Mapping[str, Any] | None, read: float, bandwidth: float | None) -> str:
    if alone is None or not bandwidth:
        return ""
    return f"{alone['total_tokens_per_second'] * read / bandwidth:.0%}"


def _goals(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["goals"]:
        return
    yield "| goal | aimed at | measured | |"
    yield "|---|---|---|---|"
    for goal in report["goals"]:
        verdict = "reached" if goal["reached"] else "**missed**"
        yield f"| {goal['what']} | ≥ {goal['least']} x | {goal['ratio']:.2f} x | {verdict} |"
