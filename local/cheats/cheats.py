"""
Cheats: what a dishonest server can try on the twin, each by name.

Some need another parent, some another enclave. The asker's program is the product's in either
case, and is told nothing of it.
"""

import difflib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from app.protocol.errors import ConfigError
from local.cheats.parent import PROGRAM
from local.processes.supervise import ROOT
from local.signers.nsm import make_pcrs
from local.twin.parties import PARENT_PROGRAM
from local.twin.twin import DEMO_WEIGHTS, Twin, approve

_CHANGED: Final = "app/enclave/answering.py"


@dataclass(frozen=True, slots=True)
class Cheat:
    """
    One thing that a server can try.

    Attributes:
        tries: What the server does, in a sentence.

        outcome: What the asker's program does about it, in a few words.

        parent: Whether the parent does it, or else the enclave.

        begin: Does the enclave's part, on a twin that is ready.
    """

    name: str
    tries: str
    outcome: str
    parent: bool = True
    begin: Callable[[Twin], None] = lambda _: None

    @property
    def parent_program(self) -> tuple[str, ...]:
        """What the twin starts as its parent."""
        return (PROGRAM, f"--cheat={self.name}") if self.parent else PARENT_PROGRAM


def _attest_another_image(twin: Twin) -> None:
    """Have the NSM attest the enclave's program with one more line in it."""
    altered = twin.folder / "altered"
    shutil.copytree(ROOT / "app", altered / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with (altered / _CHANGED).open("a") as source:
        source.write("# and a copy of every question for me\n")
    release = approve(altered, DEMO_WEIGHTS, altered / "image")
    twin.nsm.pcrs |= make_pcrs(release.measurements, module_id=twin.nsm.module_id)


def _attest_debug_mode(twin: Twin) -> None:
    """Have the NSM attest what it does in debug mode: zeros."""
    twin.nsm.pcrs |= make_pcrs(twin.release.measurements, debug=True)


CHEATS: Final = (
    Cheat(
        "other-image",
        f"The server runs an image that nobody approved: {_CHANGED} has one more line.",
        "refuses it, and sends no question",
        parent=False,
        begin=_attest_another_image,
    ),
    Cheat(
        "debug",
        "The server starts the approved image in debug mode, to read its console.",
        "refuses it, and sends no question",
        parent=False,
        begin=_attest_debug_mode,
    ),
    Cheat(
        "replayed-document",
        "The server shows a genuine attestation document that was made for another request.",
        "refuses it, and sends no question",
    ),
    Cheat(
        "altered-answer",
        "The server flips one bit of the encrypted answer on its way back.",
        "shows none of it",
    ),
    Cheat(
        "truncated-answer",
        "The server withholds the rest of the answer, as if it had been whole.",
        "says that what it has shown is incomplete",
    ),
    Cheat("honest", "The server does not cheat, for comparison.", "shows the answer"),
)


def find_cheat(name: str) -> Cheat:
    """
    Give the cheat called *name*.

    Raises:
        ConfigError: There is none.
    """
    named = {cheat.name: cheat for cheat in CHEATS}
    if name in named:
        return named[name]
    near = difflib.get_close_matches(name, named, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"no cheat is called {name}; {meant}bin/demo --cheat list shows all")


def describe_cheats() -> Iterator[str]:
    """Say what each does, in lines."""
    yield "bin/demo --cheat NAME runs the twin with a server that cheats:"
    for cheat in CHEATS:
        yield f"\n  {cheat.name}\n    {cheat.tries}\n    The asker's program {cheat.outcome}."
