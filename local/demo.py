"""
The demo: one question through the whole pipeline on this machine, and what each party saw of it.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from app.chatbot.console import Terminal, fail, leave_quietly, show_banner
from app.chatbot.evidence.words import describe_receipt, to_json
from app.chatbot.main import add_answer_arguments, answer_options, require_answer_options
from app.chatbot.openai.command import serve_sessions
from app.chatbot.session.session import Session
from app.chatbot.terminal.conversation import converse
from app.chatbot.terminal.margin import showing_answer
from app.chatbot.web.command import add_web_arguments, serve_page
from app.protocol.errors import AppError
from app.protocol.question import Options
from local.processes.supervise import ROOT
from local.twin.twin import Twin, run_twin

QUESTION: Final = "I can't access my email. My user name is jdoe."
_SUGGESTIONS: Final = (
    QUESTION,
    "How do I enrol in the dental plan?",
    "How do I book leave?",
)
_FOLDER: Final = ROOT / ".twin" / "demo"
_IMAGE: Final = ROOT / "build" / "enclave.eif"
_SHOWN_BYTES: Final = 24
_EPILOG: Final = """\
All parties run on this machine: KMS and STS that enforce the synthesised key policy, a software
NSM, the enclave and the parent as processes of their own. No AWS account is needed, and nothing
leaves the machine. The answer comes from the demo model, which this project trained on its own
help-desk text; it is small and knows little else.

exit codes: 0 answered, 1 failed, 2 wrong usage, 3 not trusted, 4 incomplete
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; give its exit code."""
    options = _parse(arguments)
    terminal = Terminal()
    started = time.monotonic()

    def note(step: str) -> None:
        terminal.note(f"[{time.monotonic() - started:4.1f} s] {step}")

    try:
        wanted = answer_options(options)
        image = (options.image or _IMAGE) if options.enclave == "qemu" else None
        with run_twin(options.folder, image=image, console=options.console, note=note) as twin:
            if options.web:
                _serve_page(twin, wanted, options, terminal)
                return 0
            note("verifying the enclave")
            if options.serve:
                return serve_sessions(twin.connect, wanted, terminal, port=options.port)
            session = twin.connect()
            ready = time.monotonic() - started
            if options.interactive:
                converse(session, wanted, terminal)
            elif options.json:
                terminal.piece(json.dumps(_ask_as_json(twin, session, options, ready)) + "\n")
            else:
                _show(twin, session, options.question, wanted, terminal)
            session.close()
        return 0
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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse *arguments*; what is wrong with them, or would be ignored, ends the program at once."""
    parser = _parser()
    options = parser.parse_args(arguments)
    require_answer_options(options, parser)
    if options.question is not None and not options.question.strip():
        parser.error("--question is empty")
    if options.question and (options.interactive or options.web or options.serve):
        parser.error("--question is asked at once: leave it out, and ask when asked")
    if options.port and not (options.web or options.serve):
        parser.error("--port is of --web or --serve: name one of them")
    if options.open and not options.web:
        parser.error("--open is of --web: name that, too")
    if options.enclave != "qemu" and (options.image or options.console):
        parser.error("--image and --console are of --enclave qemu: name that, too")
    options.question = options.question or QUESTION
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/demo",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--question",
        help=f'default: "{QUESTION}"; every user of this machine sees it in the process list, '
        "which is for the demo alone: bin/chat has you type or pipe a question",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument("--interactive", action="store_true", help="talk instead")
    how.add_argument("--web", action="store_true", help="talk in your browser, with the proof")
    how.add_argument(
        "--serve", action="store_true", help="an OpenAI-compatible API instead (docs/clients.md)"
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
    parser.add_argument("--console", action="store_true", help="for qemu: show its boot console")
    parser.add_argument(
        "--folder", type=Path, default=_FOLDER, help="for logs; emptied if a twin's"
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
        suggestions=_SUGGESTIONS,
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
    """Say what parent and KMS saw of the last question."""
    request, answer = last_exchange(twin)
    found = sum(word.encode() in request + answer for word in question.split() if len(word) > 3)
    yield "\nWhat the parent saw"
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
    folder = twin.folder
    shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    yield f"Logs: {shown}/logs; the bytes that crossed the parent: {shown}/parent_saw"


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
