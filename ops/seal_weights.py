"""
bin/seal-weights: encrypt a weights package, so that approved enclave images alone can open it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from app.chatbot.aws import open_aws
from app.chatbot.console import Terminal
from app.chatbot.errors import SettingsError
from app.protocol.authorization import KeyArn, parse_key_arn
from app.protocol.errors import ConfigError, ProtocolError
from ops.aws import AwsError, NotAllowedError
from ops.sealed_package import Package, SealError, make_data_key, read_package, seal_package

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_TELL_SECONDS: Final = 5
_EPILOG: Final = """\
KMS makes a data key for this one package (kms:GenerateDataKey, with the context purpose=weights and
the package's digest); each file is encrypted under it, here. The folder that comes of it is for
whoever runs the model: model.json, a file ….sealed for each that it lists, and weights-key.json
with the data key as KMS wrapped it, and whether the model is a mixture of experts, which takes more
memory. Nothing in it is secret, and neither they nor you can open it: that takes an approved
image's attestation document, by the key's own policy (bin/weights-policy).

Sealing changes no measurement: the image names the plain files, by model.json, as before. Sealing
the same package again makes another data key and other bytes; any of them serves.

examples:
  bin/seal-weights build/weights --key arn:aws:kms:eu-central-1:444455556666:key/1234…
  bin/seal-weights build/weights --key arn:… --out /mnt/disk/sealed --profile vendor

exit codes: 0 done; 1 not sealed, and nothing is left half-written; 2 wrong usage or AWS settings;
130 stopped
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    terminal = Terminal()
    out: Path = options.out or options.folder.with_name(f"{options.folder.resolve().name}-sealed")
    try:
        package = read_package(options.folder)
        kms = open_aws(options.profile, options.key.region).client("kms")
        seal_package(
            package,
            out,
            lambda: make_data_key(kms, options.key, package.digest),
            _progress(package, terminal),
        )
    except (SealError, AwsError, ConfigError) as error:
        terminal.note(f"seal-weights: {error}{_advice(error)}")
        return EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED
    terminal.piece(f"sealed    {out}\n")
    terminal.piece(f"key       {options.key.text}\n")
    terminal.piece(f"digest    {package.digest.hex()}\n")
    return 0


def _advice(error: Exception) -> str:
    if isinstance(error, NotAllowedError):
        return ": the key's policy has to name you as its sealer (bin/weights-policy)"
    return ""


def _progress(package: Package, terminal: Terminal) -> Callable[[int], None]:
    """Give what says every few seconds how much is sealed."""
    total, done = sum(file.bytes for file in package.distinct.values()), 0
    told = time.monotonic()

    def tell(size: int) -> None:
        nonlocal done, told
        done += size
        now = time.monotonic()
        if now - told >= _TELL_SECONDS:
            told = now
            terminal.note(f"sealed {done / 1e9:.1f} of {total / 1e9:.1f} GB")

    return tell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/seal-weights",
        allow_abbrev=False,
        description="Encrypt a weights package, so that approved enclave images alone can open it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="made by bin/save-model")
    parser.add_argument(
        "--key",
        type=_key,
        required=True,
        metavar="ARN",
        help="your key, in the Region of the hosts; no alias",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: DIR-sealed, beside DIR")
    parser.add_argument("--profile", help="of AWS's settings on this machine")
    return parser


def _key(text: str) -> KeyArn:
    try:
        return parse_key_arn(text)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
