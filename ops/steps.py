"""
The steps of a guided command: shown before it starts, named while it goes on, and named when one
fails, with what to do next.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from app.chatbot.console import Terminal
from app.chatbot.errors import SettingsError
from app.protocol.errors import ConfigError
from ops.aws import AwsError
from ops.child import ChildError

_WIDTH: Final = 13


class RefusedError(Exception):
    """Nothing was changed; the message says why and what to do."""


class StepError(Exception):
    """A step failed; the message says which, why, and what to do next."""


@dataclass(frozen=True, slots=True)
class Step:
    """
    One step.

    Attributes:
        does: What it does, or that it is done, as the plan shows it.

        minutes: At most, roughly; empty for none to speak of.

        next: What to do when it has failed.
    """

    name: str
    does: str
    minutes: str
    next: str


class Steps:
    """The steps of one run, in their order."""

    def __init__(self, steps: Sequence[Step], terminal: Terminal) -> None:
        self._steps = {step.name: (number, step) for number, step in enumerate(steps, 1)}
        self._terminal = terminal

    def show(self) -> None:
        """Show all of them, before the first."""
        for number, step in self._steps.values():
            minutes = f"  ({step.minutes} min)" if step.minutes else ""
            self._terminal.note(f"{number:>3}  {step.name:{_WIDTH}} {step.does}{minutes}")

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """
        Say that the step *name* begins.

        Raises:
            StepError: It failed.
        """
        number, step = self._steps[name]
        place = f"step {number} of {len(self._steps)}, {name}"
        self._terminal.note(f"\n-- {place}")
        try:
            yield
        except SettingsError:
            raise  # of this machine's settings or login, whatever the step
        except (ConfigError, RefusedError, ChildError, AwsError) as error:
            raise StepError(f"{error}\n  failed at {place}. Next: {step.next}") from None
