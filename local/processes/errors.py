"""
The one error that the twin itself adds.
"""

from typing import ClassVar

from app.protocol.errors import ConfigError, UnavailableError


class TwinError(UnavailableError):
    """A party of the twin has ended, or is not ready in time; its own words say what to do."""

    code: ClassVar[str] = ConfigError.code  # whose advice is the message itself
