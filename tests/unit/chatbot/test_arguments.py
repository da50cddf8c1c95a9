import pytest

from app.chatbot.answer_arguments import answer_options
from app.chatbot.arguments import make_parser, parse_arguments
from app.protocol.question import Options

COMMANDS = ("ask", "chat", "web", "serve")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_the_answer_stand_before_and_behind_a_command(command: str) -> None:
    """What shapes an answer may stand on either side; behind, it is said later and counts."""
    given = ("--max-tokens", "2", "--temperature", "1", "--seed", "3", "--padding", "off")
    wanted = Options(max_tokens=2, temperature=1.0, seed=3, padding="off")
    assert answer_options(parse_arguments([*given, command])) == wanted
    assert answer_options(parse_arguments([command, *given])) == wanted
    both = parse_arguments(["--seed", "7", "--max-tokens", "2", command, "--seed", "8"])
    assert (both.seed, both.max_tokens) == (8, 2)
    assert answer_options(parse_arguments([command])) == answer_options(parse_arguments([]))


def test_what_follows_an_option_of_the_answer_is_not_the_question() -> None:
    """Behind `ask`, an option's value is the option's; the question may stand on either side."""
    options = parse_arguments(["ask", "--max-tokens", "2", "--file", "f", "x"])
    assert (options.max_tokens, options.question) == (2, "x")
    options = parse_arguments(["ask", "hi", "--temperature", "1", "--raw"])
    assert (options.temperature, options.question, options.raw) == (1.0, "hi", True)
    assert parse_arguments(["--raw", "chat"]).raw
    assert not parse_arguments(["chat"]).raw


@pytest.mark.parametrize("arguments", [["--max-tokens", "0", "ask"], ["ask", "--max-tokens", "0"]])
def test_a_value_out_of_range_names_its_option(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The option is called as it was typed, wherever it stood, and the exit code is 2."""
    with pytest.raises(SystemExit) as caught:
        parse_arguments(arguments)
    assert caught.value.code == 2
    assert "error: --max-tokens is not 1 to" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_them(command: str) -> None:
    """`ask --help` and the like show what shapes an answer."""
    (commands,) = (each for each in make_parser()._actions if each.dest == "command")
    assert isinstance(commands.choices, dict)
    assert "--temperature T" in commands.choices[command].format_help()
