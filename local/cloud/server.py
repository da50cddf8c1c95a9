"""
The stand-in for CloudFormation and the services behind it: MiniStack, with what it lacks.

Runs in an environment of its own (.venv-cloud), started by `local.cloud.cloud`. What is added
reaches into MiniStack's own tables, so its version is pinned. It proves ordering, updates,
roll-back and deletion as MiniStack does them; that AWS accepts a value, it cannot prove.
"""

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from ministack import app
from ministack.services import ec2
from ministack.services.cloudformation import provisioners

from local.processes.child import end_with_supervisor

Properties = dict[str, object]
Created = tuple[str, dict[str, str]]

_numbers: Final = itertools.count(1)
_handlers: Final = provisioners._RESOURCE_HANDLERS  # noqa: SLF001 - there is no public way
_sg_permissions: Final = provisioners._ec2_sg_permissions  # noqa: SLF001
_security_groups: Final = ec2._security_groups  # noqa: SLF001
_flow_logs: Final = ec2._flow_logs  # noqa: SLF001
_services: Final[dict[str, object]] = {}


def _rule_handlers(direction: str) -> Mapping[str, Callable[..., object]]:
    """Handle a rule that stands apart from its security group, as CDK writes mutual ones."""

    def create(_logical_id: str, properties: Properties, _stack_name: str) -> Created:
        group = _security_groups[properties["GroupId"]]
        group.setdefault(direction, []).extend(_sg_permissions([properties]))
        return f"sgr-{next(_numbers):017x}", {}

    def delete(_physical_id: str, properties: Properties) -> None:
        group = _security_groups.get(properties["GroupId"])
        for permission in _sg_permissions([properties]):
            if group and permission in group.get(direction, []):
                group[direction].remove(permission)

    return {"create": create, "delete": delete}


def _create_flow_log(_logical_id: str, properties: Properties, _stack_name: str) -> Created:
    flow_log_id = f"fl-{next(_numbers):017x}"
    names = ("ResourceId", "TrafficType", "LogDestinationType", "LogGroupName")
    record = {name: properties.get(name, "") for name in names}
    _flow_logs[flow_log_id] = {
        **record,
        "CreationTime": datetime.now(UTC).isoformat(),
        "FlowLogId": flow_log_id,
        "FlowLogStatus": "ACTIVE",
    }
    return flow_log_id, {"Id": flow_log_id}


def _delete_flow_log(physical_id: str, _properties: Properties) -> None:
    _flow_logs.pop(physical_id, None)


def _create_service(_logical_id: str, properties: Properties, _stack_name: str) -> Created:
    """Make what PrivateLink's consumers connect to; it exists by its number alone."""
    balancers = properties["NetworkLoadBalancerArns"]
    if not isinstance(balancers, list) or not all(map(str, balancers)):
        raise ValueError("an endpoint service has no load balancer")
    service_id = f"vpce-svc-{next(_numbers):017x}"
    _services[service_id] = []
    return service_id, {"ServiceId": service_id}


def _delete_service(physical_id: str, _properties: Properties) -> None:
    del _services[physical_id]


def _allow_principals(_logical_id: str, properties: Properties, _stack_name: str) -> Created:
    service_id = str(properties["ServiceId"])
    _services[service_id] = properties["AllowedPrincipals"]
    return f"{service_id}-permissions", {}


def _forbid_principals(_physical_id: str, properties: Properties) -> None:
    _services[str(properties["ServiceId"])] = []


def main() -> None:
    """Serve on the port that the environment names, until ended."""
    _handlers["AWS::EC2::SecurityGroupIngress"] = _rule_handlers("IpPermissions")
    _handlers["AWS::EC2::SecurityGroupEgress"] = _rule_handlers("IpPermissionsEgress")
    _handlers["AWS::EC2::FlowLog"] = {"create": _create_flow_log, "delete": _delete_flow_log}
    _handlers["AWS::EC2::VPCEndpointService"] = {
        "create": _create_service,
        "delete": _delete_service,
    }
    _handlers["AWS::EC2::VPCEndpointServicePermissions"] = {
        "create": _allow_principals,
        "delete": _forbid_principals,
    }
    end_with_supervisor()
    app.main()


if __name__ == "__main__":
    main()
