"""
The command `serve`: an OpenAI-compatible API for programs of this machine.
"""

import argparse
import os
import shlex
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

from app.chatbot.console import Terminal, show_banner
from app.chatbot.local_http import ending_like_ctrl_c, listen, make_token, parse_port, serve, url_of
from app.chatbot.machine import create_private, is_private
from app.chatbot.openai.conversations import Conversations
from app.chatbot.openai.server import make_application
from app.chatbot.session.session import Session
from app.chatbot.unix_socket import listen_unix
from app.protocol.errors import ConfigError
from app.protocol.question import Options

_MIN_TOKEN = 32  # characters


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `serve` takes."""
    parser.description = (
        "Verify the enclave, then serve OpenAI's API on 127.0.0.1 until Ctrl-C. Prints two lines "
        "to export, which most clients take as they are. Options of the answer are the defaults "
        "of what a request leaves out. Tools, schemas of answers, reasoning and log-probabilities "
        "are honoured as far as the model can; what is not is refused by name. The project's "
        "docs/clients.md says what is honoured, what changes nothing, and what is refused."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--port", type=parse_port, default=0, metavar="N", help="default: a free one"
    )
    where.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="a Unix socket instead, which no other user can reach or take over",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="keep the token here from one start to the next; default: a fresh one each time",
    )


def serve_sessions(
    connect: Callable[[], Session],
    defaults: Options,
    terminal: Terminal,
    *,
    port: int = 0,
    path: Path | None = None,
    token_file: Path | None = None,
) -> int:
    """
    Verify the enclave, say where to ask and with which token, and serve until Ctrl-C; gives 0.

    Args:
        defaults: Of what a request leaves out.

        port: Of 127.0.0.1; 0 for a free one.

        path: Of a Unix socket to serve on instead.

        token_file: Keeps the token from one start to the next; None for a fresh one.

    Raises:
        AppError: As *connect*, or the port, the socket or the file cannot be had.
    """
    token = _token(token_file)
    try:
        with ending_like_ctrl_c():
            with _listen(port, path):
                pass  # nobody is asked for anything where the place cannot be had
            first = connect()
            with closing(Conversations(first, connect)) as conversations:
                show_banner(first, terminal)
                with _listen(port, path) as listener:
                    key = _shown(token, token_file)
                    _announce(conversations.model, listener, terminal, key=key, path=path)
                    made = make_application(conversations, token=token, defaults=defaults)
                    serve(made, listener)
    except KeyboardInterrupt:
        terminal.note("stopped")
    return 0


def _listen(port: int, path: Path | None) -> AbstractContextManager[socket.socket]:
    return listen(port) if path is None else listen_unix(path)


def _announce(
    model: str, listener: socket.socket, terminal: Terminal, *, key: str, path: Path | None
) -> None:
    """Say where the API is served, and with which *key*, as a shell takes it."""
    where = "" if path is None else f" on {path.absolute()}"
    terminal.note(f"serving   {model}, OpenAI-compatible{where}; Ctrl-C stops")
    terminal.piece(f"export OPENAI_BASE_URL={url_of(listener)}/v1\n")
    terminal.piece(f"export OPENAI_API_KEY={key}\n")
    if path is not None:
        terminal.piece(f"export ENCLAVE_LLM_SOCKET={shlex.quote(str(path.absolute()))}\n")


def _shown(token: str, path: Path | None) -> str:
    """Give what a shell takes for *token*; one that a file keeps stays out of sight."""
    return token if path is None else f'"$(cat {shlex.quote(str(path.absolute()))})"'


def _token(path: Path | None) -> str:
    """Give the token that *path* keeps; one that is made is written there for its owner alone."""
    if path is None:
        return make_token()
    try:
        if path.exists():
            return _check(path, path.read_text(encoding="utf-8").strip())
        token = make_token()
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(create_private(path), "wb") as file:
            file.write(token.encode() + b"\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be used for a token: {type(error).__name__}") from None
    return token


def _check(path: Path, token: str) -> str:
    if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{path} has no token of {_MIN_TOKEN} ASCII characters or more")
    if not is_private(path):
        raise ConfigError(f"{path} can be read by other users: chmod 600 {path}")
    return token
