"""
nitro-cli: the command that starts, lists and ends enclaves, and what its errors mean.

It goes into the background once an enclave has booted, so nobody notices an enclave's end who
does not ask. It reports progress on standard error and results as JSON on standard output.

Source: aws-nitro-enclaves-cli 1.5, src/common/json_output.rs and document_errors.rs; what raises
each code: src/main.rs, src/enclave_proc and src/enclave_proc_comm.rs.
"""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.parent.config import HostConfig
from app.protocol.errors import AppError

NAME: Final = "enclave-llm"
EIF_PATH: Final = Path("/var/lib/enclave-llm/enclave.eif")
NITRO_CLI: Final = Path("/usr/bin/nitro-cli")
_SECONDS: Final = 60
# The first one waits for the thread that measures the image: minutes above some 10 GB. To kill it
# then can end the enclave.
_DESCRIBE_SECONDS: Final = 600
_RUN_SECONDS: Final = 900  # 90 s for each 6 GiB of EIF and 90 s for each 100 GiB of memory, ample
_ERROR_CODE: Final = re.compile(r"\[ (E\d{2}) \]")
_UNSET: Final = "?"

_LOG: Final = "its log is /var/log/nitro_enclaves/nitro_enclaves.log"
_DRIVER: Final = (
    "the kernel refused the enclave's memory, vCPUs or CID: another enclave may hold them, or they "
    "lie on two NUMA nodes or in too many pieces: end other enclaves, then restart the instance"
)
_UNABLE: Final = f"nitro-cli cannot work on this machine: {_LOG}"
# By command, since one code means different things in each. A failed run-enclave names the cause
# first and E39 after it, because the process that was to hold the enclave is gone.
_ADVICE: Final[Mapping[str, Mapping[str, str]]] = {
    "run-enclave": {
        "E19": "a file cannot be opened: the image, or /dev/nitro_enclaves, which an instance "
        "without enclaves lacks: replace the instance",
        "E21": "a vCPU that was asked for is not in the allocator's pool: restart the instance",
        "E22": "fewer vCPUs are reserved than asked for: end other enclaves, or ask for fewer",
        "E26": "the memory is less than the image needs, four times its size: deploy with more",
        "E27": "fewer huge pages are free than asked for: restart the instance, so that they are "
        "reserved before memory is in pieces",
        "E28": "no enclave can be made here: all slots of the instance are taken, or it was "
        "started without enclaves: end other enclaves, or replace the instance",
        **dict.fromkeys(("E29", "E30", "E31", "E32", "E33"), _DRIVER),
        "E35": "the image cannot be put into huge pages: they were taken meanwhile, or its file is "
        "cut short: restart the instance, and if that does not help, replace it",
        "E36": "the enclave did not say in time that it has booted: its memory is too small to "
        "unpack the image, or another enclave was starting: try the image with bin/demo --enclave "
        "qemu, and deploy with more memory",
        "E39": f"the process that was to hold the enclave ended without a word: {_LOG}",
        "E44": "the enclave was gone as soon as it had started: try the image with bin/demo "
        "--enclave qemu",
        "E59": "the image is damaged, or its signature's certificate has expired: replace the "
        "instance, which fetches the image again",
    },
    "describe-enclaves": {
        "E07": "/run/nitro_enclaves cannot be read: restart the unit of the supervisor, which "
        "makes it",
        "E35": "the image's file is damaged, so what runs cannot be measured here: replace the "
        "instance, which fetches it again",
        "E38": f"the process that holds an enclave does not describe it: {_LOG}",
        "E39": "the process that holds an enclave does not answer, as while it starts or ends: if "
        "it stays so, restart the instance",
    },
    "terminate-enclave": {
        "E11": "there is no such enclave any more, or the process that held it is gone",
        "E38": f"the process that holds the enclave did not end it: {_LOG}",
        "E39": "the process that holds the enclave does not answer: restart the instance",
    },
}
_ANYWHERE: Final[Mapping[str, str]] = {"E18": _UNABLE, "E19": _UNABLE, "E56": _UNABLE}


class NitroCliError(AppError):
    """
    nitro-cli failed, took too long or printed what it never prints.

    Attributes:
        cli_code: Such as E26; "none" where it gave none.
    """

    code = "nitro_cli"

    def __init__(self, message: str, *, cli_code: str = "none") -> None:
        super().__init__(message)
        self.cli_code = cli_code


@dataclass(frozen=True, slots=True)
class RunningEnclave:
    """
    One enclave as `describe-enclaves` lists it.

    Attributes:
        pcrs: Hex by name. In debug mode they are those of the image, not those attested.
    """

    enclave_id: str
    name: str
    cid: int
    state: str
    flags: str
    pcrs: Mapping[str, str]

    @property
    def debug(self) -> bool:
        """Whether anything but NONE stands in its flags, which is debug mode."""
        return self.flags.upper() != "NONE"


class NitroCli:
    """
    The command.

    Args:
        program: Its path.
    """

    def __init__(self, program: Path = NITRO_CLI) -> None:
        self._program = program

    def describe(self) -> tuple[RunningEnclave, ...]:
        """
        List the enclaves of this instance.

        Raises:
            NitroCliError: It failed, or printed something else.
        """
        return parse_enclaves(self._call("describe-enclaves", seconds=_DESCRIBE_SECONDS))

    def run(self, config: HostConfig, eif_path: Path) -> None:
        """
        Start the enclave of *config* from *eif_path*, never in debug mode; wait until it booted.

        Raises:
            NitroCliError: It failed; says what to do.
        """
        self._call(
            "run-enclave",
            *("--enclave-name", NAME),
            *("--eif-path", str(eif_path)),
            *("--cpu-count", str(config.enclave_vcpus)),
            *("--memory", str(config.enclave_memory_mib)),
            *("--enclave-cid", str(config.enclave_cid)),
            seconds=_RUN_SECONDS,
        )

    def terminate(self, enclave_id: str) -> None:
        """
        End an enclave.

        Raises:
            NitroCliError: It failed.
        """
        self._call("terminate-enclave", "--enclave-id", enclave_id)

    def _call(self, *arguments: str, seconds: float = _SECONDS) -> str:
        command: Sequence[str] = (str(self._program), *arguments)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise NitroCliError(f"{arguments[0]} took more than {seconds:.0f} s") from None
        except (OSError, UnicodeDecodeError) as error:
            raise NitroCliError(f"{arguments[0]} did not run: {type(error).__name__}") from None
        if done.returncode != 0:
            raise explain(arguments[0], done.stderr)
        return done.stdout


def explain(command: str, stderr: str) -> NitroCliError:
    """Give the error that *stderr* of a failed *command* means, with what to do next."""
    match = _ERROR_CODE.search(stderr)
    if match is None:
        return NitroCliError(f"{command} failed without a code: see /var/log/nitro_enclaves")
    code = match[1]
    known = {**_ANYWHERE, **_ADVICE.get(command, {})}
    advice = known.get(code, f"nitro-cli explain --error-code {code} says more")
    return NitroCliError(f"{command}: {code}: {advice}", cli_code=code)


def parse_enclaves(text: str) -> tuple[RunningEnclave, ...]:
    """
    Parse what `describe-enclaves` prints.

    Raises:
        NitroCliError: It is no list of enclaves.
    """
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise NitroCliError("describe-enclaves printed no JSON") from None
    if not isinstance(value, list):
        raise NitroCliError("describe-enclaves printed no list")
    return tuple(_parse_enclave(entry) for entry in value)


def _parse_enclave(entry: object) -> RunningEnclave:
    match entry:
        case {
            "EnclaveID": str(enclave_id),
            "EnclaveCID": int(cid),
            "State": str(state),
            "Flags": str(flags),
            **rest,
        }:
            name, pcrs = rest.get("EnclaveName"), rest.get("Measurements")
            return RunningEnclave(
                enclave_id=enclave_id,
                name=name if isinstance(name, str) else _UNSET,
                cid=cid,
                state=state.upper(),
                flags=flags,
                pcrs=_parse_pcrs(pcrs if isinstance(pcrs, dict) else {}),
            )
    raise NitroCliError("describe-enclaves listed an enclave without id, CID, state or flags")


def _parse_pcrs(measurements: Mapping[object, object]) -> dict[str, str]:
    return {
        name: pcr.lower()
        for name, pcr in measurements.items()
        if isinstance(name, str) and isinstance(pcr, str)
    }
