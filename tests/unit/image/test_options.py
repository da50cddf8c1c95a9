"""
What `bin/build-eif` does not take: options that would say nothing.
"""

import pytest

from image.options import parse_options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--kit nitro --kit-dir foo", "--kit-dir: for --kit aws alone, and this is --kit nitro"),
        ("--kit nitro --fetch-kit", "--fetch-kit: for --kit aws alone"),
        ("--kernel-source linux.deb", "--kernel-source: for --kit nitro alone"),
        ("--fetch-kit --twice --wheels w", "--fetch-kit builds nothing: leave --twice, --wheels"),
        ("--record-kit --weights w", "--record-kit builds nothing: leave --weights out"),
        ("--fetch-kit --record-kit", "not allowed with argument --fetch-kit"),
    ],
)
def test_options_that_do_not_apply(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    """
    An option that does not apply is wrong usage, not overlooked.
    """
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--kit aws --kit-dir foo --weights w --weights-inside --twice",
        "--kit nitro --kernel-source linux.deb --base b --wheels w",
        "--fetch-kit --kit-dir foo --out build",
        "--record-kit --kit-dir foo",
    ],
)
def test_options_that_apply(arguments: str) -> None:
    """
    What fits together is taken.
    """
    parse_options(arguments.split())
