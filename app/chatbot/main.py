"""
The chatbot's program and its commands.

Wires the asker's AWS credentials, the approved list and one deployment's addresses together.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import boto3

from app.chatbot.answer_arguments import answer_options
from app.chatbot.arguments import make_parser, parse_arguments
from app.chatbot.aws import open_aws
from app.chatbot.completion import make_script
from app.chatbot.config import ChatbotConfig, read_config
from app.chatbot.console import Terminal, fail, leave_quietly
from app.chatbot.deployment.stack import read_config_of_stack
from app.chatbot.deployment.tunnel import tunnelled
from app.chatbot.documents.document import Document
from app.chatbot.library.opening import open_session
from app.chatbot.machine import speak_unicode
from app.chatbot.openai.command import serve_sessions
from app.chatbot.releases_command import import_releases, list_releases
from app.chatbot.session.session import Session
from app.chatbot.session.trust import Trust, production_trust
from app.chatbot.terminal.command import manage_kept, read_documents, read_saved, talk
from app.chatbot.web.command import serve_page
from app.protocol.errors import AppError, ConfigError


def main(
    arguments: Sequence[str] | None = None, *, trust_of: Callable[[Path], Trust] | None = None
) -> int:
    """
    Run the program; give its exit code.

    Args:
        trust_of: Gives whom to trust by a list of approved releases; None for `production_trust`,
            which every command of ours has. The twin's asker has the twin's.
    """
    speak_unicode()
    terminal, as_json = Terminal(), False
    try:
        options = parse_arguments(arguments)  # a schema may come by a pipe, which takes its time
        terminal, as_json = Terminal(raw=options.raw), getattr(options, "json", False)
        if options.command in {"read", "conversations", "releases", "completion"}:
            return _stay_here(options, terminal)
        documents = read_documents(options, terminal)
        aws = open_aws(options.profile, options.region)
        config = _config(options, aws)
        trust = (trust_of or production_trust)(options.releases)
        with _reach(config, options, aws) as reached:
            return _run(options, lambda: open_session(reached, trust, aws), terminal, documents)
    except AppError as error:
        return fail(error, terminal, as_json=as_json)
    except KeyboardInterrupt:
        terminal.note("stopped")
        return 130
    except BrokenPipeError:
        return leave_quietly()


def _run(
    options: argparse.Namespace,
    connect: Callable[[], Session],
    terminal: Terminal,
    documents: Sequence[Document],
) -> int:
    """Do what was asked for with the sessions that *connect* gives; give the exit code."""
    if options.command == "web":
        return serve_page(
            connect,
            answer_options(options),
            terminal,
            port=options.port,
            browser=options.open,
        )
    if options.command == "serve":
        return serve_sessions(
            connect,
            answer_options(options),
            terminal,
            port=options.port,
            path=options.socket,
            token_file=options.token_file,
        )
    return talk(connect, options, terminal, documents)


def _stay_here(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do what needs files alone."""
    if options.command == "completion":
        terminal.piece(make_script(make_parser(), options.shell))
        return 0
    if options.command == "read":
        return read_saved(options, terminal)
    if options.command == "conversations":
        return manage_kept(options, terminal)
    if options.action == "import":
        return import_releases(options.file, options.releases, terminal, yes=options.yes)
    return list_releases(options.releases, terminal)


@contextmanager
def _reach(
    config: ChatbotConfig, options: argparse.Namespace, aws: boto3.Session
) -> Iterator[ChatbotConfig]:
    """Give *config*, or with --tunnel one that leads through a tunnel while the block runs."""
    if not options.tunnel:
        yield config
        return
    if not options.stack:
        raise ConfigError("--tunnel needs --stack, whose instances it leads to")
    with tunnelled(config, aws, options.stack, profile=options.profile) as reached:
        yield reached


def _config(options: argparse.Namespace, aws: boto3.Session) -> ChatbotConfig:
    given = {
        "url": options.url,
        "key_arn": options.key_arn,
        "chat_role_arn": options.role_arn,
        "tls_ca": options.tls_ca,
        "any_certificate": options.any_certificate,
        "source_identity": options.source_identity,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if {"url", "key_arn", "chat_role_arn"} <= set(given):
        return ChatbotConfig(**given)
    if options.stack:
        return replace(read_config_of_stack(aws, options.stack), **given)
    return replace(read_config(options.config), **given)


if __name__ == "__main__":
    sys.exit(main())
