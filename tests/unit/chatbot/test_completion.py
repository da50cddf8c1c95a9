import os
import re
import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest

from app.chatbot.arguments import make_parser
from app.chatbot.completion import Shell, make_script

SHOW = """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_enclave_llm
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(*words: str) -> set[str]:
    """Give what bash offers for the last of *words*, as its user would see it."""
    quoted = " ".join(f"'{word}'" for word in ("chat", *words))
    script = make_script(make_parser(), "bash") + SHOW.format(words=quoted)
    command = ("bash", "--norc", "-uc", script)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_commands_and_options() -> None:
    """At first the commands are offered, and what all of them take."""
    offered = complete("")
    assert {"ask", "chat", "web", "serve", "read", "releases", "--stack", "--help"} <= offered
    assert complete("--se") == {"--seed"}


def test_a_commands_own() -> None:
    """After a command, what that one takes; after its own commands, what those do."""
    assert {"--port", "--socket", "--token-file"} <= complete("serve", "")
    assert complete("--padding", "off", "serve", "--s") == {"--socket", "--seed"}
    assert complete("releases", "i") == {"import"}
    assert "--yes" in complete("releases", "import", "-")
    assert complete("completion", "") >= {"bash", "zsh", "fish"}


def test_values() -> None:
    """An option of few values has them; one of any value leaves it to the shell, for files."""
    assert complete("--padding", "") == {"constant", "off"}
    assert complete("--config", "") == set()
    assert "-o default" in make_script(make_parser(), "bash")


@pytest.mark.parametrize(
    ("shell", "checking"), [("bash", ("-n",)), ("zsh", ("-n",)), ("fish", ("--no-execute",))]
)
def test_the_shell_can_read_it(shell: Shell, checking: tuple[str, ...]) -> None:
    """Each script is one of its shell's."""
    script = make_script(make_parser(), shell)
    if shutil.which(shell) is None:
        pytest.skip(f"!! NO {shell} ON THIS MACHINE: its script was not read by it")
    subprocess.run((shell, *checking), input=script, text=True, check=True)


def test_fish_has_every_option_once_where_it_belongs() -> None:
    """In fish each word stands with its help, and options of a command after that alone."""
    lines = make_script(make_parser(), "fish").splitlines()
    assert all(line.startswith("complete -c chat ") for line in lines)
    (socket,) = [line for line in lines if "-l socket" in line]
    assert "__fish_seen_subcommand_from serve" in socket
    (serve,) = [line for line in lines if re.search(r"-a serve\b", line)]
    assert "not __fish_seen_subcommand_from" in serve
    padding = [line for line in lines if "-l padding" in line]
    assert len({line.partition(" -l ")[0] for line in padding}) == len(padding) == 5
    assert all("-x -a 'constant off'" in line for line in padding)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("chat se", {"serve"}),
        ("chat serve --so", {"--socket"}),
        ("chat --padding ", {"constant", "off"}),
        ("chat releases i", {"import"}),
        ("chat completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_fish_offers_them(typed: str, offered: set[str]) -> None:
    """What fish itself offers is what bash does."""
    if shutil.which("fish") is None:
        pytest.skip("!! NO fish ON THIS MACHINE: it was not asked what it offers")
    script = make_script(make_parser(), "fish") + f"complete -C '{typed}'\n"
    command = ("fish", "--no-config")
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert {line.partition("\t")[0] for line in done.stdout.splitlines()} == offered


def test_zsh_completes_what_is_typed(tmp_path: Path) -> None:
    """In zsh, as its user types: Tab completes an option of a command, and its values."""
    if shutil.which("zsh") is None:
        pytest.skip("!! NO zsh ON THIS MACHINE: nothing was typed in it")
    (tmp_path / "script").write_text(make_script(make_parser(), "zsh"))
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "dumb"}
    zsh = pexpect.spawn("zsh", ["-f", "-i"], env=environment, encoding="utf-8", timeout=60)
    try:
        zsh.sendline(f"source {tmp_path / 'script'}; echo rea''dy")
        zsh.expect_exact("ready")
        for typed, completed in (("serve --so", "serve --socket "), ("--pad", "--padding ")):
            zsh.send(f"chat {typed}\t")
            zsh.expect_exact(f"chat {completed}")
            zsh.send("\x15")  # forget the line
    finally:
        zsh.close(force=True)
