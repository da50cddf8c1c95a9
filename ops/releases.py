"""
bin/releases: approve an enclave image, see which are approved, retire one, verify all.
"""

import argparse
import json
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from app.chatbot.config import read_config
from app.chatbot.console import Terminal
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust, verify_enclave
from app.protocol.asker.messages import parse_attestation
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.constants import NONCE_BYTES
from app.protocol.errors import ConfigError
from app.protocol.releases import Release, to_fields
from ops.release_list import (
    RefusedError,
    ReleaseList,
    add_release,
    ask_deployment,
    check_release,
    holds_weights,
    require_listed,
    retire_release,
)

ROOT: Final = Path(__file__).resolve().parent.parent
_ATTEMPTS: Final = 12
_WEIGHTS: Final = {True: ", in the image", False: ", named by the image", None: ""}
_EPILOG: Final = """\
releases.json lists the images that the key policy lets open questions and that askers trust. Only
this command writes it; keep it in version control, and review changes like code.

a new image:   bin/releases add, hand the list to the askers, deploy (old and new are allowed, the
               fleet rolls), then bin/releases retire OLD and deploy again
the way back:  the same with the names exchanged; the old image is in build/releases, and the
               package of weights that it names, if it does not hold them, is yours to keep

examples:
  bin/releases add --eif build/enclave.eif --name 2026-11
  bin/releases list --json
  bin/releases retire 2026-10 --url https://llm.example.org
  bin/releases verify

exit codes: 0 done; 1 refused, nothing was changed; 2 wrong usage; 3 verify found an image that is
missing or is not what the list says
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    releases = ReleaseList(options.releases, options.kept)
    commands: dict[str, Callable[[ReleaseList, argparse.Namespace], int]] = {
        "add": _add,
        "list": _list,
        "retire": _retire,
        "verify": _verify,
    }
    try:
        return commands[options.command](releases, options)
    except (RefusedError, ConfigError) as error:
        print(f"bin/releases: {error}", file=sys.stderr)
    except OSError as error:
        print(f"bin/releases: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def _say(line: str) -> None:
    """Write one line to standard output; raises as `Terminal.piece`."""
    Terminal().piece(f"{line}\n")


def _add(releases: ReleaseList, options: argparse.Namespace) -> int:
    now = datetime.now(UTC).replace(microsecond=0)
    release = add_release(releases, options.eif, name=options.name, now=now)
    _say(f"approved {release.name}: pcr0 {release.measurements.pcr0.hex()}")
    _say(f"kept as {releases.kept_eif(release)}; next: give {releases.path} to the askers, deploy")
    return 0


def _list(releases: ReleaseList, options: argparse.Namespace) -> int:
    listed = releases.read()
    if options.json:
        _say(json.dumps({"releases": [_describe(releases, item) for item in listed]}, indent=2))
        return 0
    if not listed:
        _say("no release is approved, so nothing can be deployed: bin/releases add approves one")
    for release in listed:
        kept = "image kept" if releases.kept_eif(release).is_file() else "image not kept here"
        _say(f"{release.name}  approved {release.approved_at:%Y-%m-%d %H:%M} UTC, {kept}")
        _say(f"  pcr0 {release.measurements.pcr0.hex()}")
        place = _WEIGHTS[holds_weights(releases, release)]
        _say(f"  weights {release.weights_sha256.hex()}{place}")
    return 0


def _retire(releases: ReleaseList, options: argparse.Namespace) -> int:
    listed = releases.read()
    require_listed(listed, options.name)
    attested = None if options.not_deployed else _ask(listed, options)
    if attested is not None:
        seen = ", ".join(f"{name} {count} times" for name, count in sorted(attested.items()))
        _say(f"asked {attested.total()} times, over a connection each: {seen}")
    if not retire_release(releases, options.name, attested=attested):
        _say(
            "no release is left, and none can be deployed: approve another and deploy it; to close "
            "this one at once, disable the key (docs/operations.md)"
        )
    _say(f"retired {options.name}: deploy to take it out of the key policy")
    return 0


def _ask(listed: tuple[Release, ...], options: argparse.Namespace) -> Counter[str]:
    trust = Trust(NITRO_ROOT, "AWS Nitro root G1", listed)
    connect = _connector(options)
    return ask_deployment(lambda: attested_release(connect, trust), options.attempts)


def _connector(options: argparse.Namespace) -> Callable[[], Transport]:
    """Give what opens a connection to the deployment that *options* name."""
    any_certificate = options.any_certificate
    if options.url is not None:
        return partial(
            Transport, options.url, tls_ca=options.tls_ca, any_certificate=any_certificate
        )
    if not options.config.exists():
        raise ConfigError(
            f"no {options.config} says where the deployment is: name it with --url, or say "
            "--not-deployed"
        )
    config = read_config(options.config)
    return partial(
        Transport,
        config.url,
        tls_ca=options.tls_ca or config.tls_ca,
        any_certificate=any_certificate or config.any_certificate,
    )


def attested_release(connect: Callable[[], Transport], trust: Trust) -> str:
    """
    Give the name of the release that answers over a new connection, verified.

    Raises:
        AppError: Nobody answers, or no release of the list.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    with closing(connect()) as transport:
        document, manifest = parse_attestation(transport.get_attestation(nonce))
    now = datetime.now(UTC)
    return verify_enclave(document, manifest, nonce=nonce, now=now, trust=trust).release.name


def _verify(releases: ReleaseList, options: argparse.Namespace) -> int:
    found = {item.name: check_release(releases, item) for item in releases.read()}
    if options.json:
        _say(json.dumps({"releases": found, "ok": not any(found.values())}, indent=2))
    else:
        if not found:
            _say("no release is approved, so there is no image to verify")
        for name, problem in found.items():
            _say(f"{name}: {problem or 'measures as listed'}")
    return 3 if any(found.values()) else 0


def _describe(releases: ReleaseList, release: Release) -> dict[str, str | bool | None]:
    return {
        **to_fields(release),
        "image_kept": releases.kept_eif(release).is_file(),
        "weights_inside": holds_weights(releases, release),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/releases",
        description="The enclave images that you approve.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--releases", type=Path, default=ROOT / "releases.json", metavar="FILE")
    parser.add_argument("--kept", type=Path, default=ROOT / "build/releases", metavar="DIR")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="measure an image, keep it and approve it")
    add.add_argument("--eif", type=Path, default=ROOT / "build/enclave.eif", metavar="FILE")
    add.add_argument("--name", help="default: the day and the start of PCR0")
    listing = commands.add_parser("list", help="show what is approved")
    listing.add_argument("--json", action="store_true")
    _add_retire(commands.add_parser("retire", help="take one off the list, if nothing runs it"))
    verify = commands.add_parser("verify", help="measure the kept images again")
    verify.add_argument("--json", action="store_true")
    return parser


def _add_retire(retire: argparse.ArgumentParser) -> None:
    retire.add_argument("name")
    where = retire.add_mutually_exclusive_group()
    where.add_argument("--url", help="of the deployment; default: that of --config")
    where.add_argument("--not-deployed", action="store_true", help="nothing runs, so do not ask")
    config = Path("~/.config/enclave-llm/chat.json").expanduser()
    retire.add_argument("--config", type=Path, default=config, metavar="FILE")
    retire.add_argument("--tls-ca", metavar="FILE", help="certificate authorities for the URL")
    retire.add_argument(
        "--any-certificate",
        action="store_true",
        help="take the parent's own certificate: what counts is what the enclave attests",
    )
    retire.add_argument(
        "--attempts",
        type=int,
        choices=range(1, 1001),
        default=_ATTEMPTS,
        metavar="N",
        help="how often to ask: several times the number of instances",
    )


if __name__ == "__main__":
    sys.exit(main())
