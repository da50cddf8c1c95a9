"""
The chatbot's program: `bin/chat` and its commands.

Wires the asker's AWS credentials, the approved list and one deployment's addresses together.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import boto3

from app.chatbot.aws import open_aws
from app.chatbot.config import ChatbotConfig, read_config
from app.chatbot.console import Terminal, escape, fail, leave_quietly
from app.chatbot.deployment.stack import read_config_of_stack
from app.chatbot.deployment.tunnel import tunnelled
from app.chatbot.documents.arguments import add_file_arguments, read_files
from app.chatbot.documents.document import Document
from app.chatbot.library import config_folder, open_session
from app.chatbot.local_http import parse_port
from app.chatbot.openai.command import serve_sessions
from app.chatbot.releases_command import import_releases, list_releases
from app.chatbot.session.session import Session
from app.chatbot.session.trust import production_trust
from app.chatbot.terminal.attached import show_documents
from app.chatbot.terminal.conversation import ask_once, converse
from app.chatbot.terminal.prompt_line import read_all, read_secret
from app.chatbot.terminal.transcript import open_transcript
from app.chatbot.web.command import add_web_arguments, serve_page
from app.protocol.constants import MOST_TOKENS
from app.protocol.errors import AppError, ConfigError
from app.protocol.question import Options

_EPILOG: Final = """\
examples:
  bin/chat                                     talk; /help lists commands
  bin/chat ask                                 one question, which you type
  bin/chat ask - < letter.txt                  one question, from standard input
  bin/chat ask --json - < letter.txt           one JSON object with answer and proof
  bin/chat ask --file letter.pdf --pages 1-3   a question about pages of a document
  bin/chat web                                 a page in your browser, with the proof beside it
  bin/chat serve --port 8011                   OpenAI's API, for programs (docs/clients.md)
  bin/chat --stack enclave-llm --tunnel        a private deployment, through Session Manager
  bin/chat releases import releases.json       approve what your reviewer approved

A question on the command line (bin/chat ask "...") is in the process list while it is answered,
where every user of this machine can read it, and in your shell's history: type or pipe it instead.

Before anything is sent, the enclave's attestation document is verified against AWS's root and
your own list of approved releases. Your AWS credentials (boto3's default chain) assume the chat
role; what the enclave gets of them works for one conversation, inside that image, for 15 minutes.

exit codes: 0 answered, 1 failed, 2 wrong usage or AWS settings, 3 the enclave is not trusted
(nothing was sent, or only a copy sealed to the enclave verified before), 4 the answer is not whole,
or its receipt does not verify, 130 stopped by Ctrl-C. A conversation ends with 0, whatever its
answers came to.

NO_COLOR is honoured. Answers go to standard output, all else to standard error. At a terminal each
line of an answer begins with a margin, "| ", which no text of an answer can leave; in a pipe there
is none. Control characters in answers are replaced everywhere, unless --raw is given.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code."""
    options = _parse(arguments)
    terminal = Terminal(raw=options.raw)
    as_json = getattr(options, "json", False)
    try:
        if options.command in {"read", "releases"}:
            return _stay_here(options, terminal)
        documents = _read_documents(options, terminal)
        aws = open_aws(options.profile, options.region)
        config = _config(options, aws)
        trust = production_trust(options.releases)
        with _reach(config, options, aws) as reached:
            return _run(options, lambda: open_session(reached, trust, aws), terminal, documents)
    except AppError as error:
        return fail(error, terminal, as_json=as_json)
    except KeyboardInterrupt:
        terminal.note("stopped")
        return 130
    except BrokenPipeError:
        return leave_quietly()


def _read_documents(options: argparse.Namespace, terminal: Terminal) -> tuple[Document, ...]:
    """Read the files that a question is about, before anything else is done, and show what was."""
    documents = read_files(getattr(options, "files", ()))
    show_documents(documents, terminal)
    return documents


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
    return talk(connect(), options, terminal, documents)


def talk(
    session: Session,
    options: argparse.Namespace,
    terminal: Terminal,
    documents: Sequence[Document] = (),
) -> int:
    """
    Ask the one question, or converse; gives exit code 0.

    Raises:
        AppError: As `Session.ask`.
    """
    try:
        wanted = answer_options(options)
        if options.command == "ask":
            question = _read_question(terminal) if options.question == "-" else options.question
            ask_once(session, question, wanted, terminal, as_json=options.json, documents=documents)
        else:
            converse(session, wanted, terminal)
    finally:
        session.close()
    return 0


def _read_question(terminal: Terminal) -> str:
    if terminal.source.isatty():
        terminal.note("type the question, then Ctrl-D on a line of its own")
    return read_all(terminal)


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that shape an answer."""
    group = parser.add_argument_group("the answer")
    group.add_argument(
        "--max-tokens",
        type=int,
        default=MOST_TOKENS,
        metavar="N",
        help="default: as many as the context leaves",
    )
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 to 2")
    group.add_argument("--seed", type=int, metavar="N", help="repeatable sampling")
    group.add_argument(
        "--padding",
        choices=("constant", "off"),
        default="constant",
        help="constant (default) hides the answer's length and rhythm from the network and the "
        "parent; off is faster",
    )


def answer_options(options: argparse.Namespace) -> Options:
    """
    Give the answer options that were asked for.

    Raises:
        ProtocolError: One is out of range.
    """
    return Options(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        padding=options.padding,
    )


def require_answer_options(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program with wrong usage where an answer option is out of range."""
    try:
        answer_options(options)
    except AppError as error:
        parser.error(str(error))


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


def _stay_here(options: argparse.Namespace, terminal: Terminal) -> int:
    """Do what needs files alone."""
    if options.command == "read":
        passphrase = read_secret(terminal, "passphrase")
        terminal.piece(escape(open_transcript(options.file, passphrase)) + "\n")
        return 0
    if options.action == "import":
        return import_releases(options.file, options.releases, terminal, yes=options.yes)
    return list_releases(options.releases, terminal)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse *arguments*; what is wrong with them ends the program before anything else is done."""
    parser = _parser()
    options = parser.parse_args(arguments)
    require_answer_options(options, parser)
    if options.tunnel and not options.stack:
        parser.error("--tunnel needs --stack, whose instances it leads to")
    if options.command == "ask" and not options.question.strip():
        parser.error("the question is empty")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/chat",
        description="Ask a language model that runs where only you can read along.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder = config_folder()
    group = parser.add_argument_group("the deployment")
    group.add_argument("--config", type=Path, default=folder / "chat.json", metavar="FILE")
    group.add_argument("--stack", metavar="NAME", help="read the addresses of this stack's outputs")
    group.add_argument(
        "--region", metavar="R", help="of the stack; default: AWS_REGION, or your profile's"
    )
    group.add_argument(
        "--tunnel",
        action="store_true",
        help="reach an instance of --stack through Session Manager, with no open port",
    )
    group.add_argument("--url", help="of the parent or its load balancer")
    group.add_argument("--key-arn", help="of the KMS key")
    group.add_argument("--role-arn", help="of the chat role")
    group.add_argument("--tls-ca", metavar="FILE", help="certificate authorities for --url")
    group.add_argument(
        "--any-certificate",
        action="store_const",
        const=True,
        help="take the parent's own certificate: what is sent is sealed to the enclave either way",
    )
    group.add_argument(
        "--source-identity", metavar="NAME", help="where the chat role requires sts:SourceIdentity"
    )
    group.add_argument("--profile", help="AWS profile to use")
    group.add_argument(
        "--releases",
        type=Path,
        default=folder / "releases.json",
        metavar="FILE",
        help="your list of approved releases; what you trust",
    )
    add_answer_arguments(parser)
    parser.add_argument(
        "--raw", action="store_true", help="answers as they come, control characters included"
    )
    commands = parser.add_subparsers(dest="command", metavar="ask | web | serve | read | releases")
    _add_ask(commands.add_parser("ask", help="ask one question"))
    add_web_arguments(commands.add_parser("web", help="talk in your browser, on 127.0.0.1"))
    _add_serve(commands.add_parser("serve", help="an OpenAI-compatible API on 127.0.0.1"))
    read = commands.add_parser("read", help="show a conversation that /save kept")
    read.add_argument("file", type=Path)
    _add_releases(commands.add_parser("releases", help="the images you approve"))
    return parser


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="?",
        default="-",
        help="leave it out, or give -, to type or pipe it; what stands here is shown to every user "
        "of this machine by the process list",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_file_arguments(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Verify the enclave, then serve OpenAI's API on 127.0.0.1 until Ctrl-C. Prints two lines "
        "to export, which most clients take as they are. Answer options before serve are the "
        "defaults of what a request leaves out. Tools, schemas of answers, reasoning and "
        "log-probabilities are honoured as far as the model can; what is not is refused by name. "
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


def _add_releases(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="list | import", required=True)
    actions.add_parser("list", help="show your list of approved releases, digests in full")
    install = actions.add_parser("import", help="install another list, after showing what changes")
    install.add_argument("file", type=Path, help="releases.json, from whoever reviews images")
    install.add_argument("--yes", action="store_true", help="you have compared the digests")


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
