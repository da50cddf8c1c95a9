"""
The table of clients in docs/clients.md, as it was last seen to be true.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from tests.clients.client import CLIENTS, KINDS, ROOT, Client, kind_of
from tests.clients.running import Outcome

PAGE: Final = ROOT / "docs" / "clients.md"
_BEGIN, _END = "<!-- bin/test-clients writes this table -->\n", "<!-- end of the table -->\n"
_HEAD: Final = ("client", "version", *KINDS, "how it is set up")


def make_table(outcomes: Iterable[Outcome]) -> str:
    """Give the table that *outcomes*, of all clients, amount to."""
    seen = list(outcomes)
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(client, seen) for client in CLIENTS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(client: Client, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    own = [outcome for outcome in outcomes if outcome.client == client]
    cells = (_cell([one for one in own if kind_of(one.way) == kind]) for kind in KINDS)
    name = f"{client.name} (`{client.package}`)"
    return (name, client.version, *cells, client.wants)


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    return "fails" if any(outcome.fault for outcome in outcomes) else "works"


def read_table() -> str:
    """Give the table that the page has."""
    return _find(PAGE.read_text())[1]


def write_table(table: str) -> None:
    """Put *table* into the page."""
    text = PAGE.read_text()
    found = _find(text)
    PAGE.write_text(text[: found.start(1)] + table + text[found.end(1) :])


def _find(page: str) -> re.Match[str]:
    (found,) = re.finditer(f"{re.escape(_BEGIN)}(.*?){re.escape(_END)}", page, re.DOTALL)
    return found
