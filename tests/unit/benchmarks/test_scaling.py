from pathlib import Path

from benchmarks.scaling.__main__ import pictured
from benchmarks.scaling.day import simulate, speed
from benchmarks.scaling.picture import draw

ROOT = Path(__file__).parents[3]


def test_the_picture_is_of_the_simulation() -> None:
    """
    What docs/operations.md shows is what the simulation gives now.
    """
    assert (ROOT / "docs" / "day.svg").read_text() == draw(pictured())


def test_a_fleet_follows_its_day() -> None:
    """
    It stays within its bounds, grows in the morning, shrinks at night, and loses no answer.
    """
    day = simulate(2400, 1, 5, 8)
    assert (min(day.hosts), max(day.hosts)) == (1, 5)
    assert day.hosts[4 * 60] == 1
    assert max(day.hosts[9 * 60 : 12 * 60]) > 2
    assert sum(day.arrivals) == len(day.waits)


def test_more_answers_share_more_speed() -> None:
    """
    Together they are faster than one, each is slower than alone, and past sixteen nothing is won.
    """
    speeds = [speed(count) for count in range(1, 20)]
    assert speeds == sorted(speeds)
    each = [total / count for count, total in enumerate(speeds, 1)]
    assert each == sorted(each, reverse=True)
    assert speed(16) == speed(30)
