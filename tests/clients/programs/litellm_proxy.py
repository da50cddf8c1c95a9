"""litellm's proxy: `litellm --config …`, and OpenAI's client before it."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

BASE, KEY = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
_KEY = "sk-of-the-proxy"
_START_SECONDS = 120


@contextmanager
def proxy():
    """Run the proxy; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    name = os.environ["CLIENT_MODEL"]
    parameters = {"model": f"openai/{name}", "api_base": BASE, "api_key": KEY}
    config = {
        "model_list": [{"model_name": name, "litellm_params": parameters}],
        "general_settings": {"master_key": _KEY},
        "litellm_settings": {"telemetry": False},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(json.dumps(config))
        program = str(Path(sys.executable).with_name("litellm"))
        command = (program, "--config", str(path), "--host", "127.0.0.1", "--port", str(port))
        with subprocess.Popen(command, cwd=folder, stdout=sys.stderr) as process:
            try:
                _wait(f"http://127.0.0.1:{port}/health/liveliness", process)
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                process.terminate()


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise SystemExit("the proxy did not start")


with proxy() as url:
    os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": _KEY}
    import openai_python  # noqa: F401 - asks, by way of the proxy
