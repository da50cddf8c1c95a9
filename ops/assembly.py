"""
An assembly: what the CDK synthesised, as its own files tell it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.protocol.errors import ConfigError

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Assembly:
    """
    What is deployed of one assembly.

    Attributes:
        key_policy: Of the enclaves' key.
    """

    path: Path
    name: str
    template: Json
    key_policy: Json


def read_assembly(path: Path, name: str) -> Assembly:
    """
    Read stack *name* of the assembly in *path*.

    Raises:
        ConfigError: It is not there, or has no key as ours has.
    """
    try:
        template = json.loads((path / f"{name}.template.json").read_text())
    except (OSError, ValueError):
        raise ConfigError(f"{path} has no readable template of stack {name}") from None
    return Assembly(path, name, template, find_key_policy(template))


def find_key_policy(template: Json) -> Json:
    """
    Find the key policy in *template*: that of the key whose ARN the stack puts out.

    Raises:
        ConfigError: There is none.
    """
    match template:
        case {
            "Outputs": {"KeyArn": {"Value": {"Fn::GetAtt": [str(key), "Arn"]}}},
            "Resources": {**resources},
        }:
            match resources.get(key):
                case {"Properties": {"KeyPolicy": {**policy}}}:
                    return {str(name): value for name, value in policy.items()}
    raise ConfigError("the template has no key whose ARN it puts out")
