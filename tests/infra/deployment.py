"""
A deployment that no account sees: fake images, their releases, stand-in host software, and the
templates that the stack makes of them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from aws_cdk import App

from app.protocol.releases import PRODUCTION_KITS, Kit, Measurements, Release, encode_releases
from image.eif.cpio import file_entry, write_cpio
from image.eif.kit import BootKit
from image.eif.pack import pack_eif
from image.eif.record import encode_build_record
from infra.app import make_app
from infra.stack import EnclaveStack

Json = Any  # what a template holds: each test knows its shape

ACCOUNT: Final = "111122223333"  # AWS's own for documentation
REGION: Final = "eu-central-1"
DESK: Final = f"arn:aws:iam::{ACCOUNT}:role/benefits-desk"
ALICE: Final = f"arn:aws:iam::{ACCOUNT}:user/alice"
CERTIFICATE: Final = (
    f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/01234567-89ab-cdef-0123-456789abcdef"
)
WEIGHTS_SHA256: Final = b"\x3d" * 32
_FAKE: Final = b"not a kernel, not an init: made by a test, boots nowhere\n"


@dataclass(frozen=True, slots=True)
class Files:
    """What a deployment is made of, all in one folder, each where `bin/` would put it."""

    root: Path

    @property
    def eif(self) -> Path:
        """The fake EIF; its record lies beside it."""
        return self.root / "build" / "enclave.eif"

    @property
    def releases(self) -> Path:
        """The list of releases."""
        return self.root / "releases.json"

    @property
    def weights(self) -> Path:
        """The package that an image names whose weights are outside; none by default."""
        return self.root / "build" / "weights"

    @property
    def host(self) -> Path:
        """The stand-in host software."""
        return self.root / "build" / "host"

    def approve(self, *releases: Release) -> None:
        """Write the list of *releases*."""
        self.releases.write_bytes(encode_releases(releases))


def make_files(root: Path) -> tuple[Files, Release]:
    """Make a whole deployment's files in *root*, its one image approved as fake-1."""
    files = Files(root)
    release = make_eif(files.eif, "fake-1")
    files.approve(release)
    make_host(files.host)
    return files, release


def make_eif(eif: Path, name: str, *, kit: Kit = "aws", package: bytes | None = None) -> Release:
    """
    Pack a fake EIF with its record; give it as the release *name*.

    Args:
        package: The weights digest of a package that it names; None has its weights inside.
    """
    weights_sha256 = package or WEIGHTS_SHA256
    eif.parent.mkdir(parents=True, exist_ok=True)
    kernel, boot, application = (eif.with_name(part) for part in ("kernel", "boot", "app"))
    kernel.write_bytes(_FAKE)
    for path in (boot, application):
        with path.open("wb") as out:
            write_cpio(out, [file_entry(path.name, _FAKE + name.encode())])
    record = pack_eif(
        eif,
        BootKit(kit, kernel, "fake", boot),
        application,
        weights_sha256=weights_sha256,
        weights_inside=package is None,
    )
    eif.with_name("measurements.json").write_bytes(encode_build_record(record))
    measured = record.measurements
    pcrs = Measurements(measured.pcr0, measured.pcr1, measured.pcr2)
    return Release(name, kit, pcrs, weights_sha256, datetime(2026, 1, 2, tzinfo=UTC))


def make_host(folder: Path) -> None:
    """Make a stand-in for the host's software, with its manifest."""
    contents = {"install": b"#!/bin/bash\n", "units/a.service": b"[Unit]\n"}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    lines = [f"{hashlib.sha256(content).hexdigest()}  {n}\n" for n, content in contents.items()]
    (folder / "MANIFEST.sha256").write_text("".join(lines))


def make_stack(
    root: Path,
    context: Mapping[str, object],
    *,
    kits: frozenset[str] = PRODUCTION_KITS,
    assembly: Path | None = None,
) -> tuple[App, EnclaveStack]:
    """Make the app of what lies in *root*; *context* adds to, or replaces, what must be given."""
    given = {
        "account": ACCOUNT,
        "region": REGION,
        "chat_principals": DESK,
        "client_cidrs": "10.0.0.0/8",
        **context,
    }
    return make_app(context=given, environment={}, kits=kits, root=root, assembly=assembly)


@dataclass(frozen=True, slots=True)
class Template:
    """A synthesised template, and how to find something in it."""

    value: Json

    @property
    def resources(self) -> dict[str, Json]:
        """All resources by logical id."""
        return cast("dict[str, Json]", self.value["Resources"])

    def ids(self, kind: str, prefix: str = "") -> list[str]:
        """Give the logical ids of resources of type *kind* that start with *prefix*."""
        return [
            name
            for name, resource in self.resources.items()
            if resource["Type"] == f"AWS::{kind}" and name.startswith(prefix)
        ]

    def id(self, kind: str, prefix: str = "") -> str:
        """Give the one there is."""
        (name,) = self.ids(kind, prefix)
        return name

    def all(self, kind: str, prefix: str = "") -> list[Json]:
        """Give the properties of each."""
        return [self.resources[name].get("Properties", {}) for name in self.ids(kind, prefix)]

    def one(self, kind: str, prefix: str = "") -> Json:
        """Give the properties of the one there is."""
        return self.resources[self.id(kind, prefix)]["Properties"]

    def resolve(self, node: Json) -> Json:
        """
        Give *node* with its placeholders filled in, as a deployment would do it.

        What a resource would be given is `{LogicalId}` or `{LogicalId.Attribute}`.
        """
        if isinstance(node, list):
            return [self.resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        match node:
            case {"Ref": name, **rest} if not rest:
                return _PSEUDO.get(name, f"{{{name}}}")
            case {"Fn::GetAtt": [name, attribute], **rest} if not rest:
                return f"{{{name}.{attribute}}}"
            case {"Fn::Join": [glue, parts], **rest} if not rest:
                return glue.join(map(str, self.resolve(parts)))
        return {name: self.resolve(value) for name, value in node.items()}


_PSEUDO: Final = {
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::StackId": "{stack}",
}


def synthesise(app: App, stack: EnclaveStack) -> Template:
    """Synthesise *app*; give the template of its one stack."""
    return Template(app.synth().get_stack_artifact(stack.artifact_id).template)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of any policy in a template, and where it stands."""

    where: str
    kind: str
    value: Json

    @property
    def actions(self) -> list[str]:
        """Its actions, as a list."""
        return as_list(self.value.get("Action", self.value.get("NotAction")))

    @property
    def allows(self) -> bool:
        """Whether its effect is Allow."""
        return bool(self.value["Effect"] == "Allow")


def as_list(value: Json) -> list[Json]:
    """Give what AWS writes as one thing or several as a list."""
    return value if isinstance(value, list) else [value]


def statements(template: Template) -> list[Statement]:
    """Find every policy statement in *template*, whatever holds it."""
    found: list[Statement] = []

    def visit(name: str, kind: str, node: Json) -> None:
        if isinstance(node, dict):
            if "Effect" in node and ("Action" in node or "NotAction" in node):
                found.append(Statement(name, kind, node))
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                visit(name, kind, item)

    for name, resource in template.resources.items():
        properties = template.resolve(resource.get("Properties", {}))
        if resource["Type"] == "AWS::Logs::ResourcePolicy":  # the one that is text
            properties = json.loads(properties["PolicyDocument"])
        visit(name, resource["Type"], properties)
    return found
