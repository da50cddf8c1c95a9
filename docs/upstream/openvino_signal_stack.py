"""
OpenVINO, CPU: a thread's signal stack is unmapped while the thread still has it.

    python docs/upstream/openvino_signal_stack.py order
    python docs/upstream/openvino_signal_stack.py thread
    python docs/upstream/openvino_signal_stack.py kept

The first two end by SIGSEGV, the third prints "handled".
"""

# ruff: noqa: INP001 - a script of its own

import os
import signal
import sys
import threading

import numpy as np
import openvino
from openvino import opset13 as operations

way = sys.argv[1]


def compile_one(core: openvino.Core) -> openvino.CompiledModel:
    """Compile the smallest of models."""
    given = operations.parameter([1, 8], np.float32, name="given")
    model = openvino.Model([operations.result(operations.relu(given))], [given], "model")
    return core.compile_model(model, "CPU")


signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"handled\n"))  # Python asks for SA_ONSTACK
kept = openvino.Core()
compiled = [compile_one(kept if way == "kept" else openvino.Core()) for _ in range(2)]
if way == "thread":  # the last plugin goes in another thread than the one that it came in
    thread = threading.Thread(target=compiled.clear)
    thread.start()
    thread.join()
else:  # the first plugin goes first
    compiled.pop(0)
    compiled.pop(0)
signal.raise_signal(signal.SIGTERM)
