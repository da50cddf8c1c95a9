"""litellm's proxy: `litellm --config …`, and OpenAI's client before it."""

import json
import os
import sys
from pathlib import Path

from scenario import MODEL, free_port, running

_KEY = "sk-of-the-proxy"
_START_SECONDS = 120

port = free_port()
upstream = {
    "model": f"openai/{MODEL}",
    "api_base": os.environ["OPENAI_BASE_URL"],
    "api_key": os.environ["OPENAI_API_KEY"],
}
config = {
    "model_list": [{"model_name": MODEL, "litellm_params": upstream}],
    "general_settings": {"master_key": _KEY},
    "litellm_settings": {"telemetry": False},
}
path = Path("config.yaml").absolute()
path.write_text(json.dumps(config))
program = str(Path(sys.executable).with_name("litellm"))
command = (program, "--config", str(path), "--host", "127.0.0.1", "--port", str(port))
ready = f"http://127.0.0.1:{port}/health/liveliness"
with running(command, ready, seconds=_START_SECONDS, log=Path("litellm.log")):
    os.environ |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": _KEY}
    import openai_python  # noqa: F401 - asks, by way of the proxy
