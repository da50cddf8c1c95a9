"""
What docs/operations.md says about failures, held against the programs that it speaks of.
"""

import re
import subprocess
from pathlib import Path

import pytest

from app.enclave.events import Event
from app.parent import nitro_cli
from tests.hosts import CONFIG

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
