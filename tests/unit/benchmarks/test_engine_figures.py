"""
The arithmetic of the engine's benchmark; timings themselves are never asserted.
"""

import os
import subprocess
import sys

import pytest

from benchmarks.engine.contender import Answers
from benchmarks.engine.figures import GOALS, Figure, judge, make_figure, roofline_share
from benchmarks.engine.machine import process_seconds
from benchmarks.engine.soak import Sample, summarise


def _figure(total: float, *, askers: int = 1) -> Figure:
    return Figure(askers, total, total, 0.1, 0.1, 1.0, 1, (total, total))


def test_a_figure_is_the_median_of_its_runs() -> None:
    """
    One slow run of three changes no figure but the spread.
    """
    runs = [
        Answers(seconds=2.0, first_seconds=[0.5], tokens=[128]),
        Answers(seconds=2.1, first_seconds=[0.6], tokens=[128]),
        Answers(seconds=64.0, first_seconds=[32.0], tokens=[128]),
    ]
    figure = make_figure(runs)
    assert figure.askers == 1
    assert figure.total_tokens_per_second == pytest.approx(128 / 2.1)
    assert figure.decode_tokens_per_second == pytest.approx(127 / 1.5)
    assert figure.first_seconds == 0.6
    assert figure.spread == (2.0, 64.0)


def test_many_askers_are_counted_together() -> None:
    """
    The total is all new tokens by the time of the last answer's end; who waited longest is shown.
    """
    figure = make_figure([Answers(seconds=4.0, first_seconds=[0.5, 1.0, 3.0], tokens=[128] * 3)])
    assert figure.total_tokens_per_second == pytest.approx(96)
    assert figure.decode_tokens_per_second is None
    assert (figure.first_seconds, figure.last_first_seconds) == (1.0, 3.0)


def test_runs_of_different_askers_are_no_figure() -> None:
    """
    Runs that cannot be compared are refused, and so are none.
    """
    one, two = Answers(1.0, [0.1], [8]), Answers(1.0, [0.1, 0.1], [8, 8])
    with pytest.raises(ValueError, match=r"\[1, 2\] askers"):
        make_figure([one, two])
    with pytest.raises(ValueError, match=r"\[\] askers"):
        make_figure([])


def test_the_roofline_is_bandwidth_by_weights() -> None:
    """
    Half of what memory allows is 0.5; with several askers a token reads no weights of its own.
    """
    alone = _figure(20.0)
    assert roofline_share(alone, weights_bytes=1e9, bytes_per_second=40e9) == 0.5
    many = make_figure([Answers(4.0, [0.5, 1.0], [128, 128])])
    assert roofline_share(many, weights_bytes=1e9, bytes_per_second=40e9) is None


def test_goals_are_ratios_of_totals() -> None:
    """
    The original serves one at a time: its total with one asker stands for any number of them.
    """
    figures = {
        ("original", 1): _figure(8.0),
        ("ours-private", 8): _figure(199.0, askers=8),
        ("ours-private", 16): _figure(240.0, askers=16),
    }
    outcomes = {(o.goal.askers, o.goal.theirs): o for o in judge(figures)}
    assert set(outcomes) == {(8, "original"), (16, "original")}  # the other sides are missing
    assert outcomes[8, "original"].ratio == pytest.approx(24.875)
    assert not outcomes[8, "original"].reached
    assert outcomes[16, "original"].reached  # exactly what was aimed at
    assert judge({}) == []
    assert len({(g.ours, g.askers, g.theirs) for g in GOALS}) == len(GOALS)


def test_growth_leaves_out_the_start() -> None:
    """
    A process that fills up and then stays flat grows by nothing; one that leaks, by its leak.
    """
    flat = [Sample(n, min(n, 25) * 2**20, 5 * 2**20, 1000 * n) for n in range(1, 101)]
    assert summarise(flat, "enclave")["bytes_a_request"] == pytest.approx(0, abs=1e-6)
    assert summarise(flat, "enclave")["last_mib"] == 25
    assert summarise(flat, "parent")["peak_mib"] == 5
    assert summarise(flat, "chatbot")["bytes_a_request"] == pytest.approx(1000)


def test_processor_time_is_that_of_a_process_and_its_children() -> None:
    """
    Work of this process is seen, and so is that of a child that has ended.
    """
    before = process_seconds(os.getpid())
    assert sum(number * number for number in range(2_000_000))
    between = process_seconds(os.getpid())
    assert between > before
    subprocess.run((sys.executable, "-c", "sum(range(10_000_000))"), check=True)
    assert process_seconds(os.getpid()) > between
