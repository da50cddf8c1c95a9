"""
nitro-cli: the command that starts, lists and ends enclaves, and what its errors mean.

It goes into the background once an enclave has booted, so nobody notices an enclave's end who
does not ask. It reports progress on standard error and results as JSON on standard output.

Source: aws-nitro-enclaves-cli 1.5, src/common/json_output.rs and document_errors.rs.
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
_RUN_SECONDS: Final = 900  # 90 s for each 6 GiB of EIF and 90 s for each 100 GiB of memory, ample
_ERROR_CODE: Final = re.compile(r"\bE(\d{2})\b")
_UNSET: Final = "?"

_BOOT: Final = (
    "the enclave did not start in time: check the image with bin/releases verify, and, if it is "
    "signed, that its certificate has not expired"
)
_ADVICE: Final = {
    "E11": _BOOT,
    "E22": "fewer vCPUs are free than asked for: end other enclaves, or ask for fewer",
    "E26": "the memory is less than the image needs, four times its size: deploy with more",
    "E27": "fewer huge pages are free than asked for: restart the instance, so that they are "
    "reserved before memory is in pieces",
    "E35": "the image is damaged: replace the instance, which fetches it again",
    "E36": _BOOT,
    "E39": _BOOT,
    "E44": "the enclave ended while it started: check the image under bin/demo, then replace it",
    "E51": "neither HOME nor NITRO_CLI_ARTIFACTS is set: restore the unit of the supervisor",
}


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
        return parse_enclaves(self._call("describe-enclaves"))

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
    code = match[0]
    advice = _ADVICE.get(code, f"nitro-cli explain --error-code {code} says more")
    return NitroCliError(f"{code}: {advice}", cli_code=code)


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
