"""
What docs/operations.md says about failures, held against the programs that it speaks of.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from app.enclave import main
from app.enclave.engine.interface import Engine, Finish
from app.enclave.engine.load import require_check
from app.enclave.engine.weights import Check
from app.enclave.events import Event
from app.enclave.nsm import NsmClient, device_exchange
from app.enclave.preflight import (
    require_answer,
    require_clock,
    require_hardware_entropy,
    seed,
    utc_now,
)
from app.parent import nitro_cli
from app.protocol.errors import AppError
from tests.hosts import CONFIG
from tests.support import make_nsm_client

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operations.md").read_text()


def section(title: str) -> str:
    """Give what stands under a heading, up to the next one of its level."""
    level = title.partition(" ")[0]
    _, _, rest = TEXT.partition(f"\n{title}\n")
    assert rest, title
    return re.split(rf"^{level} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> str:
    """Give the first column of the tables in *text*."""
    return "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))


def test_every_step_of_first_boot_has_its_advice() -> None:
    """
    Each step that the script may fail at is in the table, by the words that it logs.
    """
    script = (ROOT / "infra/user_data.sh").read_text()
    steps = [re.split(r"\$|,", step)[0].strip() for step in re.findall(r'doing "(.*?)"', script)]
    assert len(steps) > 10
    told = first_cells(section("## Seeing inside a failure"))
    assert [step for step in steps if step.split(" the ")[0] not in told] == []


@pytest.mark.parametrize("event", Event)
def test_every_event_has_its_meaning(event: Event) -> None:
    """
    Whatever an enclave may write to its console is explained.
    """
    assert f"`{event}`" in first_cells(section("### A debug run"))


def row(event: Event) -> str:
    """Give the row of the table that tells what *event* means."""
    (found,) = re.findall(rf"^\| `{event}` \|.*$", section("### A debug run"), re.MULTILINE)
    return str(found)


def test_every_refusal_has_a_row_of_its_own() -> None:
    """
    Whatever keeps the enclave from starting is told by one row, and none is told by two events.
    """
    told = [row(event) for event, _ in main._REFUSALS]
    assert len(set(told)) == len(main._REFUSALS)


class Repeating(NsmClient):
    """An NSM whose random bytes are always the same."""

    def random(self) -> bytes:
        return bytes(64)


class Failing:
    """An engine whose answers end in an error; a generation itself."""

    finish = Finish(("error",), 4, 0)

    def start(self, *_: object, **__: object) -> "Failing":
        return self


class Saturating:
    """A model that knows nothing, as one whose products saturate."""

    blocks = 1

    def forward(self, batch: object) -> NDArray[np.float32]:
        del batch
        return np.zeros((1, 8), np.float32)

    def wipe(self, blocks: Sequence[int]) -> None:
        del blocks


def refuse(request: bytes) -> NoReturn:
    del request
    raise OSError(5, "Input/output error")


NOWHERE: Final = Path("/nonexistent/nsm")


def fail_device() -> None:
    """Ask an NSM whose device fails, as the driver's call would."""
    exchange = device_exchange(Path("/dev/null"))  # which takes no such call
    NsmClient(exchange).random()


@dataclass(frozen=True)
class Cause:
    """What keeps an enclave from starting: how it comes about, and the words of its row."""

    bring: Callable[[], object]
    event: Event
    words: str


CAUSES: Final = (
    Cause(
        lambda: require_hardware_entropy(NOWHERE),
        Event.REFUSED_PREFLIGHT,
        "random source is not the security module: most likely its driver does not load",
    ),
    Cause(
        lambda: seed(Repeating(refuse), Path("/dev/null")),
        Event.REFUSED_PREFLIGHT,
        "same random bytes twice",
    ),
    Cause(
        lambda: require_answer(cast("Engine", Failing())),
        Event.REFUSED_PREFLIGHT,
        "answer to the enclave's own question ends in an error",
    ),
    Cause(lambda: device_exchange(NOWHERE), Event.REFUSED_NSM, "`/dev/nsm` is not"),
    Cause(fail_device, Event.REFUSED_NSM, "fails when it is asked"),
    Cause(
        lambda: require_clock(make_nsm_client(), now=utc_now() + timedelta(days=1)),
        Event.REFUSED_CLOCK,
        "clock differs",
    ),
    Cause(
        lambda: require_check(Saturating(), Check((1, 2), -0.1, 0.01)),
        Event.REFUSED_WEIGHTS,
        "computes something else on this processor",
    ),
    Cause(lambda: (NOWHERE / "model.bin").open("xb"), Event.REFUSED_DEVICE, "cannot be opened"),
)


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: str(cause.words))
def test_rows_name_what_really_happens(cause: Cause) -> None:
    """
    What goes wrong, brought about, is told by the event whose row names it.
    """
    with pytest.raises((AppError, OSError)) as raised:
        cause.bring()
    assert main.explain(cast("AppError | OSError", raised.value)) is cause.event
    assert cause.words in row(cause.event)


def test_every_code_of_a_start_has_its_meaning() -> None:
    """
    Whatever nitro-cli may say when an enclave is started is explained.
    """
    codes = set(nitro_cli._ADVICE["run-enclave"]) - {"E30", "E31", "E32"}  # in E29 to E33
    told = first_cells(section("## What it logs, and the next step"))
    assert [code for code in sorted(codes) if code not in told] == []


def test_a_debug_run_as_it_is_written(tmp_path: Path) -> None:
    """
    The commands, run as they stand: the supervisor is stopped first and started last, and the
    enclave has the sizes, image and address of the real one, in debug mode with its console.
    """
    block = re.search(r"(?:^    .*\n)+", section("### A debug run"), re.MULTILINE)
    assert block is not None
    allocator = tmp_path / "allocator.yaml"
    allocator.write_text("---\nmemory_mib: 70000\ncpu_count: 8\n")
    stub = '#!/bin/bash\necho "$(basename "$0") $*" >>"$CALLS"\n'
    for name in ("systemctl", "nitro-cli"):
        (tmp_path / name).write_text(stub)
    (tmp_path / "sudo").write_text('#!/bin/bash\nexec "$@"\n')
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=block[0].replace("/etc/nitro_enclaves/allocator.yaml", str(allocator)),
        text=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls")},
        check=True,
    )
    options = f"--enclave-name debug --eif-path {nitro_cli.EIF_PATH} --cpu-count 8 --memory 70000"
    place = f"--enclave-cid {CONFIG.enclave_cid} --debug-mode --attach-console"
    assert (tmp_path / "calls").read_text().splitlines() == [
        "systemctl stop enclave-llm-supervisor",
        f"nitro-cli run-enclave {options} {place}",
        "nitro-cli terminate-enclave --all",
        "systemctl start enclave-llm-supervisor",
    ]
