"""
The demo: asks one question through the whole pipeline on this machine, and shows what each saw.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from app.chatbot.answer_arguments import (
    add_answer_arguments,
    answer_options,
    require_answer_options,
)
from app.chatbot.console import Terminal, fail, leave_quietly, show_banner
from app.chatbot.evidence.words import describe_receipt, to_json
from app.chatbot.openai.command import serve_sessions
from app.chatbot.session.session import Session
from app.chatbot.terminal.conversation import converse
from app.chatbot.terminal.showing import showing_answer
from app.chatbot.web.command import add_web_arguments, serve_page
from app.protocol.errors import AppError, ConfigError, UnavailableError
from app.protocol.package import MANIFEST_NAME
from app.protocol.question import Options
from local.cheats.cheats import describe_cheats, find_cheat
from local.cheats.report import count_words, show_cheat
from local.demo_model.suggestions import DEMO_QUESTION, SUGGESTIONS
from local.processes.errors import TwinError
from local.processes.supervise import ROOT
from local.twin.parties import PARENT_PROGRAM
from local.twin.twin import DEMO_WEIGHTS, Twin, run_twin

_FOLDER: Final = ROOT / ".twin" / "demo"
_IMAGE: Final = ROOT / "build" / "enclave.eif"
_SHOWN_BYTES: Final = 24
_EPILOG: Final = """\
Everything runs on this machine: a KMS and an STS that enforce the key policy of a deployment, a
software NSM, and the enclave and its server as processes of their own. No AWS account is needed,
and nothing leaves the machine. The demo model gives the answer. This project trained it on
help-desk text of its own; it is small and knows little else.

With --cheat the server is dishonest. The asker's program is the product's own, is not told, and
finds out. --cheat works with --web, --interactive, --serve and --json, too.

exit codes: 0 answered, 1 failed, 2 wrong usage, 3 the enclave is not trusted, 4 the answer is not
whole, 130 stopped by Ctrl-C; with --cheat the same, as bin/chat would give them
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; give its exit code."""
    options = _parse(arguments)
    terminal = Terminal()
    try:
        if options.cheat == "list":
            terminal.piece("\n".join(describe_cheats()) + "\n")
            return 0
        return _run(options, terminal)
    except UnavailableError as error:
        told = error if isinstance(error, TwinError) else _without_deployment(error, options.folder)
        return fail(told, terminal, as_json=options.json, name="demo")
    except AppError as error:
        return fail(error, terminal, as_json=options.json, name="demo")
    except KeyboardInterrupt:
        terminal.note("stopped")
        return 130
    except BrokenPipeError:
        return leave_quietly()
    except OSError as error:  # of this machine: a full disk, no free port
        terminal.note(f"demo: {error.filename or options.folder}: {error.strerror or error}")
        return 1


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    """Start the twin, do what was asked for, and stop it; give the exit code."""
    started = time.monotonic()

    def note(step: str) -> None:
        terminal.note(f"[{time.monotonic() - started:4.1f} s] {step}")

    wanted = answer_options(options)
    cheat = find_cheat(options.cheat or "honest")
    with run_twin(
        options.folder,
        weights=options.weights,
        image=(options.image or _IMAGE) if options.enclave == "qemu" else None,
        console=options.console,
        note=note,
        parent_program=cheat.parent_program if options.cheat else PARENT_PROGRAM,
    ) as twin:
        if options.cheat:
            cheat.begin(twin)
            note(cheat.tries)
        if options.web:
            _serve_page(twin, wanted, options, terminal)
            return 0
        note("verifying the enclave")
        if options.serve:
            return serve_sessions(twin.connect, wanted, terminal, port=options.port)
        if options.cheat and not (options.interactive or options.json):
            return show_cheat(twin, options.question, wanted, terminal)
        with twin.connect() as session:
            ready = time.monotonic() - started
            if options.interactive:
                converse(session, wanted, terminal)
            elif options.json:
                terminal.piece(json.dumps(_ask_as_json(twin, session, options, ready)) + "\n")
            else:
                _show(twin, session, options.question, wanted, terminal)
    return 0


def _without_deployment(error: UnavailableError, folder: Path) -> ConfigError:
    """Say of a part of the twin that does not answer what helps here: no deployment is down."""
    return ConfigError(f"the twin does not answer ({error}): look into {_shown(folder)}/logs")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; refuse, before anything is started, what could only fail later."""
    parser = _parser()
    options = parser.parse_args(arguments)
    require_answer_options(options, parser)
    _require_together(options, parser)
    if options.question is not None and not options.question.strip():
        parser.error("--question is empty: ask something, or leave it out")
    options.question = options.question or DEMO_QUESTION
    if options.cheat not in {None, "list"}:
        try:
            find_cheat(options.cheat)
        except ConfigError as error:
            parser.error(str(error))
    return options


def _require_together(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program where an option would be ignored, or another is missing."""
    if options.question and (options.interactive or options.web or options.serve):
        parser.error("--question is asked at once: leave it out, and ask when asked")
    if options.port and not (options.web or options.serve):
        parser.error("--port is for --web and --serve: name one of them")
    if options.open and not options.web:
        parser.error("--open is for --web: name that, too")
    if options.enclave != "qemu" and (options.image or options.console):
        parser.error("--image and --console are for --enclave qemu: name that, too")
    if options.enclave == "qemu" and options.cheat:
        parser.error("--cheat runs with the enclave as a process: leave out --enclave qemu")
    if not (options.weights / MANIFEST_NAME).is_file():
        parser.error(
            f"--weights {_shown(options.weights)} has no {MANIFEST_NAME}: name the folder of a "
            "weights package (docs/models.md)"
        )
    image = options.image or _IMAGE
    if options.enclave == "qemu" and not image.is_file():
        parser.error(
            f"{_shown(image)} is not there: make it with bin/build-eif --kit nitro "
            "--weights local/demo_model/weights"
        )


class _Parser(argparse.ArgumentParser):
    """Says where a question stands to whoever gives one alone."""

    def error(self, message: str) -> NoReturn:
        """End with *message*."""
        given = message.removeprefix("unrecognized arguments: ")
        alone = given != message and not given.startswith("-")
        super().error(f"{message}; a question stands behind --question" if alone else message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bin/demo",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--question",
        help=f'default: "{DEMO_QUESTION}"; every user of this machine sees it in the process list, '
        "which is for the demo alone: bin/chat has you type or pipe a question",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument("--interactive", action="store_true", help="talk instead, in this terminal")
    how.add_argument("--web", action="store_true", help="talk in your browser, with the proof")
    how.add_argument(
        "--serve", action="store_true", help="an OpenAI-compatible API instead (docs/clients.md)"
    )
    parser.add_argument(
        "--cheat",
        metavar="NAME",
        help="run a server that cheats, and see it refused; `--cheat list` names what it can try",
    )
    add_web_arguments(parser)  # --port is for --serve, too
    parser.add_argument(
        "--enclave",
        choices=("process", "qemu"),
        default="process",
        help="run the enclave as a process, or its built image in an emulated enclave: slower, "
        "and nearer to the real thing (docs/emulated-enclave.md)",
    )
    parser.add_argument("--image", type=Path, help="for qemu; default: build/enclave.eif")
    parser.add_argument(
        "--weights",
        type=Path,
        default=DEMO_WEIGHTS,
        help="the package that the enclave runs; for qemu the one that --image was built with",
    )
    parser.add_argument("--console", action="store_true", help="for qemu: show its boot console")
    parser.add_argument(
        "--folder",
        type=Path,
        default=_FOLDER,
        help="where its logs go; emptied first if a twin made it",
    )
    add_answer_arguments(parser)
    return parser


def _serve_page(
    twin: Twin, wanted: Options, options: argparse.Namespace, terminal: Terminal
) -> None:
    serve_page(
        twin.connect,
        wanted,
        terminal,
        port=options.port,
        browser=options.open,
        suggestions=SUGGESTIONS,
    )


def _show(
    twin: Twin, session: Session, question: str, options: Options, terminal: Terminal
) -> None:
    """Show proof, question, answer and receipt, then what the others saw."""
    show_banner(session, terminal)
    terminal.note(f"\n> {question}")
    with showing_answer(terminal) as show:
        for piece in session.ask(question, options):
            show(piece)
    if session.evidence:
        terminal.note("")
        terminal.tell(describe_receipt(session.evidence))
    for line in describe_others(twin, question):
        terminal.note(line)


def describe_others(twin: Twin, question: str) -> Iterator[str]:
    """Say what the server, which is the parent, and KMS saw of the last question."""
    request, answer = last_exchange(twin)
    found = count_words(question, request + answer)
    yield "\nWhat the server saw"
    yield f"  request {len(request):7,} bytes  {request[:_SHOWN_BYTES].hex(' ')} …"
    yield f"  answer  {len(answer):7,} bytes  {answer[:_SHOWN_BYTES].hex(' ')} …"
    yield f"  words of the question in either: {found}"
    yield "What KMS was asked"
    for event in twin.aws.audit.events:
        if event.key_arn:
            purpose = (event.encryption_context or {}).get("purpose", "-")
            with_document = f"enclave, pcr0 {event.pcr0[:8]}…" if event.pcr0 else "no document"
            outcome = event.error_code or "allowed"
            yield f"  {event.event_name:16} {purpose:9} {with_document:24} {outcome}"
    shown = _shown(twin.folder)
    yield f"Logs: {shown}/logs; the bytes that crossed the server: {shown}/parent_saw"
    yield ""
    yield "Next: bin/demo --cheat other-image shows a dishonest server refused; bin/demo --web is a"
    yield "page in your browser; README.md says who can read what, and how to deploy."


def _shown(path: Path) -> Path:
    """Give *path* as people name it who stand in the project's folder."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def last_exchange(twin: Twin) -> tuple[bytes, bytes]:
    """Give request and answer of the last question, as they crossed the parent."""
    request = max(twin.parent_saw.glob("*.request"))
    return request.read_bytes(), request.with_suffix(".answer").read_bytes()


def _ask_as_json(
    twin: Twin, session: Session, options: argparse.Namespace, ready: float
) -> dict[str, object]:
    answer = "".join(session.ask(options.question, answer_options(options)))
    assert session.evidence is not None  # noqa: S101 - the iterator ended without raising
    shown = to_json(options.question, answer, session.evidence)
    request, _ = last_exchange(twin)
    timings = shown["timings"]
    assert isinstance(timings, dict)  # noqa: S101 - to_json makes it so
    return shown | {
        "parent_saw": base64.b64encode(request).decode(),
        "parent_saw_equals_sent": request == session.evidence.sealed_request,
        "timings": {"ready_seconds": round(ready, 3), **timings},
        "logs": str(twin.folder / "logs"),
    }


if __name__ == "__main__":
    sys.exit(main())
