"""
Confinement: what a process that reads a hostile file may still do, which is to compute.

Three things hold it, each by itself:

* limits of the kernel (POSIX): processor time, memory, no file of any size, no open file more, no
  process more, no core. Not on Windows, where the time alone is limited, by who started it; macOS
  does not hold a process to its memory.
* a filter of system calls (Linux on x86-64 and ARM64, without any right): reading and writing what
  is open, memory, clocks, the end. All else fails with EPERM, whoever calls it, C libraries
  included: no socket, no file by its name, no program. A kernel that has no such filters leaves the
  other two.
* an audit hook of Python's (everywhere): the same as far as Python code goes, whose libraries read
  the file. Code that has broken out of Python could pass it.

This is the one module here that knows of platforms. It imports nothing of ours.
"""

import ctypes
import platform
import struct
import sys
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import resource

_OWN: Final = Path("/proc/self")
_REFUSED: Final = frozenset(
    {"ctypes", "ftplib", "glob", "http", "mmap", "open", "os", "pty", "shutil", "signal", "socket"}
    | {"subprocess", "syslog", "tempfile", "urllib", "webbrowser", "winreg", "_winapi"}
)
# Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h: read, write,
# close, lseek, mmap, munmap, mremap, brk, madvise, rt_sigaction, rt_sigprocmask, rt_sigreturn,
# sigaltstack, futex, sched_yield, restart_syscall, clock_gettime, getrandom, getpid, gettid, exit,
# exit_group.
_ALLOWED: Final = {
    "x86_64": (
        0xC000003E,
        *(0, 1, 3, 8, 9, 11, 25, 12, 28, 13, 14, 15, 131, 202, 24, 219, 228, 318, 39, 186, 60, 231),
    ),
    "aarch64": (
        0xC00000B7,
        *(63, 64, 57, 62, 222, 215, 216, 214, 233, 134, 135, 139, 132, 98, 124, 128, 113, 278, 172),
        *(178, 93, 94),
    ),
}
# Linux, include/uapi/linux: prctl.h, seccomp.h, bpf_common.h.
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # _DENY: with EPERM
_INSTRUCTION: Final = struct.Struct("=HBBI")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def limit(*, seconds: int, memory_bytes: int) -> None:
    """
    Limit what this process may take: *seconds* of a processor, and *memory_bytes* more than it has.
    """
    if sys.platform != "win32":
        limits = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_NPROC: 0,
        }
        if (_OWN / "statm").exists():
            pages = int((_OWN / "statm").read_text().split()[0])
            limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory_bytes
            (_OWN / "oom_score_adj").write_text("1000")  # the first to go where memory runs out
        for kind, most in limits.items():
            resource.setrlimit(kind, (most, most))
        # The first ends it by SIGXCPU, which says why; the second by SIGKILL, as others do.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def close_in() -> None:
    """Take from this process all ways out, for good; what it needs has to be loaded by now."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    if sys.platform == "linux" and platform.machine() in _ALLOWED:
        _filter(*_ALLOWED[platform.machine()])
    sys.addaudithook(_refuse)


def _filter(architecture: int, *allowed: int) -> None:
    """Have the kernel refuse every call of a process of *architecture* that is not *allowed*."""
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUALS, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *((_EQUALS, len(allowed) - place, 0, number) for place, number in enumerate(allowed)),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    written = b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)
    program = _Program(len(code), written)
    libc = ctypes.CDLL(None)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program))


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if event.partition(".")[0] in _REFUSED:
        raise PermissionError(f"closed in: {event}")
