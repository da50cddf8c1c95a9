"""
Contender: our engine through the whole private path.

Chatbot, parent and enclave as a deployment has them, with the twin for AWS: each question is
sealed in a conversation of its own, so KMS makes and opens its keys; each answer is opened frame
by frame and its receipt verified. Sessions are verified before, as `bin/chat` does it.
"""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from app.chatbot.session.session import Session
from app.protocol.question import Options, Padding
from benchmarks.engine.contender import Answers, Prompt, run_together, serve
from benchmarks.engine.host import Desk
from benchmarks.engine.shapes import MOST_ASKERS


class _Asker:
    """One asker's thread: asks one question and reads the whole answer."""

    def __init__(self, session: Session, text: str, options: Options) -> None:
        self._session = session
        self._text = text
        self._options = options
        self.first: float = 0
        self.tokens = 0

    def run(self) -> None:
        """Ask, read to the end, and count by the receipt."""
        self._session.new_conversation()
        for _ in self._session.ask(self._text, self._options):
            pass
        evidence = self._session.evidence
        if evidence is None or evidence.receipt.finish == "error":
            raise RuntimeError("an answer did not come whole")
        self.first = evidence.first_text_seconds
        self.tokens = evidence.receipt.completion_tokens


def ask(
    sessions: Sequence[Session], prompts: Sequence[Prompt], new_tokens: int, padding: Padding
) -> Answers:
    """Have an asker's thread for each of *prompts* ask it in a session of its own."""
    options = Options(max_tokens=new_tokens, padding=padding)
    askers = [
        _Asker(session, prompt.text, options)
        for session, prompt in zip(sessions, prompts, strict=False)
    ]
    started, ended = run_together([asker.run for asker in askers])
    return Answers(ended - started, [asker.first for asker in askers], [a.tokens for a in askers])


def main() -> None:
    """Connect and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the running twin's")
    parser.add_argument("--padding", choices=("off", "constant"), required=True)
    parser.add_argument("--pid", type=int, required=True, help="the enclave's")
    options = parser.parse_args()
    desk = Desk(options.folder)
    sessions = [desk.connect() for _ in range(MOST_ASKERS)]
    serve(
        lambda prompts, new_tokens: ask(sessions, prompts, new_tokens, options.padding),
        versions={"openvino": version("openvino")},
        pids=[options.pid],
    )


if __name__ == "__main__":
    main()
