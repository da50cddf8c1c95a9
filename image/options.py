"""
What `bin/build-eif` is asked for: its options, refused where they do not fit together.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from image.container.context import ROOT

KIT: Final = "kit"  # below --out, or build: where Amazon's boot files are kept
_KITS: Final = ("aws", "nitro")
_OF_A_KIT: Final = {
    "aws": ("--kit-dir", "--fetch-kit", "--record-kit"),
    "nitro": ("--kernel-source",),
}
# What says how to build, and so says nothing where boot files alone are fetched or recorded.
_OF_A_BUILD: Final = (
    *("--weights", "--weights-inside", "--base", "--base-image", "--wheels", "--twice"),
)
_OPTIONS: Final = (*_OF_A_KIT["aws"], *_OF_A_KIT["nitro"], *_OF_A_BUILD)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Give the options; ends the program where they do not fit together, as argparse does."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.in_account is not None or options.in_container is not None:
        parser.error("--in-account and --in-container come first, before all other options")
    given = {name for name in _OPTIONS if _is_given(name, options, parser)}
    for kit, names in _OF_A_KIT.items():
        if kit != options.kit and (wrong := given & set(names)):
            parser.error(f"{_list(wrong)}: for --kit {kit} alone, and this is --kit {options.kit}")
    for only in ("--fetch-kit", "--record-kit"):
        if only in given and (wrong := given & set(_OF_A_BUILD)):
            parser.error(f"{only} builds nothing: leave {_list(wrong)} out, or run it before")
    return options


def find_kit(options: argparse.Namespace) -> Path | None:
    """Give the folder of Amazon's boot files: the one named, else where they are kept."""
    if options.kit_dir is not None:
        named: Path = options.kit_dir
        return named
    kept = (options.out / KIT, ROOT / "build" / KIT)
    return next((folder for folder in kept if folder.is_dir()), None)


def _is_given(name: str, options: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    key = name.removeprefix("--").replace("-", "_")
    return bool(getattr(options, key) != parser.get_default(key))


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


def build_parser() -> argparse.ArgumentParser:
    """Give the parser of all options."""
    parser = argparse.ArgumentParser(
        prog="bin/build-eif",
        description="Build the enclave's image and measure it.",
        epilog="The EIF and its records are written to --out; PCRs are printed as nitro-cli does.",
    )
    parser.add_argument(
        "--kit", choices=_KITS, default="aws", help="aws is Amazon's kernel and init, nitro ours"
    )
    parser.add_argument(
        "--kit-dir",
        type=Path,
        metavar="DIR",
        help="aws: has bzImage, init, nsm.ko and cmdline; default: build/kit, where it is there",
    )
    parser.add_argument(
        "--kernel-source", type=Path, metavar="FILE", help="nitro: a saved source package"
    )
    listing = parser.add_mutually_exclusive_group()
    listing.add_argument(
        "--fetch-kit",
        action="store_true",
        help="aws: only get them, from Amazon's repository, by git, into --kit-dir or build/kit",
    )
    listing.add_argument(
        "--record-kit",
        action="store_true",
        help="aws: only put their digests on image/kits/aws.json",
    )
    parser.add_argument("--weights", type=Path, default=ROOT / "build" / "weights", metavar="DIR")
    parser.add_argument(
        "--weights-inside",
        action="store_true",
        help="put in the model's files; without it their digests alone, and they come in at start",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build", metavar="DIR")
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--base", type=Path, metavar="FILE", help="a saved base root (tar)")
    base.add_argument("--base-image", metavar="NAME@sha256:…", help="a registry's image instead")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="saved wheels; else by pip")
    parser.add_argument("--twice", action="store_true", help="build two times and compare")
    _add_elsewhere(parser)
    return parser


def _add_elsewhere(parser: argparse.ArgumentParser) -> None:
    """Tell of the ways that the command takes itself, before this program is started."""
    ways = parser.add_argument_group("elsewhere; these come first, --help behind them tells more")
    for name, where in (
        ("--in-account", "in an AWS account, by CodeBuild"),
        ("--in-container", "in a container, on any machine with docker, Apple silicon too"),
    ):
        ways.add_argument(name, nargs=argparse.REMAINDER, metavar="…", help=f"build {where}")
