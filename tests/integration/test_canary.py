import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from app.protocol import cbor
from local.twin.twin import Twin, run_twin
from tests.integration.canary import Canaries, family, fingerprint, open_files, spell
from tests.integration.canary_stage import CODES, OPEN, STATUSES, Stage

HOLDER: Final = (
    "import sys, time; print(flush=True); held = sys.stdin.buffer.read(); print(flush=True); "
    "time.sleep(60)"
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Everything asked, everything failed; nothing searched yet but memory, which goes by."""
    folder = tmp_path_factory.mktemp("canary")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "TMPDIR"):  # whatever a process drops there is searched, too
            (folder / name).mkdir()
            patch.setenv(name, str(folder / name))
        with run_twin(folder / "twin") as twin:
            stage = Stage(
                twin,
                twin.connect(),
                folder,
                lambda: _failing_nsm(twin),
                holding_nsm=lambda: _holding_nsm(twin),
            )
            stage.perform(patch)
            yield stage


@contextmanager
def _failing_nsm(twin: Twin) -> Iterator[None]:
    """Have the software NSM answer everything with an error."""
    refuse = cbor.encode({"Error": "InternalError"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin.nsm, "exchange", lambda _: refuse)
        yield


@contextmanager
def _holding_nsm(twin: Twin) -> Iterator[None]:
    """Have the software NSM keep everyone waiting."""
    released, answer = threading.Event(), twin.nsm.exchange

    def hold(request: bytes) -> bytes:
        released.wait()
        return answer(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin.nsm, "exchange", hold)
        yield
    released.set()


@pytest.mark.parametrize("name", CODES)
def test_every_error_was_forced(stage: Stage, name: str) -> None:
    """Each way of failing was gone, and ended with its documented code."""
    assert stage.codes[name] == stage.differs.get(name, CODES[name])


@pytest.mark.parametrize("name", STATUSES)
def test_every_refusal_was_forced(stage: Stage, name: str) -> None:
    """Each refusal by the parent was made, with its documented status."""
    assert stage.statuses[name] == stage.differs.get(name, STATUSES[name])


def test_every_secret_is_searched_for(stage: Stage) -> None:
    """No field and no key that the asker's side knows was forgotten."""
    assert stage.secrets.names == {
        "text of a question",
        "answer",
        "the asker's secret key",
        "the chatbot's secret key",
        "the chatbot's session token",
        "the enclave's secret key",
        "the enclave's session token",
        "question data key",
        "key of an envelope",
        "answer data key",
        "answer secret",
        "key of an answer",
        "plaintext of KMS",
    }


def test_no_secret_in_files(stage: Stage) -> None:
    """Logs, settings, what crossed the parent, KMS's audit trail, temporary files: nothing."""
    folder = stage.twin.folder
    asker = {folder / "aws.config": "the asker's own credentials, on the asker's machine"}
    assert stage.secrets.find_in_files(stage.folder, but={**asker, **stage.excused}) == {}
    for party in (stage.twin.enclave, stage.twin.parent):
        assert party.log.is_relative_to(stage.folder)
        assert party.log.stat().st_size


def test_no_secret_in_open_files(stage: Stage) -> None:
    """Nor is one in what the parent's processes write to elsewhere, deleted files included."""
    files = [file for pid in family(stage.twin.parent.pid) for file in open_files(pid)]
    assert str(stage.twin.parent.log) in dict(files)
    assert [name for name, data in files if stage.secrets.find(data)] == []


def test_no_secret_in_the_parents_memory(stage: Stage) -> None:
    """Neither master nor worker of gunicorn ever holds one, in mid-answer or afterwards."""
    assert set(stage.leaks_in_memory) == {
        "before the first question",
        "in mid-answer",
        "after an answer",
        "after all of these",
        "without an enclave",
    }
    assert not any(stage.leaks_in_memory.values())


def test_no_secret_in_http(stage: Stage) -> None:
    """No header or body that the parent sent has one, whatever the question was."""
    assert set(stage.answers) == set(STATUSES)
    leaks = {name: stage.secrets.find(got) for name, got in stage.answers.items()}
    assert not any(leaks.values())


def test_no_secret_in_arguments_or_environment(stage: Stage) -> None:
    """No process of enclave or parent was started with a secret."""
    assert len([name for name in stage.processes if name.endswith("cmdline")]) == 3
    assert not any(stage.secrets.find(text) for text in stage.processes.values())
    assert not any(b"AWS_" in text for text in stage.processes.values())


def test_no_secret_in_what_the_chatbot_says_of_errors(stage: Stage) -> None:
    """Messages and advice, which end up in terminals and bug reports, have none."""
    assert len(stage.sayings) > 2 * len(CODES)
    assert not stage.secrets.find("\n".join(stage.sayings).encode())


def test_what_is_sent_in_clear_is_not_repeated(stage: Stage) -> None:
    """Text in paths, queries, methods, headers and bodies is in no log, metric or answer."""
    logs = (stage.twin.folder / "logs").iterdir()
    texts = [path.read_bytes() for path in logs] + list(stage.answers.values())
    texts += ["\n".join(stage.sayings).encode()]
    assert not any(stage.in_clear.find(text) for text in texts)
    assert not any(OPEN.upper().encode()[:20] in text for text in texts)


def test_logs_have_only_names_and_numbers(stage: Stage) -> None:
    """Each line that the enclave logs is an event from the list with numbers."""
    lines = stage.twin.enclave.log.read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{") or not stage.console]
    assert {event["event"] for event in events} >= {"started", "answered", "failed", "hung_up"}
    assert "unexpected" not in {event["event"] for event in events}
    for event in events:
        assert all(isinstance(value, int) for name, value in event.items() if name != "event")


def test_search_finds_what_the_parent_does_hold(stage: Stage) -> None:
    """The search of its memory works: half of a body is found while the rest is awaited."""
    assert stage.held_by_parent


@pytest.mark.parametrize("spelling", [form for form, _ in spell(b"any/secret")])
def test_search_finds_every_spelling(tmp_path: Path, spelling: str) -> None:
    """A secret planted in another process's memory or in a file is found, however spelled."""
    secret = os.urandom(9).hex() + "/?"
    planted = dict(spell(secret.encode()))[spelling]
    canaries = Canaries()
    canaries.add("planted", secret)
    (tmp_path / "file").write_bytes(b"before" + planted + b"after")
    assert canaries.find_in_files(tmp_path, but={}).keys() == {"file"}
    with subprocess.Popen(
        (sys.executable, "-c", HOLDER), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdout.readline()
            before = fingerprint(child.pid)
            child.stdin.write(planted)
            child.stdin.close()
            child.stdout.readline()
            found = [canaries.find_in_memory(child.pid, but=but) for but in (frozenset(), before)]
        finally:
            child.kill()
    assert found == [{child.pid: {f"planted {spelling}"}}] * 2


@pytest.mark.parametrize("alignment", range(3))
def test_search_finds_base64_among_other_bytes(alignment: int) -> None:
    """Base64 of a secret is found whatever was encoded before and after it."""
    secret = os.urandom(32)
    canaries = Canaries()
    canaries.add("planted", secret)
    for after in range(3):
        assert canaries.find(b64encode(os.urandom(alignment) + secret + os.urandom(after)))
