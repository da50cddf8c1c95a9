"""
A boot kit: what starts the application in an enclave, and all that differs between two of them.

`aws` is Amazon's kernel and init, proven on Nitro hardware; `debian` is Debian's kernel with an
init of our own, for the emulated enclave. The application ramdisk, and so PCR2, is the same under
both.
"""

from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError


@dataclass(frozen=True, slots=True)
class BootKit:
    """
    One boot kit.

    Attributes:
        name: As `releases.json` has it: "aws" or "debian".

        kernel: File, a bzImage.

        cmdline: The kernel's command line, printable ASCII without a newline at its end.

        ramdisk: File, the boot ramdisk: an uncompressed newc archive with the init.

    Raises:
        ImageError: The name or the command line is empty or no printable ASCII.
    """

    name: str
    kernel: Path
    cmdline: str
    ramdisk: Path

    def __post_init__(self) -> None:
        for field in ("name", "cmdline"):
            text = getattr(self, field)
            if not text or not text.isascii() or not text.isprintable():
                raise ImageError(f"boot kit's {field} is not printable ASCII: {text[:80]!r}")
