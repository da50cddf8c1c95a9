"""
The command `releases`: which images an asker approves, and how that list is replaced.
"""

import argparse
from pathlib import Path

from app.chatbot.console import Terminal
from app.chatbot.release_list import (
    compare_lists,
    describe_change,
    describe_digests,
    install_list,
    read_list,
)
from app.protocol.errors import ConfigError

_QUESTION = "Did whoever reviews images for you give you exactly these digests? [yes/no] "


def add_releases_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `releases` takes."""
    parser.description = (
        "The list of approved releases decides which enclaves you trust: an image that is not on "
        "it gets no word of yours. Whoever reviews images for you gives you a new releases.json, "
        "and its digests by another way; import shows what it would change and asks whether they "
        "are those."
    )
    actions = parser.add_subparsers(dest="action", metavar="list | import", required=True)
    actions.add_parser("list", help="show your list of approved releases, digests in full")
    install = actions.add_parser("import", help="install another list, after showing what changes")
    install.add_argument("file", type=Path, help="releases.json, from whoever reviews images")
    install.add_argument("--yes", action="store_true", help="you have compared the digests")


def list_releases(path: Path, terminal: Terminal) -> int:
    """
    Show the list at *path*; give the exit code.

    Raises:
        ConfigError: As `read_list`.
    """
    releases = read_list(path)
    for release in releases:
        terminal.piece(f"{release.name}  approved {release.approved_at.isoformat()}\n")
        for line in describe_digests(release):
            terminal.piece(line + "\n")
    if not releases:
        terminal.note(f"no release is approved at {path}: no enclave is trusted")
    return 0


def import_releases(new: Path, path: Path, terminal: Terminal, *, yes: bool) -> int:
    """
    Show what *new* changes, ask, and install it at *path*; give the exit code, 1 when declined.

    Raises:
        ConfigError: As `compare_lists` and `install_list`, or nobody is there to be asked.
    """
    change = compare_lists(new, path)
    for line in describe_change(change):
        terminal.note(line)
    if not change.added and not change.removed:
        terminal.note("nothing changes")
        return 0
    if not yes and not _confirm(terminal):
        terminal.note("nothing was changed")
        return 1
    backup = install_list(change, path)
    kept = f"; the earlier list is {backup}" if backup else ""
    terminal.note(f"installed {path}{kept}")
    return 0


def _confirm(terminal: Terminal) -> bool:
    if not terminal.source.isatty():
        raise ConfigError("nobody is at a terminal to be asked: compare the digests, then --yes")
    terminal.note(_QUESTION)
    return terminal.source.readline().strip() == "yes"
