"""
The twin's enclave with a scripted model in place of one that computes; all else is the product's.

Started by `local.twin.twin`, as `local.twin.enclave` is.
"""

from collections.abc import Callable
from unittest.mock import patch

from app.enclave import main as program
from app.enclave.engine.cache import PrefixName
from app.enclave.engine.weights import Weights
from app.protocol.question import Question
from local.twin import enclave
from tests.clients.scripted_model import script
from tests.scripted import ScriptedEngine, ScriptedGeneration

_SECONDS = 0.08  # between two pieces


class _Engine(ScriptedEngine):
    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> ScriptedGeneration:
        """Begin to say what the script has for *question*."""
        del prefix, require_wanted
        answer = ScriptedEngine(script(question), seconds=_SECONDS)
        return ScriptedGeneration(answer, question.options.n, deadline)


def _load(weights: Weights, *, threads: int, owned: bool) -> ScriptedEngine:
    del weights, threads, owned
    return _Engine()


def main() -> None:
    """Serve on the sockets given as arguments."""
    with patch.object(program, "load_engine", _load):
        enclave.main()


if __name__ == "__main__":
    main()
