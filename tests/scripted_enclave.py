"""
SIMULATED: the enclave as a process, whose model says what a script tells it to.

Only the model is simulated: the program is the twin's, frames, receipts and keys are the product's.
Started by `tests.scripted_twin`, which writes the script; read anew for each question.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from app.enclave import main as enclave_main
from app.enclave.engine.cache import PrefixName
from app.protocol.errors import UnsupportedError
from app.protocol.piece import Piece, TokenLogprob
from app.protocol.question import FIELDS, Question
from local.twin import enclave as twin_enclave
from tests.scripted import ScriptedEngine, ScriptedGeneration

SCRIPT: Final = "script.json"
ASKED: Final = "asked.jsonl"
_UNSCRIPTED: Final = {"says": ["No rule of the script fits this."]}


class ScriptEngine:
    """An engine whose answers are those of the first rule in *folder* that fits the question."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> ScriptedGeneration:
        """Begin, or refuse, as the rule says; and note the question."""
        del require_wanted
        with (self._folder / ASKED).open("a") as asked:
            asked.write(json.dumps(dataclasses.asdict(question)) + "\n")
        rule = self._find(question)
        if refused := rule.get("refuses"):
            raise UnsupportedError(numbers=tuple(map(FIELDS.index, refused)))
        pieces = [
            dataclasses.replace(_make_piece(said), index=index)
            for said in rule["says"]
            for index in range(question.options.n)
        ]
        seconds, reason = rule.get("seconds", 0.0), rule.get("finish", "stop")
        engine = ScriptedEngine(pieces, seconds=seconds, reason=reason)
        return engine.start(question, deadline=deadline, prefix=prefix)

    def is_alive(self) -> bool:
        """Tell that it is."""
        return True

    def close(self) -> None:
        """Nothing holds anything."""

    def _find(self, question: Question) -> dict[str, Any]:
        path = self._folder / SCRIPT
        rules = json.loads(path.read_text()) if path.exists() else []
        last = question.messages[-1]
        asked = f"{last.role}: {last.text}"
        fits = (
            rule
            for rule in rules
            if re.search(rule.get("when", ""), asked)
            if rule.get("tools") in {None, question.options.tools is not None}
        )
        return next(fits, _UNSCRIPTED)


def _make_piece(said: str | dict[str, Any]) -> Piece:
    match said:
        case str(text):
            return Piece(text)
        case {"control": str(token)}:
            return Piece(token, control=True)
        case {"token": str(token), "logprob": float(value), "others": dict(others)}:
            told = tuple(TokenLogprob(other.encode(), each) for other, each in others.items())
            return Piece("", logprobs=(TokenLogprob(token.encode(), value, told),))
    raise ValueError(said)


def main() -> None:
    """Serve on the sockets given as arguments, which `local.twin.enclave` reads."""
    [ca] = [word.partition("=")[2] for word in sys.argv if word.startswith("--ca=")]
    folder = Path(ca).parent.parent
    with (
        patch.object(enclave_main, "load_engine", lambda *_, **__: ScriptEngine(folder)),
        patch.object(enclave_main, "require_answer", lambda _: None),  # no rule is for that
    ):
        twin_enclave.main()


if __name__ == "__main__":
    main()
