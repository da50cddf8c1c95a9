"""
Markdown and what becomes of it: elements of the page, and lines at a terminal of 44 columns.

Elements are written as `name(children)`, texts in quotes; {1}, {3}, {9} and {2} stand for bold,
italic, struck and faint at a terminal, {0} for the end of that.
"""

from typing import Final, NamedTuple


class Case(NamedTuple):
    """One answer, and what becomes of it."""

    source: str
    page: str
    terminal: str


def _same(text: str) -> Case:
    """Give a text of one line that is nothing but text."""
    return Case(text, f"p('{text}')", f"| {text}\n")


CASES: Final = (
    Case("one **two three** four", "p('one ' strong('two three') ' four')",
         "| one {1}two{0} {1}three{0} four\n"),
    Case("*a* _b_ ~~c~~", "p(em('a') ' ' em('b') ' ' del('c'))", "| {3}a{0} {3}b{0} {9}c{0}\n"),
    Case("***a** b*", "p(em(strong('a') ' b'))", "| {3}{1}a{0} {3}b{0}\n"),
    Case("**a *b* c**", "p(strong('a ' em('b') ' c'))", "| {1}a{0} {1}{3}b{0} {1}c{0}\n"),
    Case("漢字**「強」**です", "p('漢字' strong('「強」') 'です')", "| 漢字{1}「強」{0}です\n"),
    _same("snake_case_name and 5 * 3 * 2"),
    _same("2**3 = 8"),
    _same("**never closed"),
    _same("a ` b"),
    _same("<b>no markup</b> <img src=x> &amp;"),
    _same("[not a link] (here) and [a][b]"),
    _same("![one](two three) https://x.e/_a_b_*c"),
    Case("\\*not\\* \\[a](b)", "p('*not* [a](b)')", "| *not* [a](b)\n"),
    Case("`a **b**` ``c ` d``", "p(code('a **b**') ' ' code('c ` d'))",
         "| `a **b**` `c ` d`\n"),
    Case("[see **here**](https://x.example/a(b)c)",
         "p(span.link('see ' strong('here') span.target(' (https://x.example/a(b)c)')))",
         "| see {1}here{0} (https://x.example/a(b)c)\n"),
    Case("[https://x.example](https://x.example)", "p(span.link('https://x.example'))",
         "| https://x.example\n"),
    Case("[run](javascript:alert(1))",
         "p(span.link('run' span.target(' (javascript:alert(1))')))",
         "| run (javascript:alert(1))\n"),
    Case("![a cat](https://x.example/c.png)",
         "p(span.link('a cat' span.target(' (image, not loaded: https://x.example/c.png)')))",
         "| a cat (image, not loaded:\n| https://x.example/c.png)\n"),
    Case("# One\n### Three", "p.heading('One') p.heading('Three')",
         "| {1}One{0}\n| {1}Three{0}\n"),
    Case("a\nb\n\nc\n\n\nd", "p('a' br() 'b') p('c') p('d')", "| a\n| b\n| \n| c\n| \n| d\n"),
    Case("- a\n- b\n  - c\n\n    d\n- e\n\nf",
         "ul(li(p('a')) li(p('b') ul(li(p('c') p('d')))) li(p('e'))) p('f')",
         "| - a\n| - b\n|   - c\n| \n|     d\n| - e\n| \n| f\n"),
    Case("1. a\n   b\n2. c\n  - d", "ol(li(p('a' br() 'b')) li(p('c') ul(li(p('d')))))",
         "| 1. a\n|    b\n| 2. c\n|    - d\n"),
    Case("in\n1986. A year\n1. a list", "p('in' br() '1986. A year') ol(li(p('a list')))",
         "| in\n| 1986. A year\n| 1. a list\n"),
    Case("> a\n> > b\n\nc", "blockquote(p('a') blockquote(p('b'))) p('c')",
         "| > a\n| > > b\n| \n| c\n"),
    Case("> - a\n>   b", "blockquote(ul(li(p('a' br() 'b'))))", "| > - a\n| >   b\n"),
    Case("---\na\n* * *", "hr() p('a') hr()",
         "| ------------------------\n| a\n| ------------------------\n"),
    Case("```python\ndef f():\n    return '**'\n\n# no\n```\nb",
         "div.code(span.language('python') button.copy() "
         "pre(code('def f():\\n    return \\'**\\'\\n\\n# no'))) p('b')",
         "|     {2}python{0}\n|     def f():\n|         return '**'\n| \n|     # no\n| b\n"),
    Case("~~~\n```\n~~~", "div.code(button.copy() pre(code('```')))", "|     ```\n"),
    Case("- a:\n  ```\n  b\n    c\n  ```\n- d",
         "ul(li(p('a:') div.code(button.copy() pre(code('b\\n  c')))) li(p('d')))",
         "| - a:\n|       b\n|         c\n| - d\n"),
    Case("```\nnever **closed**", "div.code(button.copy() pre(code('never **closed**')))",
         "|     never **closed**\n"),
    Case("a\n| x | **y** |\n|---|:-:|\n| 1 | `a\\|b` |\n| 2 | 3 | 4 |\nb",
         "p('a') div.table(table(thead(tr(th('x') th(strong('y'))))"
         " tbody(tr(td('1') td(code('a|b'))) tr(td('2') td('3 | 4'))))) p('b')",
         "| a\n| {1}x{0}  {1}{1}y{0}\n| -  -----\n| 1  `a|b`\n| 2  3 | 4\n| b\n"),
    Case("| a | b |\nno table", "p('| a | b |' br() 'no table')", "| | a | b |\n| no table\n"),
    Case("| a | b |\n|---|", "p('| a | b |') p('|---|')", "| | a | b |\n| |---|\n"),
    Case("| first | second |\n|---|---|\n| " + "word " * 5 + "| " + "more " * 5 + "|",
         "div.table(table(thead(tr(th('first') th('second')))"
         " tbody(tr(td('word word word word word') td('more more more more more')))))",
         "| {1}first:{0} word word word word word\n"
         "| {1}second:{0} more more more more more\n| \n"),
    Case("a\u202eb\x1b[1m", "p('a\ufffdb\ufffd[1m')", "| a\ufffdb\ufffd[1m\n"),
)  # fmt: skip

# Answers that mean to cost more than they are long, by what they are made of.
HOSTILE: Final = {
    "quotes": "> " * 5000,
    "items": "- " * 5000,
    "nested items": "\n".join("  " * level + "- a" for level in range(300)),
    "brackets": "[" * 10_000 + "a" + "](b)" * 2500,
    "images": "![" * 5000,
    "stars": "*a **b " * 2000,
    "runs": "*" * 9999 + "a" + "_" * 9999,
    "backticks": " ".join("`" * (1 + number % 50) for number in range(2000)),
    "links": "[a](https://x.example/b) " * 1000,
    "open link": "[a](" + "b" * 10_000,
    "table": "|a|b|\n|-|-|\n" + "|1|2|\n" * 3000,
    "wide table": "|" + "a|" * 3000 + "\n|" + "-|" * 3000 + "\n",
    "dashes": "-" * 10_000 + "\n" + "- -" * 3000,
    "fences": "```\n" * 3000,
    "one word": "漢" * 5000 + "a" * 10_000,
    "blanks": " " * 10_000 + "a" + "\n" * 5000,
}
