"""
Folders of links to the packages that a group locks, as they are installed here: quickly made.
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_LOCKED: Final = re.compile(r"^([a-z0-9._-]+)==", re.MULTILINE)


def link_packages(group: str, folder: Path) -> None:
    """Link the files of the packages that *group* locks, and that are installed, into *folder*."""
    names = set(_LOCKED.findall((ROOT / "requirements" / f"{group}.txt").read_text()))
    for name in sorted(names):
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # locked for other machines; if it is needed, its import fails
        for file in package.files or ():
            source, target = Path(str(package.locate_file(file))), folder / file
            if ".." not in file.parts and source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
