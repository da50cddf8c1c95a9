"""
Waiting until a twin is ready: its parent, and the enclave that the parent asks.
"""

import re
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import urllib3

from app.chatbot.config import ChatbotConfig
from local.processes.errors import TwinError
from local.processes.supervise import Child

_START_SECONDS: Final = 90
_EMULATED_SECONDS: Final = 300  # from the heartbeat
_LOADED_A_SECOND: Final = 10_000_000  # bytes that a slow and busy machine makes a model of
_NOTE_SECONDS: Final = 10
_POLL_SECONDS: Final = 0.1
_EMULATED_POLL_SECONDS: Final = 2  # it answers health while it loads, which costs it time
_LOADED: Final = re.compile(rb"^enclave_loading_done_bytes ([0-9.e+]+)$", re.MULTILINE)


def wait_until_ready(
    config: ChatbotConfig,
    processes: Sequence[Child],
    note: Callable[[str], None],
    *,
    emulated: bool,
) -> None:
    """Poll the parent, which asks the enclave, until both answer; weights take their time."""
    seconds = _EMULATED_SECONDS if emulated else _START_SECONDS
    end = time.monotonic() + seconds
    noted, came = time.monotonic(), 0
    with urllib3.PoolManager(ca_certs=config.tls_ca, retries=False, timeout=2) as pool:
        while not _is_ready(pool, config.url):
            for process in processes:
                process.require_alive()
            if time.monotonic() > end:
                raise TwinError(f"the twin is not ready after {seconds} s")
            if time.monotonic() - noted > _NOTE_SECONDS:
                noted, before, came = time.monotonic(), came, _loaded_bytes(pool, config.url)
                note(f"waiting for the enclave, which loads the model: {came / 1e6:.0f} MB are in")
                end = noted + seconds + came / _LOADED_A_SECOND if came > before else end
            time.sleep(_EMULATED_POLL_SECONDS if emulated else _POLL_SECONDS)


def _is_ready(pool: urllib3.PoolManager, url: str) -> bool:
    try:
        return pool.request("GET", f"{url}/readyz").status == HTTPStatus.OK
    except urllib3.exceptions.HTTPError:
        return False


def _loaded_bytes(pool: urllib3.PoolManager, url: str) -> int:
    """Give how many bytes of its weights the enclave has been sent; 0 if it does not say."""
    try:
        found = _LOADED.search(pool.request("GET", f"{url}/metrics").data)
    except urllib3.exceptions.HTTPError:
        return 0
    return int(float(found[1])) if found else 0
