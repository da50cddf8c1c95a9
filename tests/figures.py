"""
The figures that the docs give and the code knows, each with the words around it.
"""

import hashlib
import json
import re
import struct
from typing import Final

from app.enclave import answering
from app.parent import supervisor
from app.parent.config import HostConfig
from app.protocol import constants
from app.protocol.asker import constants as asker_constants
from infra import instances, parameters
from local.demo_model.corpus import read_corpus
from ops import releases
from tests.unit.test_structure import AUDITED_LINES, count_code_lines, count_held_lines
from tests.written import ROOT, Figure

_WORDS: Final = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)
HOURS: Final = 730  # a month, as AWS's own calculator has it
_DEMO: Final = ROOT / "local" / "demo_model"
OPERATIONS: Final = "docs/operations.md"
DEPLOY: Final = "docs/deploy.md"
LINES_INSIDE: Final = "docs/adr/0001-lines-inside-the-enclave.md"
_CLIENTS: Final = ("agents", "chains", "index", "litellm", "webui")  # bin/test-clients
DEMO_MODEL: Final = "local/demo_model/README.md"


def word(number: float) -> str:
    """Give a small whole *number* as a word."""
    assert number == int(number)
    return _WORDS[int(number)]


def count_parameters() -> int:
    """Count the demo model's parameters, by the header of its safetensors file."""
    with (_DEMO / "source" / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        tensors: dict[str, dict[str, list[int]]] = json.loads(file.read(length))
    shapes = [tensor["shape"] for name, tensor in tensors.items() if name != "__metadata__"]
    return sum(_product(shape) for shape in shapes)


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _weights_digest() -> str:
    return hashlib.sha256((_DEMO / "weights" / "model.json").read_bytes()).hexdigest()


def count_wordings(*, held_out: bool) -> int:
    """Count the wordings of the demo model's corpus."""
    return sum(len(entry.held_out if held_out else entry.wordings) for entry in read_corpus())


def _row(start: str) -> tuple[float, int]:
    """Give hourly and monthly price of a row of the table of costs; 0 an hour where none is."""
    row = re.search(
        rf"^\| {re.escape(start)}[^|]*\|\s*\$?([\d.]*)\s*\| \$([\d,]+) \|$",
        (ROOT / DEPLOY).read_text(),
        re.MULTILINE,
    )
    assert row, start
    return float(row[1] or 0), int(row[2].replace(",", ""))


def add_costs(instance: str) -> tuple[float, int]:
    """Add what a deployment on *instance* costs an hour and a month."""
    running = (instance, "five interface endpoints", "load balancer")
    hours = [_row(start) for start in running]
    for hourly, monthly in hours:
        assert round(hourly * HOURS) == monthly
    month = sum(m for _, m in hours)
    month += sum(
        _row(start)[1] for start in ("disk", "two KMS keys", "nine alarms", "detailed monitoring")
    )
    return month / HOURS, month


LARGE: Final = parameters.PROFILES["default"]
SMALL: Final = parameters.PROFILES["small"]


def _instance(profile: str) -> str:
    instance = parameters.PROFILES[profile]["instance_type"]
    return instance if profile == "default" else f"or, with profile `small`, {instance}"


def _rounded(profile: str) -> str:
    return f"{round(add_costs(_instance(profile))[1], -1):,}"


def _hourly(profile: str) -> str:
    return f"{add_costs(_instance(profile))[0]:.2f}"


def _monthly(profile: str) -> str:
    return f"{add_costs(_instance(profile))[1]:,}"


def _sizes(profile: str) -> tuple[str, str, str]:
    sizes = parameters.PROFILES[profile]
    mib = f"{int(sizes['enclave_memory_mib']):,}"
    return sizes["instance_type"], sizes["enclave_vcpus"], mib


def _group_size(group: str) -> tuple[str, str]:
    """Give the MB that *group* fetches and takes on disk."""
    for line in (ROOT / "requirements" / "sizes.txt").read_text().splitlines():
        name, *sizes = line.split()
        if name == group:
            return sizes[0], sizes[1]
    raise AssertionError(group)


def _lines(name: str) -> tuple[str, ...]:
    return (str(count_code_lines(name)),)


def _host(name: str) -> object:
    return HostConfig.__dataclass_fields__[name].default


FIGURES: Final = (
    Figure(
        "README.md", r"of ([\d.]+) million parameters", lambda: (f"{count_parameters() / 1e6:.1f}",)
    ),
    Figure("README.md", r"first command fetches (\d+) MB", lambda: (_group_size("local")[0],)),
    Figure(
        "README.md",
        r"fetches (\d+) MB of Python",
        lambda: (str(sum(int(_group_size(f"clients-{group}")[0]) for group in _CLIENTS)),),
    ),
    Figure("README.md", r"fewer than ([\d,]+) lines", lambda: (f"{AUDITED_LINES:,}",)),
    Figure(
        LINES_INSIDE,
        r"some ([\d,]+) lines more",
        lambda: (f"{round(sum(count_held_lines(audited=False).values()), -2):,}",),
    ),
    Figure(
        LINES_INSIDE,
        r"([\d,]+) are held now",
        lambda: (f"{sum(count_held_lines(audited=True).values()):,}",),
    ),
    Figure(LINES_INSIDE, r"what cbor2 accepts \((\d+)\)", lambda: _lines("app/protocol/cbor.py")),
    Figure(
        LINES_INSIDE,
        r"KMS's BER \((\d+); no",
        lambda: _lines("app/enclave/kms/cms.py"),
    ),
    Figure(
        LINES_INSIDE,
        r"over a socket of ours \((\d+);",
        lambda: _lines("app/enclave/kms/transport.py"),
    ),
    Figure(
        "docs/adr/0003-our-own-cbor.md",
        r"`app/protocol/cbor.py`, (\d+) lines",
        lambda: _lines("app/protocol/cbor.py"),
    ),
    Figure(
        "SPEC.md",
        r"at most (\w+) times a second",
        lambda: (word(round(1 / answering._PACE_SECONDS)),),
    ),
    Figure("README.md", r"about \$([\d,]+) a month", lambda: (_rounded("default"),)),
    Figure("README.md", r"or \$([\d,]+) with `-c profile=small`", lambda: (_rounded("small"),)),
    Figure(
        "README.md",
        r"\((\S+), or (\S+) when small\)",
        lambda: (LARGE["instance_type"], SMALL["instance_type"]),
    ),
    Figure("README.md", r"on port (\d+)", lambda: (str(constants.PARENT_HTTP_PORT),)),
    Figure(
        "docs/glossary.md",
        r"platform configuration register: (\d+) bytes",
        lambda: (str(constants.PCR_BYTES),),
    ),
    Figure(
        "docs/glossary.md",
        r"answer secret\*\* \| (\d+) random bytes",
        lambda: (str(constants.ANSWER_SECRET_BYTES),),
    ),
    Figure(DEPLOY, r"from here on \$([\d.]+) an hour", lambda: (_hourly("default"),)),
    Figure(DEPLOY, r"or \$([\d.]+) with `-c profile=small`", lambda: (_hourly("small"),)),
    Figure(
        DEPLOY,
        r"\*\*in all\*\* \| \*\*\$([\d.]+)\*\* \| \*\*\$([\d,]+)\*\*",
        lambda: (_hourly("default"), _monthly("default")),
    ),
    Figure(
        DEPLOY,
        r"\*\*in all, with profile `small`\*\* \| \*\*\$([\d.]+)\*\* \| \*\*\$([\d,]+)\*\*",
        lambda: (_hourly("small"), _monthly("small")),
    ),
    Figure(
        DEPLOY,
        r"`default` \((\S+), (\d+) vCPUs, ([\d,]+) MiB\)",
        lambda: _sizes("default"),
    ),
    Figure(DEPLOY, r"`small` \((\S+), (\d+) vCPUs, ([\d,]+) MiB\)", lambda: _sizes("small")),
    Figure(
        DEPLOY,
        r"at least (\w+) times the EIF's size in memory\. The instance itself keeps \d vCPUs and"
        r" ([\d,]+) MiB",
        lambda: (word(instances.MEMORY_PER_EIF), f"{instances.PARENT_MEMORY_MIB:,}"),
    ),
    Figure(DEPLOY, r"connect to port (\d+)", lambda: (str(constants.PARENT_HTTP_PORT),)),
    Figure(
        OPERATIONS,
        r"keep a key that they have opened for (\d+) minutes",
        lambda: (str(constants.DATA_KEY_CACHE_SECONDS // 60),),
    ),
    Figure(
        OPERATIONS,
        r"which it destroys within (\d+) minutes",
        lambda: (str((constants.HPKE_ROTATION_SECONDS + constants.HPKE_OVERLAP_SECONDS) // 60),),
    ),
    Figure(
        OPERATIONS,
        r"Sessions that exist last (\d+) minutes",
        lambda: (str(asker_constants.SESSION_SECONDS // 60),),
    ),
    Figure(
        OPERATIONS, r"at most (\d+), each with one enclave", lambda: (str(parameters._MAX_FLEET),)
    ),
    Figure(OPERATIONS, r"Every (\w+) seconds it lists", lambda: (word(supervisor.LOOK_SECONDS),)),
    Figure(
        OPERATIONS,
        r"A new enclave has (\d+) minutes to load its model",
        lambda: (str(supervisor.BOOT_SECONDS // 60),),
    ),
    Figure(
        OPERATIONS,
        r"replaces an enclave after (\d+) hours",
        lambda: (str(int(str(_host("max_age_seconds"))) // 3600),),
    ),
    Figure(
        OPERATIONS,
        r"nothing to do, but not longer than (\d+) minutes",
        lambda: (str(supervisor.DRAIN_SECONDS // 60),),
    ),
    Figure(
        OPERATIONS,
        r"been steady for (\w+) minutes",
        lambda: (word(supervisor.STEADY_SECONDS / 60),),
    ),
    Figure(OPERATIONS, r"which release attests, (\w+) times", lambda: (word(releases._ATTEMPTS),)),
    Figure(DEMO_MODEL, r"weights digest \| `([0-9a-f]{64})`", lambda: (_weights_digest(),)),
    Figure(DEMO_MODEL, r"([\d,]+) parameters \|", lambda: (f"{count_parameters():,}",)),
    Figure(DEMO_MODEL, r"knows the (\d+) answers", lambda: (str(len(read_corpus())),)),
    Figure(DEMO_MODEL, r"for this project: (\d+) questions", lambda: (str(len(read_corpus())),)),
    Figure(
        DEMO_MODEL, r"as trained \| ([\d,]+) \|", lambda: (f"{count_wordings(held_out=False):,}",)
    ),
    Figure(DEMO_MODEL, r"held out \| ([\d,]+) \|", lambda: (str(count_wordings(held_out=True)),)),
)
