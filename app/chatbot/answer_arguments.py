"""
Arguments that shape an answer, of every command that asks.
"""

import argparse

from app.protocol.constants import MOST_TOKENS
from app.protocol.errors import AppError
from app.protocol.question import Options


def add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that shape an answer."""
    repeat_answer_arguments(parser)
    parser.set_defaults(max_tokens=MOST_TOKENS, temperature=0.0, seed=None, padding="constant")


def repeat_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """Take the same options in *parser*, which is a command's; one left out leaves what stands."""
    group = parser.add_argument_group("the answer")
    group.add_argument(
        "--max-tokens",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="default: as many as the context leaves",
    )
    group.add_argument(
        "--temperature", type=float, default=argparse.SUPPRESS, metavar="T", help="0 to 2"
    )
    group.add_argument(
        "--seed", type=int, default=argparse.SUPPRESS, metavar="N", help="repeatable sampling"
    )
    group.add_argument(
        "--padding",
        choices=("constant", "off"),
        default=argparse.SUPPRESS,
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
        name, _, fault = str(error).partition(" ")  # as the protocol has it, such as max_tokens
        parser.error(f"--{name.replace('_', '-')} {fault}")
