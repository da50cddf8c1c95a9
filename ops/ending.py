"""
The ending of a command that changes a deployment: its exit code, and what it says last.
"""

from collections.abc import Callable
from typing import Final

from app.chatbot.console import Terminal
from app.chatbot.errors import SettingsError
from app.protocol.errors import ConfigError
from ops.aws import AwsError
from ops.child import ChildError
from ops.steps import RefusedError, StepError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 130


def run_to_end(name: str, command: Callable[[], int], terminal: Terminal, *, again: str) -> int:
    """
    Run *command* of bin/*name* and give its exit code, or that of how it failed.

    Args:
        again: What running it again does, after Ctrl-C.
    """
    try:
        return command()
    except SettingsError as error:
        terminal.note(f"{name}: {error}")
        return EXIT_USAGE
    except (ConfigError, RefusedError, StepError, ChildError, AwsError) as error:
        terminal.note(f"{name}: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        terminal.note(
            f"stopped; CloudFormation goes on with what it has begun: bin/{name} again, once it is "
            f"done, {again}"
        )
        return EXIT_STOPPED
