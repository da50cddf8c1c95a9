"""
Progress: what a person at a terminal is told of an answer while waiting for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.live import Live
from rich.text import Text

from app.chatbot.console import Terminal
from app.chatbot.session.exchange import Answer

_PATIENCE_SECONDS: Final = 0.7  # before which nobody wants to be told
_FRAMES_PER_SECOND: Final = 4


def describe_progress(answer: Answer) -> str:
    """Say in a few words how far *answer* has come."""
    match answer.state:
        case "sealing":
            doing = "fetching keys and sealing the question"
        case "sent":
            doing = "sent; the enclave is opening it"
        case "waiting" if answer.place:
            doing = f"place {answer.place} in the queue"
        case "waiting":
            doing = "the enclave has opened it; no word yet"
        case "thinking":
            doing = "thinking"
        case _:
            doing = f"answering, {len(answer.text):,} characters so far"
    return f"{doing} ({answer.seconds:.0f} s)"


@contextmanager
def showing_progress(
    answer: Answer, terminal: Terminal, *, beside_text: bool
) -> Iterator[Callable[[], None]]:
    """
    Show the progress of *answer* until the block ends; give what is to be called at each piece.

    Args:
        beside_text: The pieces go elsewhere than to this terminal, so progress goes on beside
            them; else it ends at the first.
    """
    if not terminal.notes.isatty():
        yield lambda: None
        return

    def render() -> Text:
        waited = answer.seconds > _PATIENCE_SECONDS
        return Text(f"… {describe_progress(answer)}" if waited else "", style="dim")

    live = Live(
        get_renderable=render,
        console=terminal.console(),
        refresh_per_second=_FRAMES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with live:
        yield (lambda: None) if beside_text else live.stop
