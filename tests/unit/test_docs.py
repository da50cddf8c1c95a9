import ast
import itertools
import re
from pathlib import Path

import pytest

from tests.figures import FIGURES
from tests.written import REMEDY, Figure

ROOT = Path(__file__).resolve().parents[2]
PROMISES = ("SECURITY.md", "docs/operations.md", "docs/weights.md")
NAMED = sorted(
    {
        named
        for page in PROMISES
        for named in re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", (ROOT / page).read_text())
    }
)
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("local/**/*.md")})


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_promised_test_exists(path: str, name: str) -> None:
    """Pages promise tests by name; a renamed or removed one is noticed."""
    tree = ast.parse((ROOT / path).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.alias)}
    assert any(found.startswith("test_") for found in names)
    assert not name or name in names


def test_every_threat_row_names_a_test() -> None:
    """No row of the table stands without one."""
    rows = re.findall(r"^\| \d+ \|.*$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert len(rows) >= 27
    assert all("`tests/" in row for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that exists."""
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_headings_leave_no_level_out(page: Path) -> None:
    """A section is one level below what it stands under."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert all(level <= above + 1 for above, level in itertools.pairwise([0, *levels]))


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.page}: {figure.says}")
def test_figures_are_what_the_code_knows(figure: Figure) -> None:
    """A page says what a program would; one command writes them anew."""
    assert figure.find().groups() == figure.knows(), REMEDY
