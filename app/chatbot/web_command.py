"""
`bin/chat web`: serves the page until it is interrupted, and says where it is.
"""

import argparse
import webbrowser
from collections.abc import Callable

from app.chatbot.local_http import listen, serve, url_of
from app.chatbot.session import Session
from app.chatbot.visit import Visit
from app.chatbot.web import Web
from app.protocol.question import Options


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the page."""
    parser.add_argument("--port", type=int, default=0, metavar="N", help="default: any free one")
    parser.add_argument(
        "--no-browser", action="store_true", help="print the link only; open it yourself"
    )


def serve_page(
    open_session: Callable[[], Session],
    options: Options,
    *,
    port: int,
    browser: bool,
    note: Callable[[str], None],
    suggestions: tuple[str, ...] = (),
) -> None:
    """
    Serve the page until SIGINT or SIGTERM.

    Args:
        browser: Whether to open it in the person's browser, where there is one.

        note: Is told the link.

    Raises:
        ConfigError: The port cannot be had.
    """
    visit = Visit(open_session, options, suggestions)
    web = Web(visit)
    with listen(port) as listener:
        link = f"{url_of(listener)}/?token={web.token}"
        note(f"The page, for one browser, once:\n\n    {link}\n\nCtrl-C ends it.")
        if browser:
            webbrowser.open(link)
        try:
            serve(web.application(), listener)
        finally:
            visit.close()
