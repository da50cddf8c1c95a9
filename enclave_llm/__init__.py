"""
enclave-llm for Python programs: ask a language model in an enclave that was verified first.

    with enclave_llm.connect() as session:
        answer = session.ask("How do I request vacation?")
        for piece in answer:
            print(piece, end="")
        print(answer.evidence.receipt.completion_tokens)

`connect` raises where a check fails: who holds a session may speak. docs/clients.md tells more.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.chatbot.library.names import *
else:
    # Loaded when something is wanted of it: not every part of the program needs it.
    def __getattr__(name: str) -> object:
        """Give what the library has by this name."""
        names = import_module("app.chatbot.library.names")
        if name != "__all__" and name not in names.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(names, name)

    def __dir__() -> list[str]:
        """Give the names that the library has."""
        return [*import_module("app.chatbot.library.names").__all__]
