"""
Let go of a model while the thread that used it is held up in its end, in one of five ways.

    $ LD_PRELOAD=ending_threads.so .venv/bin/python -m tests.engine.ends WAY

* infer    a thread calls the library's `infer()`, and is joined
* forward  a thread calls our `forward`, and is joined
* join     an engine's thread calls `infer()`, and `close` only joins it
* close    an engine's thread calls `infer()`, and `close` is ours
* core     as `infer`, with the process's own core; the others have one that they let go of

`infer` and `join` are what must not be done. Ends with code 0 when no freed memory was used.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import openvino

from app.enclave.engine import chain, runner
from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.tokenizer import Tokenizer
from app.enclave.engine.weights import load_weights
from app.protocol.question import Message, Options, Question

_DEMO: Final = Path(__file__).parents[2] / "local" / "demo_model" / "weights"
_TASKS: Final = Path("/proc/self/task")
_LIBRARY: Final = ctypes.CDLL(None)  # what is preloaded, too
_STEP: Final = [Rows([5, 6, 7], 0, [0], 1)]


class Watched:
    """A request that holds up the thread which uses it, and may compute in that thread."""

    def __init__(self, request: openvino.InferRequest, *, infers: bool) -> None:
        self._request = request
        self._infers = infers
        self.set_tensor = request.set_tensor
        self.get_output_tensor = request.get_output_tensor
        self.wait = request.wait

    def start_async(self) -> None:
        """Begin, or compute here and now; in both cases there is something to wait for."""
        if self._infers:
            self.infer()
            return
        _LIBRARY.hold_up_this_thread()
        self._request.start_async()

    def infer(self) -> None:
        """Compute in the thread that asks."""
        _LIBRARY.hold_up_this_thread()
        self._request.infer()


def make_model(*, infers: bool, keeps: bool = False) -> OpenVinoModel:
    """Load the demo model, on a core that goes with it unless it *keeps* ours."""
    kept = chain.CORE
    if not keeps:
        chain.CORE = openvino.Core()  # type: ignore[misc]
    model = OpenVinoModel(
        load_weights(_DEMO), Settings(threads=1, exact=False), most_blocks=64, most_bytes=2**30
    )
    chain.CORE = kept  # type: ignore[misc]
    (request,) = model._chain._requests
    model._chain._requests = [Watched(request, infers=infers)]
    model._chain._takers = dict.fromkeys(model._chain._takers, model._chain._requests)
    return model


def end_thread(*, infers: bool, keeps: bool = False) -> int | None:
    """Use a model in a thread, join it, and let go of the model; give the thread's number."""
    model = make_model(infers=infers, keeps=keeps)
    shapes: list[tuple[int, ...]] = []
    thread = threading.Thread(target=lambda: shapes.append(model.forward(_STEP).shape))
    thread.start()
    thread.join()
    assert shapes
    return thread.native_id


def end_engine() -> int | None:
    """Answer a question, close the engine, and let go of it; give its thread's number."""
    weights = load_weights(_DEMO)
    engine = BatchingEngine(
        make_model(infers=True), Tokenizer(weights), Limits(weights.context_length, frozenset())
    )
    question = Question((Message("user", "Hello"),), Options(max_tokens=2))
    generation = engine.start(question, deadline=time.monotonic() + 60)
    while generation.finish is None:
        generation.take(5)
    engine.close()
    assert generation.finish.completion_tokens == 2
    return engine._runner._thread.native_id


def end_joined_engine() -> int | None:
    """The same with a `close` that does not look at the kernel's list."""
    setattr(runner, "_TASKS", Path("/nowhere"))  # noqa: B010 - it is final
    return end_engine()


WAYS: Final[dict[str, Callable[[], int | None]]] = {
    "infer": lambda: end_thread(infers=True),
    "forward": lambda: end_thread(infers=False),
    "join": end_joined_engine,
    "close": end_engine,
    "core": lambda: end_thread(infers=True, keeps=True),
}


if __name__ == "__main__":
    number = WAYS[sys.argv[1]]()
    _LIBRARY.let_threads_end()
    while (_TASKS / str(number)).exists():
        time.sleep(0.001)
    os._exit(0)  # the program's own end is not what is looked at
