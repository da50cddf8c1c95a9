"""
SIMULATED: a twin whose model says what a test scripts, for loops of tools, reasoning and schemas.

Everything but the model is the twin's: see `tests.scripted_enclave`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.twin.twin import Twin, run_twin
from tests.scripted_enclave import ASKED, SCRIPT

Json = dict[str, Any]
Said = str | Json


@dataclass(frozen=True, slots=True)
class ScriptedTwin:
    """A running twin, and the script of its model."""

    twin: Twin

    def script(self, *rules: Json) -> None:
        """
        From now on answer by the first of *rules* that fits, and forget what was asked.

        A rule `says` a list of texts, of `control(…)` and of `token(…)`, or `refuses` a list of
        options, by their names in SPEC.md section 5.3. It may have `when`, a regular expression
        that is searched in the last message, such as `^tool: 18`; `tools`, whether there have to
        be tools; `finish`, which is `stop` otherwise; and `seconds` between what it says.
        """
        scripted = self.twin.folder / SCRIPT
        fresh = scripted.with_suffix(".new")
        fresh.write_text(json.dumps(rules))
        fresh.rename(scripted)
        (self.twin.folder / ASKED).unlink(missing_ok=True)

    def asked(self) -> list[Json]:
        """Give the questions that the model was asked since, as the enclave opened them."""
        path = self.twin.folder / ASKED
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def control(token: str) -> Json:
    """Give a control token, as a rule says it."""
    return {"control": token}


def token(text: str, logprob: float, **others: float) -> Json:
    """Give the log-probabilities of a token, as a rule says them after its text."""
    return {"token": text, "logprob": logprob, "others": others}


@contextmanager
def run_scripted_twin(folder: Path) -> Iterator[ScriptedTwin]:
    """Run a twin whose model follows a script."""
    with run_twin(folder, program="tests.scripted_enclave") as twin:
        yield ScriptedTwin(twin)
