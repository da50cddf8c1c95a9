"""What `bin/chat serve` takes of memory, as a process, with many conversations."""

import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.chatbot.openai.conversations import MAX_SESSIONS
from tests.integration.test_clients_page import chat, exports
from tests.patience import PATIENCE_SECONDS
from tests.scripted_twin import ScriptedTwin

CONVERSATIONS = 100
MOST_MB = 150
WORDS = "The dental plan covers two cleanings a year, and half of what crowns cost. " * 40


@dataclass(frozen=True, slots=True)
class Served:
    """The running process, and how to ask it."""

    pid: int
    port: int
    token: str

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Ask, on a connection of one's own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request("POST", path, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def status(self, name: str) -> int:
        """Give what the kernel says of the process: VmRSS and VmHWM in kB, Threads."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
        assert found
        return int(found[1])


@pytest.fixture
def served(scripted: ScriptedTwin) -> Iterator[Served]:
    """`bin/chat serve`, before a twin whose model says a page at once."""
    scripted.script({"says": [WORDS]})
    with chat(scripted.twin, "--padding", "off", "serve") as process:
        told = exports(process)
        port = int(told["OPENAI_BASE_URL"].removesuffix("/v1").rpartition(":")[2])
        yield Served(process.pid, port, told["OPENAI_API_KEY"])


def test_many_conversations(served: Served) -> None:
    """
    After 100 conversations that are held, two turns each, it never took 150 MB; sessions make way,
    so that no more are there than may answer at a time; and one conversation has an end, too.
    """
    model = "enclave-llm-demo"
    for number in range(CONVERSATIONS):
        asked = {"model": model, "input": f"{number}: {WORDS}"}
        status, first = served.post("/v1/responses", asked)
        assert status == 200, first
        more = {"model": model, "input": "And?", "previous_response_id": first["id"]}
        status, second = served.post("/v1/responses", more)
        assert status == 200, second
    files = [path.resolve().name for path in Path(f"/proc/{served.pid}/fd").iterdir()]
    sockets = [name for name in files if name.startswith("socket:")]
    assert len(sockets) <= 2 * MAX_SESSIONS + 8
    long = {"model": model, "messages": [{"role": "user", "content": WORDS * 100}]}
    status, answer = served.post("/v1/chat/completions", long)
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert served.status("VmHWM") < MOST_MB * 1000
