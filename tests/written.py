"""
What scripts write into the docs: samples of what programs print, and figures.

`.venv/bin/python -m tests.written` writes all of them anew. Tests compare them, and say to run it.
"""

import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
REMEDY: Final = "stale: run .venv/bin/python -m tests.written"
# What README shows: the command, and what it is run with.
SAMPLES: Final = {"bin/demo": (), "bin/demo --cheat other-image": ("--cheat", "other-image")}
_WIDTH: Final = 104
_DIGEST: Final = re.compile(r"(?<!sha256 )\b[0-9a-f]{8}(…[0-9a-f]{4}\b|…?)(?! [0-9a-f]{2} )")
_COLUMN: Final = re.compile(r"\b[0-9a-f]{8}…(?= +allowed)")
_BYTES: Final = re.compile(r"((?:[0-9a-f]{2} ){8})(?:[0-9a-f]{2} )*…")
_VARIES: Final = re.compile(r"\d+\.\d s\b|(?<=answer )[ \d,]+(?= bytes)|(?:[0-9a-f]{2} ){4,}|\s+")


def shape(printed: str) -> str:
    """Give what the docs show of *printed*: no progress, no hints, no PCRs of the day."""
    lines = [line for line in printed.splitlines() if not line.startswith("[")]
    text = "\n".join(lines).partition("\nLogs: ")[0].partition("\n\nNext: ")[0].strip("\n")
    text = _BYTES.sub(r"\1…", _DIGEST.sub("…", _COLUMN.sub("…        ", text)))
    return "\n".join(_wrap(line) for line in text.splitlines())


def _wrap(line: str) -> str:
    return (
        "\n".join(textwrap.wrap(line, _WIDTH, break_on_hyphens=False))
        if len(line) > _WIDTH
        else line
    )


def normalise(sample: str) -> str:
    """Give *sample* without what differs from run to run."""
    return _VARIES.sub(" ", sample).strip()


def find_sample(page: str, command: str) -> re.Match[str]:
    """Find the block that shows *command* in a page, its group what follows the command."""
    block = rf"^    \$ {re.escape(command)}\n((?:    .*\n|\n(?=    ))*)"
    (found,) = re.finditer(block, page, re.MULTILINE)
    return found


def read_sample(command: str) -> str:
    """Give what README shows of *command*."""
    return textwrap.dedent(find_sample(README.read_text(), command)[1])


def run_demo(folder: Path, *arguments: str) -> str:
    """Run the demo as a person does; give all that it prints."""
    command = (sys.executable, "-m", "local.demo", "--folder", str(folder), *arguments)
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


@dataclass(frozen=True, slots=True)
class Figure:
    """
    Something that a page says and a program knows.

    Attributes:
        says: A pattern that is found once in the page, its groups the figures.

        knows: Gives them.
    """

    page: str
    says: str
    knows: Callable[[], tuple[str, ...]]

    @property
    def path(self) -> Path:
        """The page's file."""
        return ROOT / self.page

    def find(self) -> re.Match[str]:
        """Find it in its page, whose lines may break anywhere."""
        pattern = self.says.replace(" ", r"\s+")
        found = list(re.finditer(pattern, self.path.read_text()))
        assert len(found) == 1, f"{self.page} says {self.says!r} {len(found)} times"
        return found[0]

    def write(self) -> None:
        """Put what is known into the page."""
        found = self.find()
        text = self.path.read_text()
        for number, value in reversed(list(enumerate(self.knows(), 1))):
            text = text[: found.start(number)] + value + text[found.end(number) :]
        self.path.write_text(text)


def write_samples() -> Iterator[str]:
    """Run what README shows and write what it prints; give the commands."""
    for command, arguments in SAMPLES.items():
        with tempfile.TemporaryDirectory() as folder:
            shown = shape(run_demo(Path(folder), *arguments))
        text = README.read_text()
        found = find_sample(text, command)
        block = textwrap.indent(shown, "    ") + "\n"
        README.write_text(text[: found.start(1)] + block + text[found.end(1) :])
        yield command


def main() -> None:
    """Write samples and figures."""
    from tests.figures import FIGURES

    for figure in FIGURES:
        figure.write()
    written = list(write_samples())
    sys.stdout.write(f"written: {len(FIGURES)} figures, {', '.join(written)}\n")


if __name__ == "__main__":
    main()
