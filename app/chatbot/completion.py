"""
The command `completion`: a script with which a shell completes this program's words.

It is made from the parser, so it knows what `--help` does. The scripts start nothing.
"""

import argparse
import shlex
from collections.abc import Iterator
from typing import Final, Literal, get_args

from app.chatbot.name import PROGRAM

Shell = Literal["bash", "zsh", "fish"]
Places = dict[str, argparse.ArgumentParser]

_NAME: Final = PROGRAM.rpartition("/")[2]
_ZSH: Final = """\
autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
"""
# Where nothing of ours fits, such as after --config, the shell completes files.
_BASH: Final = """\
_enclave_llm() {{
    local now=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} place= words= word
    for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
        case "$place/$word" in
            {steps}) place="$place/$word" ;;
        esac
    done
    case "$before" in
{values}
        *)
            case "$place" in
{places}
            esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$now"))
}}
complete -o default -F _enclave_llm {name}
"""


def add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `completion` takes."""
    parser.description = (
        f'Print a script for your shell\'s start-up file: eval "$({_NAME} completion bash)", the '
        f"same for zsh, or {_NAME} completion fish | source."
    )
    parser.add_argument("shell", choices=get_args(Shell))


def make_script(parser: argparse.ArgumentParser, shell: Shell) -> str:
    """Give the script for *shell*."""
    places = dict(_find_places(parser, ""))
    if shell == "fish":
        return "".join(_fish_lines(places))
    return (_ZSH if shell == "zsh" else "") + _bash(places)


def _find_places(
    parser: argparse.ArgumentParser, place: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Give *parser* and those of its commands by where they stand, such as /releases/import."""
    yield place, parser
    for name, command in _commands(parser).items():
        yield from _find_places(command, f"{place}/{name}")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [each for each in parser._actions if each.help != argparse.SUPPRESS]  # noqa: SLF001 - argparse has no other list


def _commands(parser: argparse.ArgumentParser) -> Places:
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no other name
            return dict(action.choices)
    return {}


def _bash(places: Places) -> str:
    values: dict[str, list[str]] = {}
    for parser in places.values():
        for action in _actions(parser):
            if action.option_strings and action.nargs != 0:
                for option in action.option_strings:
                    values[option] = [str(choice) for choice in action.choices or ()]
    steps = " | ".join(f'"{place}"' for place in places if place)
    return _BASH.format(
        name=_NAME,
        steps=steps,
        values="\n".join(f'        {key}) words="{" ".join(values[key])}" ;;' for key in values),
        places="\n".join(
            f'                "{place}") words="{" ".join(_words(parser))}" ;;'
            for place, parser in places.items()
        ),
    )


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Give what may stand next: options, commands and choices."""
    for action in _actions(parser):
        yield from action.option_strings or map(str, action.choices or ())


def _fish_lines(places: Places) -> Iterator[str]:
    for place, parser in places.items():
        where = _fish_condition(place, _commands(parser))
        for action in _actions(parser):
            yield from (f"complete -c {_NAME} {where}{words}\n" for words in _fish_words(action))


def _fish_condition(place: str, commands: Places) -> str:
    """Say when a place is reached: all its words are there, and none that leads further."""
    tests = [f"__fish_seen_subcommand_from {word}" for word in place.split("/") if word]
    if commands:
        tests.append(f"not __fish_seen_subcommand_from {' '.join(commands)}")
    return f"-n {shlex.quote('; and '.join(tests))} " if tests else ""


def _fish_words(action: argparse.Action) -> Iterator[str]:
    told = f" -d {_fish_quote(action.help)}" if action.help else ""
    choices = _fish_quote(" ".join(map(str, action.choices or ())))
    if not action.option_strings:
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - it has no other name
            for choice in action._choices_actions:  # noqa: SLF001 - the only place of their help
                yield f"-f -a {choice.dest} -d {_fish_quote(choice.help or '')}"
        elif action.choices:
            yield f"-f -a {choices}"
        return
    long = [f"-l {option[2:]}" for option in action.option_strings if option.startswith("--")]
    short = [f"-s {option[1:]}" for option in action.option_strings if not option.startswith("--")]
    takes = "" if action.nargs == 0 else f" -x -a {choices}" if action.choices else " -r"
    yield " ".join([*short, *long]) + takes + told


def _fish_quote(text: str) -> str:
    """Quote as fish does: within single quotes, a backslash and a quote have one before them."""
    plain = text.replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"
