import json
import re
import shlex
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

ROOT = Path(__file__).parents[3]
USER = "65532:65532"
DOOR = "/run/enclave-llm"
# Of a Compose file's service, what the Compose Specification has and the examples may use.
KEYS = {
    *("cap_drop", "depends_on", "environment", "image", "mem_limit", "pids_limit", "pull_policy"),
    *("read_only", "restart", "security_opt", "stop_grace_period", "user", "volumes"),
}


@pytest.fixture
def task() -> dict[str, Any]:
    """The task definition."""
    value: dict[str, Any] = json.loads((ROOT / "sidecar/ecs-task.json").read_text())
    return value


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the Compose file."""
    compose = yaml.safe_load((ROOT / "sidecar/compose.yaml").read_text())
    assert set(compose) == {"services", "volumes"}
    assert compose["volumes"] == {"door": {}}
    value: dict[str, Any] = compose["services"]
    return value


def dockerfile(instruction: str, name: str = "sidecar/Dockerfile") -> list[str]:
    """Give what the file *name* says after *instruction*, on the line or lines of it."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.*)$", text, re.MULTILINE)


def test_ecs_takes_the_task(task: dict[str, Any]) -> None:
    """AWS's own model of RegisterTaskDefinition finds nothing wrong with it."""
    model = botocore.session.get_session().get_service_model("ecs")
    shape = model.operation_model("RegisterTaskDefinition").input_shape
    assert shape is not None
    report = ParamValidator().validate(task, shape)
    assert not report.has_errors(), report.generate_report()
    report = ParamValidator().validate({**task, "volumes": "door"}, shape)
    assert report.has_errors()


def test_the_task_keeps_the_door_to_itself(task: dict[str, Any]) -> None:
    """No root, no writable root, no capability, no port; the application has the same user."""
    sidecar, application = task["containerDefinitions"]
    assert sidecar["user"] == application["user"] == USER
    assert sidecar["readonlyRootFilesystem"] is True
    assert sidecar["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert not any("portMappings" in each for each in (sidecar, application))
    assert not any("secrets" in each for each in (sidecar, application))
    assert "environment" not in sidecar
    assert re.search(r"@sha256:[0-9a-f]{64}$", sidecar["image"])  # a tag can be moved
    assert sidecar["logConfiguration"]["logDriver"] == "awslogs"
    assert sidecar["mountPoints"] == [{"sourceVolume": "door", "containerPath": DOOR}]
    assert application["mountPoints"][0]["readOnly"] is True
    assert application["dependsOn"][0] == {"containerName": "enclave-llm", "condition": "HEALTHY"}
    assert sidecar["memory"] < int(task["memory"])
    assert int(task["memory"]) in range(2 * int(task["cpu"]), 8 * int(task["cpu"]) + 1, 1024)


def test_the_compose_file(services: dict[str, Any]) -> None:
    """The same in Compose, with no key that Compose has not and no volume that is not there."""
    for service in services.values():
        assert set(service) <= KEYS
        assert all(name in services for name in service.get("depends_on", {}))
        for volume in service["volumes"]:
            if isinstance(volume, dict):
                continue
            source, target, *mode = volume.split(":")
            assert source == "door"
            assert target == DOOR
            assert mode in ([], ["ro"])
    sidecar, application = services["enclave-llm"], services["application"]
    assert sidecar["read_only"] is True
    assert sidecar["cap_drop"] == ["ALL"]
    assert sidecar["security_opt"] == ["no-new-privileges:true"]
    assert sidecar["pull_policy"] == "never"
    files, door = sidecar["volumes"]
    assert files == {
        "type": "bind",
        "source": "${HOME}/.config/enclave-llm",
        "target": "/config/enclave-llm",
        "read_only": True,
        "bind": {"create_host_path": False},  # or Docker makes it, as root
    }
    assert door == f"door:{DOOR}"
    assert application["volumes"] == [f"door:{DOOR}:ro"]
    assert application["user"] == USER
    assert application["depends_on"] == {"enclave-llm": {"condition": "service_healthy"}}


def test_both_examples_have_the_same_limits(task: dict[str, Any], services: dict[str, Any]) -> None:
    """Memory, and the time from SIGTERM to SIGKILL."""
    sidecar, service = task["containerDefinitions"][0], services["enclave-llm"]
    assert service["mem_limit"] == f"{sidecar['memory']}m"
    assert service["stop_grace_period"] == f"{sidecar['stopTimeout']}s"


def test_the_image_is_what_the_examples_say(task: dict[str, Any]) -> None:
    """User, volume, health check, its times, and place of the socket are the image's own."""
    assert dockerfile("USER") == [USER]
    assert dockerfile("VOLUME") == [DOOR]
    (check,) = dockerfile("HEALTHCHECK")
    command = json.loads(check.partition("CMD")[2])
    told = dict(re.findall(r"--([a-z-]+)=(\d+)", check))
    assert task["containerDefinitions"][0]["healthCheck"] == {
        "command": ["CMD", *command],
        "interval": int(told["interval"]),
        "timeout": int(told["timeout"]),
        "retries": int(told["retries"]),
        "startPeriod": int(told["start-period"]),
    }
    (started,) = dockerfile("CMD")
    assert json.loads(started)[:3] == ["serve", "--socket", f"{DOOR}/socket"]
    assert command[-1] == f"{DOOR}/socket"
    assert dockerfile("EXPOSE") == []
    assert all("://" not in line for line in dockerfile("(?:ADD|COPY|FROM)"))
    assert shlex.split(dockerfile("FROM")[0]) == ["scratch"]


def test_the_pages_images_have_files_that_the_containers_user_can_read() -> None:
    """A list that `releases import` wrote is its owner's alone, and the container is another."""
    copies = dockerfile("COPY", "docs/sidecar.md")
    assert copies == ["--chmod=0444 chat.json releases.json /config/enclave-llm/"] * 2


def test_the_page_serves_on_a_port_as_the_image_serves_on_its_socket() -> None:
    """The page's health check is the image's, asked of the port, and its token stays in a file."""
    page = "docs/sidecar.md"
    (own,), (check,) = dockerfile("HEALTHCHECK"), dockerfile("HEALTHCHECK", page)
    (started,), (command,) = dockerfile("CMD"), dockerfile("CMD", page)
    _, port, *token = json.loads(command)[1:]
    assert check == own.replace(f"{DOOR}/socket", port)
    assert token == json.loads(started)[3:]
