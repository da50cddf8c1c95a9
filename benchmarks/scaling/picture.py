"""
A day as a picture: questions, hosts and answers that wait, over the hours. Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.scaling.day import HOURS, Day

_WIDTH: Final = 720
_HEIGHT: Final = 120  # of each of the three
_LEFT: Final = 60
_GAP: Final = 34
_COLOURS: Final = ("#3568a8", "#2e7d5b", "#b3492d")
_EVERY: Final = 5  # minutes a step


def draw(day: Day) -> str:
    """Give *day* as SVG."""
    rows: tuple[tuple[str, Sequence[float]], ...] = (
        ("questions a minute", _mean(day.arrivals)),
        ("hosts, those that boot too", day.hosts[::_EVERY]),
        ("answers that wait", day.waiting[::_EVERY]),
    )
    height = len(rows) * (_HEIGHT + _GAP) + 20
    width = _LEFT + _WIDTH + 24
    box = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        "<title>A simulated day: questions, hosts, and answers that wait</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for n, ((title, values), colour) in enumerate(zip(rows, _COLOURS, strict=True)):
        lines += _row(title, values, colour, top=_GAP + n * (_HEIGHT + _GAP))
    return "\n".join([*lines, *_hours(height), "</svg>\n"])


def _mean(values: Sequence[int]) -> list[float]:
    return [sum(values[n : n + _EVERY]) / _EVERY for n in range(0, len(values), _EVERY)]


def _row(title: str, values: Sequence[float], colour: str, *, top: int) -> Iterator[str]:
    most = max(*values, 1)
    bottom = top + _HEIGHT
    step = _WIDTH / len(values)
    points = " ".join(
        f"{_LEFT + n * step:.1f},{bottom - value / most * _HEIGHT:.1f}"
        for n, value in enumerate(values)
    )
    yield f'<text x="{_LEFT}" y="{top - 8}" fill="{colour}" font-weight="bold">{title}</text>'
    yield f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{most:.0f}</text>'
    yield f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
    yield f'<path d="M{_LEFT},{bottom}h{_WIDTH}" stroke="#999"/>'
    yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _hours(height: int) -> Iterator[str]:
    for hour in range(0, HOURS + 1, 4):
        x = _LEFT + hour * _WIDTH / HOURS
        yield f'<text x="{x:.0f}" y="{height - 4}" text-anchor="middle">{hour}:00</text>'
