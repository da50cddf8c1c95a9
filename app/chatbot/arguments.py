"""
The program's arguments: what all commands take; each command adds its own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.chatbot.answer_arguments import (
    add_answer_arguments,
    repeat_answer_arguments,
    require_answer_options,
)
from app.chatbot.completion import add_completion_arguments
from app.chatbot.config import config_folder
from app.chatbot.name import PROGRAM
from app.chatbot.openai.command import add_serve_arguments
from app.chatbot.releases_command import add_releases_arguments
from app.chatbot.terminal.command import (
    add_ask_arguments,
    add_chat_arguments,
    add_conversations_arguments,
    add_read_arguments,
    require_ask_arguments,
)
from app.chatbot.web.command import DESCRIPTION, add_web_arguments

_EPILOG: Final = f"""\
examples:
  {PROGRAM:44} talk; /help lists commands
  {PROGRAM + " ask":44} one question, which you type
  {PROGRAM + " ask - < letter.txt":44} one question, from standard input
  {PROGRAM + " ask --json - < letter.txt":44} one JSON object with answer and proof
  {PROGRAM + " ask --schema form.json --file it.pdf":44} JSON that validates, and nothing else
  {PROGRAM + " chat --keep leave":44} a conversation to be continued: --continue leave
  {PROGRAM + " ask --file letter.pdf --pages 1-3":44} a question about pages of a document
  {PROGRAM + " web":44} a page in your browser, with the proof beside it
  {PROGRAM + " serve --port 8011":44} OpenAI's API, for programs (the project's docs/clients.md)
  {PROGRAM + " --stack enclave-llm --tunnel":44} a private deployment, through Session Manager
  {PROGRAM + " releases import releases.json":44} approve what your reviewer approved

A question on the command line ({PROGRAM} ask "...") is in the process list while it is answered,
where every user of this machine can read it, and in your shell's history: type or pipe it instead.

Before anything is sent, the enclave's attestation document is verified against AWS's root and
your own list of approved releases. Your AWS credentials (boto3's default chain) assume the chat
role; what the enclave gets of them works for one conversation, inside that image, for 15 minutes.

exit codes: 0 answered, 1 failed, 2 wrong usage, schema or AWS settings, 3 the enclave is not
trusted (nothing was sent, or only a copy sealed to the enclave verified before), 4 the answer is
not whole, not of its schema, or its receipt does not verify, 130 stopped by Ctrl-C. A conversation
ends with 0, whatever its answers came to.

NO_COLOR is honoured. Answers go to standard output, all else to standard error. At a terminal each
line of an answer begins with a margin, "| ", which no text of an answer can leave, and Markdown is
shown as what it means; in a pipe an answer is as it was written. Control characters in answers are
replaced everywhere, unless --raw is given.
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """
    Parse *arguments*; what is wrong with them ends the program before anything else is done.

    Raises:
        SchemaError: The schema that they name will not do.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    require_answer_options(options, parser)
    if options.tunnel and not options.stack:
        parser.error("--tunnel needs --stack, whose instances it leads to")
    if options.command == "ask":
        require_ask_arguments(options, parser)
    return options


def make_parser() -> argparse.ArgumentParser:
    """Give the parser of the whole program."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Ask a language model that runs where only you can read along.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_deployment(parser.add_argument_group("the deployment"))
    add_answer_arguments(parser)
    _add_raw(parser)
    parser.set_defaults(raw=False)
    words = "chat | ask | web | serve | read | conversations | releases | completion"
    commands = parser.add_subparsers(dest="command", metavar=words)
    chat = commands.add_parser("chat", help="talk in this terminal, as without a command")
    add_chat_arguments(chat)
    ask = commands.add_parser("ask", help="ask one question")
    add_ask_arguments(ask)
    web = commands.add_parser("web", help="talk in your browser, on 127.0.0.1")
    web.description = DESCRIPTION
    add_web_arguments(web)
    serve = commands.add_parser("serve", help="an OpenAI-compatible API on 127.0.0.1")
    add_serve_arguments(serve)
    for asking in (chat, ask, web, serve):
        repeat_answer_arguments(asking)
    for writing in (chat, ask):
        _add_raw(writing)
    add_read_arguments(commands.add_parser("read", help="show a conversation that /save kept"))
    kept = commands.add_parser("conversations", help="those that you have kept")
    add_conversations_arguments(kept)
    add_releases_arguments(commands.add_parser("releases", help="the images you approve"))
    add_completion_arguments(commands.add_parser("completion", help="Tab for your shell"))
    return parser


def _add_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--raw",
        action="store_true",
        default=argparse.SUPPRESS,
        help="answers as they come, control characters included",
    )


def _add_deployment(group: "argparse._ArgumentGroup") -> None:
    folder = config_folder()
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
