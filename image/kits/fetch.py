"""
Fetching the `aws` boot kit: Amazon's four boot files from Amazon's repository, by git.

git names a file by its content, and refuses SHA-1 collisions that are known to be possible. A tag
may move, so each file must be on the list in `image/kits/aws.json` all the same.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.debian.archive import run
from image.errors import ImageError
from image.kits.aws import COPY, FILES, record_kit, require_listed

REPOSITORY: Final = "https://github.com/aws/aws-nitro-enclaves-cli"
TAG: Final = "v1.5.0"
_FOLDER: Final = "blobs/x86_64"
_GIT: Final = ("git", "-c", "core.autocrlf=false", "-c", "core.askPass=true")  # nobody is asked
# The one commit, and of its files those that are checked out.
_CLONE: Final = ("clone", "--quiet", "--depth=1", "--filter=blob:none", "--no-checkout")

Note = Callable[[str], None]


def fetch_kit(target: Path, *, note: Note, repository: str = REPOSITORY) -> None:
    """
    Fetch the four files to the folder *target*, and record the SHA-256 of each.

    Raises:
        ImageError: git is not here or fails, or a file is not on the list: nothing is kept then.
    """
    note(f"fetching Amazon's boot files, version {TAG[1:]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kit-") as place:
        clone = Path(place) / "clone"
        paths = [f"{_FOLDER}/{name}" for name in FILES]
        try:
            run((*_GIT, *_CLONE, f"--branch={TAG}", "--", repository, str(clone)))
            run((*_GIT, "checkout", "--quiet", TAG, "--", *paths), cwd=clone)
        except ImageError as error:
            raise ImageError(f"git does not give the aws boot kit ({error}): {COPY}") from None
        require_listed(clone / _FOLDER)
        target.mkdir(exist_ok=True)
        for name in FILES:
            shutil.copyfile(clone / _FOLDER / name, target / name)
    record_kit(target)
