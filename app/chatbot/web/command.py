"""
The command `web`: a page for one browser of this machine.
"""

import argparse
import webbrowser
from collections.abc import Callable
from typing import Final

from app.chatbot.console import Terminal
from app.chatbot.local_http import listen, parse_port, serve, url_of
from app.chatbot.session.session import Session
from app.chatbot.web.server import Web
from app.chatbot.web.visit import Visit
from app.protocol.question import Options

DESCRIPTION: Final = (
    "Serve a page for one browser of this machine until Ctrl-C: a conversation, and beside it the "
    "proof and what the server saw. The link that is printed works once. The page verifies the "
    "enclave when it opens, and keeps nothing of a conversation. The project's docs/page.md tells "
    "who else can use it, and who cannot."
)


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the page."""
    parser.add_argument(
        "--port", type=parse_port, default=0, metavar="N", help="default: any free one"
    )
    parser.add_argument(
        "--open",
        action="store_true",
        help="open the link in your browser; it is then among that program's arguments, which "
        "other users of this machine can see",
    )


def serve_page(
    connect: Callable[[], Session],
    options: Options,
    terminal: Terminal,
    *,
    port: int = 0,
    browser: bool = False,
    suggestions: tuple[str, ...] = (),
) -> int:
    """
    Serve the page, which verifies the enclave when it opens, until Ctrl-C; gives exit code 0.

    Args:
        options: What shapes every answer.

        port: Of 127.0.0.1; 0 for a free one.

        browser: Whether to open the page in the person's browser, too.

        suggestions: Questions to begin with.

    Raises:
        ConfigError: The port cannot be had.
    """
    web = Web(lambda: Visit(connect, options, suggestions))
    try:
        with listen(port) as listener:
            link = f"{url_of(listener)}/#{web.token}"
            terminal.note("Open this link in your browser; it works once. Ctrl-C ends the page.\n")
            terminal.note(f"    {link}\n")
            if browser:
                webbrowser.open(link)
            serve(web.application(), listener, ending=web.end)
    except KeyboardInterrupt:
        terminal.note("stopped")
    return 0
