"""
OpenVINO, CPU: a thread that called `infer()` uses freed memory when it ends late.

    gcc -shared -fPIC -o ending_threads.so tests/engine/ending_threads.c
    LD_PRELOAD=./ending_threads.so python docs/upstream/openvino_use_after_free.py infer
    LD_PRELOAD=./ending_threads.so python docs/upstream/openvino_use_after_free.py async

The first ends with code 86, the second with 0.
"""

# ruff: noqa: INP001 - a script of its own

import ctypes
import sys
import threading
import time
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as operations

held_up = ctypes.CDLL(None)  # what is preloaded
way = sys.argv[1]

given = operations.parameter([1, 8], np.float32, name="given")
weights = operations.constant(np.ones((8, 8), np.float32))
product = operations.matmul(given, weights, transpose_a=False, transpose_b=False)
model = openvino.Model([operations.result(product)], [given], "product")


def use(request: openvino.InferRequest) -> None:
    """Compute once, in a thread that will be held up in its end."""
    held_up.hold_up_this_thread()
    request.set_input_tensor(openvino.Tensor(np.ones((1, 8), np.float32)))
    if way == "infer":
        request.infer()
    else:
        request.start_async()
        request.wait()


compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": "2"})
request = compiled.create_infer_request()
thread = threading.Thread(target=use, args=(request,))
thread.start()
thread.join()  # returns before the thread's C++ destructors have run
del request, compiled  # frees what they use
held_up.let_threads_end()
while Path(f"/proc/self/task/{thread.native_id}").exists():
    time.sleep(0.001)
