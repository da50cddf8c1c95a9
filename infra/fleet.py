"""
The fleet: parent instances from one launch template, replaced a few at a time.
"""

import json
from dataclasses import dataclass
from typing import Final

from aws_cdk import Duration, Stack
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from app.parent.config import AT_ONCE_METRIC, HostConfig
from infra.enclave_image import EnclaveImage
from infra.host_role import HostRole
from infra.host_software import HostSoftware
from infra.instances import Sizes
from infra.logs import Logs
from infra.metrics import host_metric
from infra.network import Network
from infra.parameters import FleetSize
from infra.rolling import ANSWERS_AN_ENCLAVE, batch_size
from infra.user_data import SHEBANG, Fetched, user_data
from infra.volume import BASE_MIB_A_SECOND, volume_of

# The newest AL2023 with its default kernel; AWS keeps this public parameter.
AMI_PARAMETER: Final = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
# Packages, the EIF and its weights from S3, their checks and the enclave's boot.
BOOT_TIME: Final = Duration.minutes(30)
_QUIET_DURING_UPDATES: Final = [
    autoscaling.ScalingProcess.HEALTH_CHECK,
    autoscaling.ScalingProcess.REPLACE_UNHEALTHY,
    autoscaling.ScalingProcess.AZ_REBALANCE,
    autoscaling.ScalingProcess.ALARM_NOTIFICATION,
    autoscaling.ScalingProcess.SCHEDULED_ACTIONS,
]


@dataclass(frozen=True, slots=True)
class Cargo:
    """What each instance carries, and where it says how that goes."""

    image: EnclaveImage
    software: HostSoftware
    logs: Logs


class Fleet(Construct):
    """
    Parent instances, each with one enclave of *sizes*: a fixed number, or as many as answers need.

    Where it scales, the group keeps the answers under way and waiting, of an enclave on average, at
    `ANSWERS_AN_ENCLAVE`. An instance that is not needed any more leaves the load balancer, finishes
    its answers, and ends.

    An update starts new instances, a fifth of the fleet at a time, waits until their enclaves have
    proven themselves, drains and ends as many old ones, and so on; a new one that fails rolls
    everything back.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        network: Network,
        role: HostRole,
        cargo: Cargo,
        sizes: Sizes,
        size: FleetSize,
        fips: bool,
    ) -> None:
        super().__init__(scope, name)
        self.size = size
        # The script needs the group's name, and the group the script: it follows, without the
        # first line, which is here already.
        self._user_data = ec2.UserData.for_linux(shebang=SHEBANG)
        template = self._launch_template(network, role, sizes, cargo.image)
        self.group = self._group(network, template, size)
        if size.scales:
            self._scale()
        resource = self.group.node.default_child
        assert isinstance(resource, autoscaling.CfnAutoScalingGroup)  # noqa: S101
        signalled = Stack.of(self).get_logical_id(resource)
        script = _boot_script(Stack.of(self), cargo, sizes, signalled, fips=fips)
        self._user_data.add_commands(script.removeprefix(f"{SHEBANG}\n"))

    def _scale(self) -> None:
        self.group.scale_to_track_metric(
            "AnswersAtOnce",
            metric=host_metric(self, AT_ONCE_METRIC, "Average", Duration.minutes(1)),
            target_value=ANSWERS_AN_ENCLAVE,
            estimated_instance_warmup=BOOT_TIME,  # it takes no questions before
        )

    def _launch_template(
        self, network: Network, role: HostRole, sizes: Sizes, image: EnclaveImage
    ) -> ec2.LaunchTemplate:
        approved = image.image
        volume = volume_of(eif_bytes=approved.eif_bytes, weights_bytes=approved.weights_bytes)
        faster = volume.mib_a_second if volume.mib_a_second > BASE_MIB_A_SECOND else None
        return ec2.LaunchTemplate(
            self,
            "Template",
            instance_type=ec2.InstanceType(sizes.instance_type.name),
            machine_image=ec2.MachineImage.from_ssm_parameter(AMI_PARAMETER),
            nitro_enclave_enabled=True,
            role=role.role.without_policy_updates(),  # or CDK adds to its permissions
            security_group=network.hosts,
            associate_public_ip_address=False,
            http_tokens=ec2.LaunchTemplateHttpTokens.REQUIRED,
            http_put_response_hop_limit=1,
            http_endpoint=True,
            instance_metadata_tags=False,
            detailed_monitoring=True,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        volume.gib,
                        encrypted=True,
                        volume_type=ec2.EbsDeviceVolumeType.GP3,
                        throughput=faster,
                    ),
                )
            ],
            user_data=self._user_data,
        )

    def _group(
        self, network: Network, template: ec2.LaunchTemplate, size: FleetSize
    ) -> autoscaling.AutoScalingGroup:
        batch = batch_size(size.most)
        return autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=network.vpc,
            vpc_subnets=network.private,
            launch_template=template,
            min_capacity=size.least,
            # One that stays has room for a batch more, which is so replaced without a gap. One that
            # scales is never larger than its operator wants.
            max_capacity=size.most if size.scales else size.most + batch,
            # EC2's own: an instance whose enclave is down is repaired by its supervisor.
            health_checks=autoscaling.HealthChecks.ec2(),
            signals=autoscaling.Signals.wait_for_count(size.least, timeout=BOOT_TIME),
            update_policy=autoscaling.UpdatePolicy.rolling_update(
                max_batch_size=batch,
                min_instances_in_service=size.least,
                pause_time=BOOT_TIME,
                wait_on_resource_signals=True,
                suspend_processes=_QUIET_DURING_UPDATES,
            ),
        )


def _boot_script(stack: Stack, cargo: Cargo, sizes: Sizes, signalled: str, *, fips: bool) -> str:
    image, software = cargo.image, cargo.software
    release = image.image.release
    config = HostConfig(
        region=stack.region,
        stack_name=stack.stack_name,
        log_group=cargo.logs.host_name,
        release=release.name,
        pcr0=release.measurements.pcr0.hex(),
        pcr1=release.measurements.pcr1.hex(),
        pcr2=release.measurements.pcr2.hex(),
        weights_sha256=release.weights_sha256.hex(),
        enclave_vcpus=sizes.enclave_vcpus,
        enclave_memory_mib=sizes.enclave_memory_mib,
        fips=fips,
    )
    return user_data(
        region=stack.region,
        stack_name=stack.stack_name,
        logical_id=signalled,
        host_url=software.asset.s3_object_url,
        host_manifest_sha256=software.manifest_sha256,
        eif_url=image.asset.s3_object_url,
        eif_bytes=image.image.eif_bytes,
        eif_sha256=image.image.eif_sha256.hex(),
        weights=[
            Fetched(image.url_of(file), file.path.name, file.size_bytes, file.sha256)
            for file in image.image.weights
        ],
        enclave_vcpus=sizes.enclave_vcpus,
        enclave_memory_mib=sizes.enclave_memory_mib,
        host_json=json.dumps(config.to_dict()),
    )
