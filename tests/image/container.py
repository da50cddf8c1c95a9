"""
A container as a runtime of containers runs one, for machines that have a builder and no runtime.

Its root is read-only, with /proc, a /dev and the volumes that it is given, and nothing else: no
/tmp. What runs is process 1 of a namespace of its own, as a user without capabilities and without
new privileges, under a profile of system calls, in a cgroup. The network is this machine's, whose
127.0.0.1 the containers of one task or pod share in the same way.

This file is also the program that `unshare` starts in those namespaces, with a `_Plan` in JSON.
"""

import ctypes
import json
import os
import platform
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

PROFILE: Final = Path("/usr/share/containers/seccomp.json")  # Debian's, which buildah requires
_UNSHARE: Final = (
    *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"),
    *("--ipc", "--uts"),
)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_SECONDS: Final = 60
# Linux, include/uapi/linux/prctl.h.
_DROP_FROM_BOUNDING_SET, _NO_NEW_PRIVILEGES, _CAPABILITIES = 24, 38, 64
# libseccomp, include/seccomp.h.
_ALLOW, _ERRNO, _EPERM = 0x7FFF0000, 0x00050000, 1
_OPERATIONS: Final = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # from 1
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}  # as Go names them


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder of this machine's, and where the container has it."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    root: str
    volumes: Sequence[Volume]
    user: int
    environment: Mapping[str, str]
    cgroups: Sequence[str]
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Image:
    """
    What containers are made of: a root, and what is set for all.

    Attributes:
        cgroups: Folders of cgroups to put each into.
    """

    root: Path
    user: int
    environment: Mapping[str, str]
    cgroups: Sequence[Path] = ()

    @contextmanager
    def start(self, *command: str, volumes: Sequence[Volume], log: Path) -> Iterator["Container"]:
        """Run *command* until the block ends at the latest; *log* has what it writes."""
        with log.open("wb") as file, self._begin(command, volumes, self.user, file) as process:
            try:
                yield Container(process)
            finally:
                process.kill()  # and with it the container's own

    def run(
        self, *command: str, volumes: Sequence[Volume], user: int | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run *command* to its end, as another *user* where one is given."""
        user = self.user if user is None else user
        with self._begin(command, volumes, user, subprocess.PIPE) as process:
            try:
                said, _ = process.communicate(timeout=_SECONDS)
            finally:
                process.kill()
        return subprocess.CompletedProcess(command, process.returncode, said.decode(), "")

    def _begin(
        self, command: Sequence[str], volumes: Sequence[Volume], user: int, output: IO[bytes] | int
    ) -> "subprocess.Popen[bytes]":
        cgroups = [str(folder) for folder in self.cgroups]
        plan = _Plan(str(self.root), volumes, user, self.environment, cgroups, command)
        return subprocess.Popen(
            (*_UNSHARE, "--", sys.executable, __file__, json.dumps(asdict(plan))),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@dataclass(frozen=True, slots=True)
class Container:
    """One that runs."""

    _process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        """The number that its process 1 has on this machine."""
        outer = self._process.pid
        return int(Path(f"/proc/{outer}/task/{outer}/children").read_text())

    def proc(self, name: str) -> str:
        """Give the kernel's file *name* about its process 1."""
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def send(self, number: int) -> None:
        """Send its process 1 a signal."""
        os.kill(self.pid, number)

    def wait(self) -> tuple[int, float]:
        """Wait for its end; give its exit code, and after how many seconds it came."""
        before = time.monotonic()
        return self._process.wait(_SECONDS), time.monotonic() - before

    def runs(self) -> bool:
        """Tell whether it has not ended."""
        return self._process.poll() is None


@contextmanager
def cgroups(**limits: int) -> Iterator[list[Path]]:
    """
    Give cgroups with *limits* of `memory` (bytes) and `pids`, those that can be had here.
    """
    folders: list[Path] = []
    try:
        for name, most in limits.items():
            folder = _make_cgroup(name, most)
            folders += [] if folder is None else [folder]
        yield folders
    finally:
        for folder in folders:
            folder.rmdir()


def _make_cgroup(controller: str, most: int) -> Path | None:
    """Make a cgroup of either version with one limit; None where that cannot be."""
    name = f"container-{uuid.uuid4().hex}"
    old = "memory.limit_in_bytes" if controller == "memory" else "pids.max"
    for place, file in ((controller, old), ("", f"{controller}.max")):
        folder = Path("/sys/fs/cgroup", place, name)
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / file).write_text(str(most))
        except OSError:
            folder.rmdir()
        else:
            return folder
    return None


def _enter(plan: _Plan) -> None:
    """Become the container's process 1."""
    for folder in plan.cgroups:
        (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))
    _mount_all(Path(plan.root), plan.volumes)
    library = ctypes.CDLL("libseccomp.so.2")
    libc = ctypes.CDLL(None, use_errno=True)
    rules = _read_profile(library)
    os.chroot(plan.root)
    os.chdir("/")
    for number in range(_CAPABILITIES):
        libc.prctl(_DROP_FROM_BOUNDING_SET, number, 0, 0, 0)
    os.setgroups([])
    os.setresgid(plan.user, plan.user, plan.user)
    os.setresuid(plan.user, plan.user, plan.user)
    _require(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _require(library.seccomp_load(rules))
    os.execve(plan.command[0], list(plan.command), dict(plan.environment))  # noqa: S606


def _mount_all(root: Path, volumes: Sequence[Volume]) -> None:
    for place in ("proc", "dev", *(volume.target.lstrip("/") for volume in volumes)):
        (root / place).mkdir(parents=True, exist_ok=True)  # as a runtime does
    _mount("--bind", str(root), str(root))
    _mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", str(root / "proc"))
    _mount("-t", "tmpfs", "-o", "nosuid,noexec,mode=755,size=64k", "tmpfs", str(root / "dev"))
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    for volume in volumes:
        target = root / volume.target.lstrip("/")
        _mount("--bind", volume.source, str(target))
        if not volume.writable:
            _mount("-o", "remount,bind,ro", str(target))
    _mount("-o", "remount,bind,ro", str(root))


def _mount(*arguments: str) -> None:
    subprocess.run(("mount", *arguments), check=True, stdin=subprocess.DEVNULL)


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _read_profile(library: ctypes.CDLL) -> ctypes.c_void_p:
    """Give libseccomp's rules for what `PROFILE` has for containers without capabilities."""
    profile = json.loads(PROFILE.read_text())
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    others = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    rules = ctypes.c_void_p(library.seccomp_init(others))
    for rule in filter(_applies, profile["syscalls"]):
        action = _action(rule["action"], rule.get("errnoRet"))
        compared = [_compare(each) for each in rule.get("args") or ()]
        array = (_Comparison * len(compared))(*compared)
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1 and action != others:
                added = (ctypes.c_uint32(action), number, len(compared), array)
                _require(library.seccomp_rule_add_array(rules, *added))
    return rules


def _action(name: str, number: int | None) -> int:
    """Give a number of libseccomp's; any action but the two that profiles have is a KeyError."""
    known = {"SCMP_ACT_ALLOW": _ALLOW, "SCMP_ACT_ERRNO": _ERRNO | (number or _EPERM)}
    return known[name]


def _applies(rule: Mapping[str, Any]) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    here = _ARCHITECTURES[platform.machine()]
    return (
        not wanted.get("caps")
        and here in (wanted.get("arches") or [here])
        and here not in (unwanted.get("arches") or [])
    )


def _compare(argument: Mapping[str, Any]) -> _Comparison:
    operation = _OPERATIONS.index(argument["op"].removeprefix("SCMP_CMP_")) + 1
    return _Comparison(
        argument["index"], operation, argument["value"], argument.get("valueTwo") or 0
    )


def _require(result: int) -> None:
    if result:
        raise OSError(result, "the kernel or libseccomp refuses it")


def _main(text: str) -> None:
    given = json.loads(text)
    given["volumes"] = [Volume(**each) for each in given["volumes"]]
    _enter(_Plan(**given))


if __name__ == "__main__":
    _main(sys.argv[1])
