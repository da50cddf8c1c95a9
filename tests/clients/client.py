"""
A client: a program that talks to OpenAI's API, as its users set it up, and what is tried with it.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "tests" / "clients"
_OF_NODE: Final = frozenset({"node", "coding"})  # folders here, with packages of their own
_STARTED: Final = frozenset({"coding", "webui"})  # environments with programs, for ours to start
# Each way that a program has of asking is of one of these kinds, by the words in its name.
KINDS: Final = ("chat", "stream", "tools", "schema", "Responses")


@dataclass(frozen=True, slots=True)
class Client:
    """
    One of the clients that are tried.

    Attributes:
        package: What is locked and installed, unmodified.

        environment: Of `bin/setup`, without `clients-`, or a folder here with a package.json.

        program: A file in the folder of programs, which asks by way of the client.

        ways: The names of its ways of asking.

        wants: How its users set it up, in a cell of docs/clients.md.

        light: Whether `bin/test` runs it, too.

        seconds: That all its ways together may take.
    """

    name: str
    package: str
    environment: str
    program: str
    ways: tuple[str, ...]
    wants: str
    light: bool = False
    seconds: int = 240

    @property
    def version(self) -> str:
        """The version that is locked."""
        if self.environment in _OF_NODE:
            lock = json.loads((FOLDER / self.environment / "package-lock.json").read_text())
            return str(lock["packages"][f"node_modules/{self.package}"]["version"])
        lines = (ROOT / "requirements" / f"clients-{self.environment}.txt").read_text()
        found = re.search(rf"^{re.escape(self.package)}==(\S+)", lines, re.MULTILINE)
        assert found, f"{self.package} is not locked in {self.environment}"
        return found[1]

    @property
    def command(self) -> tuple[str, ...]:
        """What runs its program; the names of ways follow."""
        if self.program.endswith(".mjs"):
            return ("node", str(FOLDER / self.environment / self.program))
        return (str(self._python), str(FOLDER / "programs" / self.program))

    @property
    def _python(self) -> Path:
        """Its environment's Python, or ours for a program that only starts it."""
        if self.environment in _STARTED:
            return Path(sys.executable)
        return ROOT / f".venv-clients-{self.environment}" / "bin" / "python"

    @property
    def is_installed(self) -> bool:
        """Whether its environment is there."""
        if self.environment in _OF_NODE:
            return (FOLDER / self.environment / "node_modules" / self.package).is_dir()
        return self._python.exists()


def kind_of(way: str) -> str:
    """Give the kind, one of `KINDS`, that a *way* of asking is of."""
    words = way.split("_")
    if words[0] == "responses":
        return "Responses"
    return next((kind for kind in ("tools", "chat", "stream") if kind in words), "schema")


_CHAT: Final = ("chat", "stream", "tools", "schema")
_RESPONSES: Final = ("responses", "responses_stream", "responses_tools", "responses_schema")
_VARIABLES: Final = "the two variables"
CLIENTS: Final = (
    Client(
        "OpenAI for Python",
        "openai",
        "agents",
        "openai_python.py",
        (*_CHAT, "stream_tools", "strict_tool", *_RESPONSES),
        _VARIABLES,
    ),
    Client(
        "OpenAI for Node.js",
        "openai",
        "node",
        "openai.mjs",
        (*_CHAT, "stream_tools", *_RESPONSES),
        _VARIABLES,
        light=True,
    ),
    Client(
        "Vercel AI SDK",
        "@ai-sdk/openai-compatible",
        "node",
        "ai_sdk.mjs",
        (*_CHAT, "stream_tools"),
        "`createOpenAICompatible({baseURL, apiKey, name, supportsStructuredOutputs: true})`",
    ),
    Client(
        "Vercel AI SDK, OpenAI's provider",
        "@ai-sdk/openai",
        "node",
        "ai_sdk.mjs",
        ("openai_chat", "openai_tools", "openai_schema", *_RESPONSES, "responses_stream_tools"),
        "`createOpenAI({baseURL, apiKey})`; Responses unless `.chat(…)` is called",
    ),
    Client(
        "LangChain",
        "langchain-openai",
        "chains",
        "langchain_python.py",
        (*_CHAT, "function_calling", "json_mode", *_RESPONSES[:3]),
        f"{_VARIABLES}; `use_responses_api=True` for Responses",
    ),
    Client(
        "LlamaIndex",
        "llama-index-llms-openai-like",
        "index",
        "llamaindex_python.py",
        (*_CHAT, "json_mode", "responses"),
        "`OpenAILike(api_base=…, api_key=…, is_chat_model=True, is_function_calling_model=True)`",
    ),
    Client(
        "litellm",
        "litellm",
        "litellm",
        "litellm_python.py",
        (*_CHAT, "responses"),
        f"{_VARIABLES}; the model is `openai/NAME`",
    ),
    Client(
        "litellm's proxy",
        "litellm",
        "litellm",
        "litellm_proxy.py",
        (*_CHAT, "responses"),
        "`model: openai/NAME`, `api_base`, `api_key` in its `config.yaml`",
    ),
    Client(
        "instructor",
        "instructor",
        "chains",
        "instructor_python.py",
        ("schema", "tool_mode", "json_mode", "json_schema_mode", "responses"),
        f'{_VARIABLES}; `from_provider("openai/NAME")`',
        light=True,
    ),
    Client(
        "pydantic-ai",
        "pydantic-ai-slim",
        "agents",
        "pydantic_ai_python.py",
        (*_CHAT, "native_schema", *_RESPONSES, "responses_native_schema"),
        f"{_VARIABLES}; `openai:NAME` asks by Responses, `openai-chat:NAME` by chat completions",
        light=True,
    ),
    Client(
        "OpenAI Agents SDK",
        "openai-agents",
        "agents",
        "openai_agents_python.py",
        (*_RESPONSES, *_CHAT),
        f"{_VARIABLES}; `OPENAI_AGENTS_DISABLE_TRACING=1`, or it sends traces to OpenAI",
    ),
    Client(
        "AutoGen",
        "autogen-ext",
        "agents",
        "autogen_python.py",
        _CHAT,
        f"{_VARIABLES}; `model_info`, since it knows OpenAI's models alone",
    ),
    Client(
        "llm",
        "llm",
        "agents",
        "llm_command.py",
        _CHAT,
        "an entry of `extra-openai-models.yaml` with `api_base`, `api_key_name: openai`, "
        "`supports_tools` and `supports_schema`",
    ),
    Client(
        "Open WebUI",
        "open-webui",
        "webui",
        "open_webui_page.py",
        ("chat", "stream", "tools"),
        "`OPENAI_API_BASE_URL` and `OPENAI_API_KEY`, or the same under Connections",
        seconds=420,
    ),
    Client(
        "opencode",
        "opencode-linux-x64-baseline",
        "coding",
        "opencode_command.py",
        ("tools",),
        "a provider in `opencode.json`: `npm: @ai-sdk/openai-compatible`, `baseURL`, `apiKey`",
    ),
)
