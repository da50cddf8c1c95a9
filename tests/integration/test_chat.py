"""`bin/chat` as a person uses it, on the running twin."""

import io
import json
import re
import subprocess
from pathlib import Path

import pytest

from app.chatbot import main as program
from app.chatbot.arguments import make_parser
from app.protocol.errors import AppError
from local.processes.supervise import ROOT
from local.twin.twin import Twin
from tests.files import make_pdf

QUESTION = "How do I book leave?"


class Chat:
    """The program with the twin's trust and credentials in place of the asker's own."""

    def __init__(self, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
        self.twin = twin
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(program, "production_trust", lambda _: twin.trust)
        monkeypatch.setattr(program, "open_aws", lambda *_: twin.asker)

    def run(self, *arguments: str, typed: str = "") -> int:
        self._monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        config = str(self.twin.folder / "chat.json")
        return program.main(["--config", config, "--padding", "off", *arguments])


@pytest.fixture
def chat(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> Chat:
    return Chat(twin, monkeypatch)


def test_ask_prints_the_answer_alone(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer goes to standard output, proof and receipt beside it, proof first."""
    assert chat.run("ask", QUESTION) == 0
    printed = capsys.readouterr()
    assert len(printed.out.strip().splitlines()) == 1
    assert printed.err.index("enclave   pcr0") < printed.err.index("receipt   verified")
    assert chat.twin.release.name in printed.err
    assert "the twin's root" in printed.err


def test_ask_reads_standard_input(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """`-` takes the question from a pipe."""
    assert chat.run("ask", "-", typed="I can't access my email.\n") == 0
    assert "password" in capsys.readouterr().out


def test_json_is_one_object(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints answer and proof as one object and nothing else."""
    assert chat.run("ask", "--json", QUESTION) == 0
    printed = capsys.readouterr()
    shown = json.loads(printed.out)
    assert shown["receipt_verified"] is True
    assert shown["kit"] == "process"
    assert printed.err == ""


FORM = {
    "type": "object",
    "properties": {"leave": {"enum": ["annual", "sick"]}, "paid": {"type": "boolean"}},
    "required": ["leave", "paid"],
    "additionalProperties": False,
}


def test_a_form_is_json_alone(
    chat: Chat, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With `--schema` standard output gets JSON that validates; proof and receipt stand beside."""
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    assert chat.run("ask", "--schema", f"{tmp_path}/form.json", "-", typed=QUESTION) == 0
    printed = capsys.readouterr()
    assert set(json.loads(printed.out)) == {"leave", "paid"}
    assert printed.err.index("enclave   pcr0") < printed.err.index("receipt   verified")


def test_a_form_is_filled_from_a_file(
    chat: Chat, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With `--file` and no question, it is filled with what the file says; nothing is typed."""
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    (tmp_path / "letter.md").write_text("I was ill on Monday. Jane Doe")
    files = ("--schema", f"{tmp_path}/form.json", "--file", f"{tmp_path}/letter.md")
    assert chat.run("ask", *files, typed="not this") == 0
    printed = capsys.readouterr()
    assert set(json.loads(printed.out)) == {"leave", "paid"}
    assert "letter.md" in printed.err


def test_a_form_that_is_cut_off_prints_nothing(
    chat: Chat, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What `--max-tokens` cuts is exit code 4, and nothing on standard output."""
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    asked = ("ask", "--schema", f"{tmp_path}/form.json", QUESTION)
    assert chat.run("--max-tokens", "3", *asked) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "was cut off" in printed.err.splitlines()[-1]


def test_a_schema_that_will_not_do_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its place is named, and what to do, before anybody is asked for anything."""
    monkeypatch.setattr(program, "open_aws", lambda *_: pytest.fail("AWS was looked for"))
    (tmp_path / "form.json").write_text('{"properties": {"a": {"not": {}}}}')
    assert program.main(["ask", "--schema", f"{tmp_path}/form.json", QUESTION]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (said,) = printed.err.splitlines()
    assert "#/properties/a/not: it is not served" in said
    assert "docs/structured.md" in said
    assert program.main(["ask", "--schema", "/nope.json", QUESTION]) == 2
    assert capsys.readouterr().err == (
        "chat: /nope.json cannot be read (No such file or directory): name the file of a JSON "
        "Schema by --schema\n"
    )


def test_kept_conversations_are_listed_and_deleted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It needs no passphrase, no enclave, and no AWS."""
    monkeypatch.setattr(program, "open_aws", lambda *_: pytest.fail("AWS was looked for"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert program.main(["conversations", "list"]) == 0
    assert "no conversation is kept" in capsys.readouterr().err
    folder = tmp_path / "enclave-llm" / "conversations"
    folder.mkdir(parents=True)
    (folder / "leave.conversation").write_bytes(b"enclave-llm conversation 1\n")
    assert program.main(["conversations", "list"]) == 0
    assert capsys.readouterr().out.startswith("leave ")
    assert program.main(["conversations", "delete", "leave"]) == 0
    assert program.main(["conversations", "delete", "leave"]) == 1


@pytest.mark.parametrize(
    "command", ["chat", "ask", "web", "serve", "read", "conversations", "releases"]
)
def test_each_command_s_help_teaches(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """What a command does is told in sentences, above what it takes."""
    with pytest.raises(SystemExit):
        program.main([command, "--help"])
    usage, told, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith("usage: ")
    assert len(told.split()) > 30
    assert told.rstrip().endswith(".")


def test_conversation_with_commands(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """Questions and commands in turn; the proof in full on demand; errors keep the session."""
    typed = f"/help\n{QUESTION}\n/proof\n\n/new\n{'x ' * 3000}\nAnd my email?\n/quit\nnever\n"
    assert chat.run(typed=typed) == 0
    printed = capsys.readouterr()
    assert printed.err.count("receipt   verified") == 2
    assert chat.twin.release.measurements.pcr1.hex() in printed.err
    assert "new conversation" in printed.err
    assert "the limit is 1,024" in printed.err
    assert "Ctrl-C" in printed.err
    assert "> " not in printed.out  # no prompt where nobody types


def test_a_question_about_a_document(
    chat: Chat, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What was read is shown before anything is sent; the answer is about it, and names it."""
    path = tmp_path / "letter.pdf"
    path.write_bytes(make_pdf(["I can't access my email.", "", "My user name is jdoe."]))
    arguments = ("ask", "--json", "--file", str(path), "--pages", "1-2", "What is this about?")
    assert chat.run(*arguments) == 0
    printed = capsys.readouterr()
    assert "letter.pdf: PDF, 2 of 3 pages, 24 characters; page 2: no text" in printed.err
    shown = json.loads(printed.out)
    assert shown["question"] == "What is this about?"
    assert shown["prompt_tokens"] > 50
    [file] = shown["files"]
    assert (file["name"], file["pages"], file["of"]) == ("letter.pdf", "1", 3)


def test_a_document_that_is_too_long(
    chat: Chat, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both numbers are told, and pages that fit are offered; they do fit."""
    path = tmp_path / "book.pdf"
    path.write_bytes(make_pdf(["My email does not work. " * 8] * 40))
    assert chat.run("ask", "--file", str(path), "What is this about?") == 1
    said = capsys.readouterr().err
    assert "probably too long" in said
    assert "the limit is 1,024" in said
    offered = re.search(r"book.pdf: pages (1-[0-9]+) would fit", said)
    assert offered
    arguments = ("--file", str(path), "--pages", offered[1], "What is this about?")
    assert chat.run("ask", *arguments) == 0


def test_a_file_that_cannot_be_read(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told before anything else is done: no enclave is verified, nothing sent."""
    assert chat.run("ask", "--file", "/nowhere.pdf", "What is this about?") == 1
    assert capsys.readouterr().err == (
        "chat: /nowhere.pdf cannot be opened: No such file or directory: check its name.\n"
    )


def test_end_of_input_ends_the_conversation(chat: Chat) -> None:
    """Ctrl-D, or the end of a pipe, leaves with success."""
    assert chat.run(typed="") == 0


def test_twins_releases_are_refused_by_the_product(
    twin: Twin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unbent program refuses the twin's list: its releases are of kit `process`."""
    monkeypatch.setattr(program, "open_aws", lambda *_: twin.asker)
    seen = len(list(twin.parent_saw.iterdir()))
    files = ("--config", str(twin.folder / "chat.json"))
    lists = ("--releases", str(twin.folder / "releases.json"))
    assert program.main([*files, *lists, "ask", QUESTION]) == 1
    assert "process" in capsys.readouterr().err
    assert len(list(twin.parent_saw.iterdir())) == seen


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--url", "http://127.0.0.1:9", "ask", QUESTION), 1, "Nobody answers"),
        (("--config", "/nowhere.json", "ask", QUESTION), 1, "no configuration"),
        (("--role-arn", "arn:aws:iam::111122223333:role/other", "ask", QUESTION), 1, "AWS refused"),
    ],
    ids=["unreachable", "configuration", "role"],
)
def test_failures_are_one_sentence(
    chat: Chat,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    """A failure is one line that says what to do, and an exit code."""
    assert chat.run(*arguments) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("chat: ")
    assert says in last


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--max-tokens", "0", "ask", QUESTION), "--max-tokens is not"),
        (("--temperature", "3", "ask", QUESTION), "temperature"),
        (("--seed", "-1"), "seed"),
        (("ask", " "), "the question is empty"),
        (("--tunnel", "ask", QUESTION), "--tunnel needs --stack"),
        (("serve", "--port", "65536"), "no port"),
        (("web", "--port", "-1"), "no port"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    says: str,
) -> None:
    """An option that is out of range ends with 2, as documented, and reads no file and no key."""
    monkeypatch.setattr(program, "open_aws", lambda *_: pytest.fail("AWS was looked for"))
    with pytest.raises(SystemExit) as ended:
        program.main(["--config", "/nowhere", "--releases", "/nowhere", *arguments])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_question_need_not_be_an_argument(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """Without QUESTION, `ask` reads standard input; --help says who sees a question given so."""
    assert chat.run("ask", typed="I can't access my email.\n") == 0
    assert "password" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        program.main(["ask", "--help"])
    assert "every user of this machine" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        program.main(["--help"])
    shown = capsys.readouterr().out
    examples, _, rest = shown.partition("A question on the command line")
    assert 'ask "' not in examples
    assert "process list" in rest


def test_failures_are_json_where_asked(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    """With `--json` a failure is an object, too."""
    assert chat.run("--url", "http://127.0.0.1:9", "ask", "--json", QUESTION) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "unavailable"


def test_untrusted_enclave_has_an_exit_code_of_its_own(
    chat: Chat, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An enclave that is not on the list ends with 3, and nothing was sent."""
    nobody = type(chat.twin.trust)(chat.twin.trust.root, "the twin's root", ())
    monkeypatch.setattr(program, "production_trust", lambda _: nobody)
    assert chat.run("ask", QUESTION) == 3
    assert "this question was not sent" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` shows examples, what is verified and the exit codes."""
    with pytest.raises(SystemExit) as raised:
        program.main(["--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert "exit codes:" in shown


def test_asking_needs_no_file_but_the_list(tmp_path: Path, twin: Twin) -> None:
    """All addresses can be given as options."""
    given = twin.config
    arguments = ("--url", given.url, "--key-arn", given.key_arn, "--role-arn", given.chat_role_arn)
    options = make_parser().parse_args([*arguments, "--config", str(tmp_path / "none"), "ask", "x"])
    try:
        config = program._config(options, twin.asker)
    except AppError as error:
        pytest.fail(str(error))
    assert config.key_arn == given.key_arn


def test_code_where_one_stands_is_not_run(tmp_path: Path) -> None:
    """`bin/chat` imports nothing from the current folder, which may be anybody's."""
    for name in ("boto3", "urllib3", "argparse", "app"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('POISONED')")
    for command in ("chat", "save-model"):
        done = subprocess.run(
            (str(ROOT / "bin" / command), "--help"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "POISONED" not in done.stdout + done.stderr
