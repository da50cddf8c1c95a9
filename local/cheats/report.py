"""
What a cheat came to: what the asker's program said, and what left the asker's machine.
"""

from collections.abc import Iterator
from typing import Final

from app.chatbot.console import Terminal, fail
from app.chatbot.terminal.conversation import ask_once
from app.protocol.errors import AppError
from app.protocol.question import Options
from local.twin.twin import Twin

_SHORT_WORD: Final = 3  # letters; chance puts words as short into any ciphertext


def show_cheat(twin: Twin, question: str, options: Options, terminal: Terminal) -> int:
    """Ask *question* of a server that cheats, and show what comes of it; give the exit code."""
    terminal.note(f"\nThe asker asks: {question}\nThe asker's program says:")
    code = _ask(twin, question, options, terminal)
    terminal.note(f"(exit code {code})")
    for line in _describe_left(twin, question):
        terminal.note(line)
    terminal.note("\nNext: bin/demo --cheat list names what else a server can try.")
    return code


def _ask(twin: Twin, question: str, options: Options, terminal: Terminal) -> int:
    try:
        with twin.connect() as session:
            ask_once(session, question, options, terminal, as_json=False)
    except AppError as error:
        terminal.piece("\n" if error.incomplete else "")
        return fail(error, terminal, as_json=False)
    return 0


def _describe_left(twin: Twin, question: str) -> Iterator[str]:
    requests = [path.read_bytes() for path in sorted(twin.parent_saw.glob("*.request"))]
    yield "\nWhat left the asker's machine"
    yield "  to the server  a request for an attestation document, which carries 32 random bytes"
    for request in requests:
        sealed = f"the question, sealed to the enclave that was verified: {len(request):,} bytes"
        yield f"  to the server  {sealed}, {count_words(question, request)} of its words readable"
    if not requests:
        yield "  to the server  nothing else: the question was not sent, not even sealed"
    asked = any(event.key_arn for event in twin.aws.audit.events)
    yield f"  to KMS         {'requests for keys, without content' if asked else 'nothing'}"


def count_words(question: str, data: bytes) -> int:
    """Count the longer words of *question* that stand in *data* as they are."""
    return sum(word.encode() in data for word in question.split() if len(word) > _SHORT_WORD)
