"""
A build: one run of the CodeBuild project, started, followed to its end, and found again.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import boto3

from app.protocol.errors import ConfigError
from image.files import write_whole
from ops.aws import AwsError, asking
from ops.child import ChildError

POLL_SECONDS: Final = 10
_UNANSWERED: Final = 30  # in a row, before waiting is given up: five minutes
_LOG_LINES: Final = 20
_QUIET: Final = frozenset(("submitted", "pre build", "post build", "finalizing", "completed"))
_OBJECT: Final = re.compile(r"arn:aws[a-z-]*:s3:::([^/]+)/(.+)")
_GOES_ON: Final = "IN_PROGRESS"  # CodeBuild's words for builds and phases
_WELL: Final = "SUCCEEDED"

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Started:
    """
    A build that was started, as the file beside its results tells it.

    Attributes:
        id: CodeBuild's.

        weights_sha256: In hex, of the package that was sent.
    """

    id: str
    name: str
    region: str
    commit: str
    kit: str
    weights_sha256: str
    weights_inside: bool

    def write(self, path: Path) -> None:
        """Write it to *path*."""
        write_whole(path, json.dumps(asdict(self), indent=2).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Result:
    """Where a build has left its zip, and the SHA-256 that CodeBuild gives of it, in hex."""

    bucket: str
    key: str
    sha256: str


def read_started(path: Path) -> Started:
    """
    Read which build was started last.

    Raises:
        ConfigError: None was, or the file is not readable.
    """
    try:
        return Started(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise ConfigError(f"no build was started from here: there is no {path}") from None
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"{path} does not tell which build was started: remove it") from None


def start_build(
    session: boto3.Session,
    project: str,
    *,
    location: str,
    version: str,
    debian: str,
    given: Mapping[str, str],
) -> str:
    """
    Start *project* on the object *location*, `bucket/key`, in that *version*; give the build's id.

    Args:
        debian: The container's name that it runs in.

        given: Variables of the build specification.

    Raises:
        AwsError: As `asking`.
    """
    with asking("codebuild:StartBuild"):
        answer = session.client("codebuild").start_build(
            projectName=project,
            sourceLocationOverride=location,
            sourceVersion=version,
            imageOverride=debian,
            environmentVariablesOverride=[
                {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in given.items()
            ],
        )
    return str(answer["build"]["id"])


@dataclass(frozen=True, slots=True)
class _Phase:
    """One of CodeBuild's phases, in words, and what it says of why it ended so."""

    kind: str
    status: str
    took: str
    reasons: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        """Whether it has begun and not ended."""
        return self.status == _GOES_ON.lower()


@dataclass(frozen=True, slots=True)
class _Build:
    """What CodeBuild says of a build; *log* is its group and stream, *link* the console's page."""

    status: str
    phases: tuple[_Phase, ...]
    log: tuple[str, str]
    link: str
    artifact: str
    sha256: str


def follow_build(
    session: boto3.Session,
    build_id: str,
    note: Note,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Result:
    """
    Follow a build to its end, telling of each phase once; give what it has made.

    Raises:
        ChildError: It failed, was stopped or took too long; the end of its log is told before.

        AwsError: As `asking`, or nobody answers for five minutes.
    """
    told: set[str] = set()
    while True:
        build = _ask_patiently(session, build_id, note, pause)
        for line in _tell(build):
            if line not in told:
                note(line)
                told.add(line)
        if build.status == _WELL:
            return _parse_result(build)
        if build.status != _GOES_ON:
            for line in _read_log_end(session, build):
                note(f"  {line}")
            raise ChildError(_explain(build))
        pause(POLL_SECONDS)


def _ask_patiently(
    session: boto3.Session, build_id: str, note: Note, pause: Callable[[float], None]
) -> _Build:
    """Ask; where nobody answers, as when this machine has slept, ask again for a while."""
    for _ in range(_UNANSWERED):
        try:
            return _ask(session, build_id)
        except AwsError as error:
            if error.code:
                raise
            note(f"AWS does not answer, asking again: {error}")
            pause(POLL_SECONDS)
    return _ask(session, build_id)


def _ask(session: boto3.Session, build_id: str) -> _Build:
    with asking("codebuild:BatchGetBuilds"):
        builds = session.client("codebuild").batch_get_builds(ids=[build_id]).get("builds")
    if not builds:
        raise ConfigError(f"CodeBuild knows no build {build_id} in {session.region_name}")
    build, logs, made = builds[0], builds[0].get("logs", {}), builds[0].get("artifacts", {})
    return _Build(
        status=build["buildStatus"],
        phases=tuple(map(_parse_phase, build.get("phases", ()))),
        log=(logs.get("groupName", ""), logs.get("streamName", "")),
        link=logs.get("deepLink", ""),
        artifact=made.get("location", ""),
        sha256=made.get("sha256sum", ""),
    )


def _parse_phase(phase: Mapping[str, object]) -> _Phase:
    return _Phase(
        kind=str(phase["phaseType"]).lower().replace("_", " "),
        status=str(phase.get("phaseStatus", _GOES_ON)).lower(),
        took=f"{phase.get('durationInSeconds', 0)} s",
        reasons=tuple(_read_reasons(phase.get("contexts"))),
    )


def _read_reasons(contexts: object) -> Iterator[str]:
    for item in contexts if isinstance(contexts, list) else ():
        match item:
            case {"message": str(message)} if message:
                yield message


def _tell(build: _Build) -> Iterator[str]:
    """Give a line for the log, and for each phase that has begun or ended."""
    if build.log[1] and build.link:
        yield f"log: {build.link}"
    for phase in build.phases:
        if phase.kind not in _QUIET:
            ended = f"{phase.status}, {phase.took}"
            yield f"{phase.kind}: {'goes on' if phase.goes_on else ended}"


def _read_log_end(session: boto3.Session, build: _Build) -> list[str]:
    """Read the last lines of a build's log; none where there is no log, or it may not be read."""
    group, stream = build.log
    if not stream:
        return []
    try:
        with asking("logs:GetLogEvents"):
            events = session.client("logs").get_log_events(
                logGroupName=group, logStreamName=stream, limit=_LOG_LINES, startFromHead=False
            )["events"]
    except AwsError as error:
        return [f"the log cannot be read: {error}"]
    return [str(event["message"]).rstrip() for event in events]


def _explain(build: _Build) -> str:
    """Say in which phase a build ended, and what CodeBuild says of it."""
    ended = (phase for phase in build.phases if not phase.goes_on)
    bad = next((phase for phase in ended if phase.status != _WELL.lower()), None)
    where = f" in {bad.kind}" if bad else ""
    reasons = f": {'; '.join(bad.reasons)}" if bad and bad.reasons else ""
    return f"the build ended as {build.status.lower()}{where}{reasons}"


def _parse_result(build: _Build) -> Result:
    place = _OBJECT.fullmatch(build.artifact)
    if place is None or not re.fullmatch("[0-9a-f]{64}", build.sha256):
        raise ChildError(
            f"the build succeeded, and CodeBuild names no result with its SHA-256: {build.artifact}"
        )
    return Result(place[1], place[2], build.sha256)
