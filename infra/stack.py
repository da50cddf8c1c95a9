"""
The stack: everything of one deployment, in the order in which each part needs the other.
"""

from typing import Final

from aws_cdk import CfnOutput, Environment, Stack
from constructs import Construct

from infra.alarms import Alarms
from infra.approved_image import ApprovedImage
from infra.chat_role import ChatRole
from infra.dashboard import Dashboard
from infra.enclave_image import EnclaveImage
from infra.fleet import Cargo, Fleet
from infra.front import Front
from infra.host_role import HostRole
from infra.host_software import HostSoftware
from infra.key import EnclaveKey
from infra.logs import Logs
from infra.network import ZONES, KmsUse, Network, first_zones
from infra.parameters import Parameters

MAX_NAME_CHARACTERS: Final = 32  # so that role names with it and a Region stay under IAM's 64


class EnclaveStack(Stack):
    """
    One deployment: a key that only approved images may use, and instances that run one of them.

    Args:
        account: 12 digits; a value and no placeholder, since the key policy names it.

        region: A value, too; endpoints and repositories are named after it.

    Raises:
        ConfigError: The sizes do not fit, or the host's software is not whole.

        KeyPolicyError: As `key_policy`.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        account: str,
        region: str,
        parameters: Parameters,
        image: ApprovedImage,
    ) -> None:
        super().__init__(
            scope,
            name,
            env=Environment(account=account, region=region),
            description="enclave-llm: questions that only attested Nitro Enclaves can read",
        )
        logs = Logs(self, "Logs")
        eif = EnclaveImage(self, "EnclaveImage", image=image)
        software = HostSoftware(self, "HostSoftware", path=parameters.host)
        file_arns = (*eif.object_arns, software.object_arn)
        chat_role = self._chat_role(f"{name}-chat-{region}", account, parameters)
        key = EnclaveKey(self, "Key", account=account, chat_role=chat_role, releases=image.releases)
        host_role = HostRole(
            self,
            "HostRole",
            role_name=f"{name}-host-{region}",
            key_arn=key.arn,
            weights_key=parameters.weights_key,
            logs=logs,
            file_arns=file_arns,
        )

        network = Network(self, "Network", vpc=parameters.vpc, public=parameters.public, logs=logs)
        use = KmsUse(key.arn, chat_role.arn, parameters.weights_key, host_role.arn)
        network.add_kms_endpoint(use, fips=parameters.fips)
        network.add_host_endpoints(host_role.arn)
        network.add_s3_endpoint(
            host_role_arn=host_role.arn,
            file_arns=file_arns,
            packages_bucket=parameters.packages_bucket,
        )
        fleet = Fleet(
            self,
            "Fleet",
            network=network,
            role=host_role,
            cargo=Cargo(eif, software, logs),
            sizes=image.require_sizes(parameters.sizes),
            size=parameters.fleet,
            fips=parameters.fips,
        )
        # An image is approved before it runs, and a host's first calls find their way.
        fleet.group.node.add_dependency(key, network, host_role)
        front = self._front(parameters, network, fleet)
        email = parameters.alarm_email
        alarms = Alarms(self, "Alarms", key=key, logs=logs, fleet=fleet, front=front, email=email)
        Dashboard(self, "Dashboard", release=image.release, key_events=alarms.seen)
        self._tell(front, key, chat_role, parameters)

    @property
    def availability_zones(self) -> list[str]:
        """Those that the stack takes."""
        return first_zones(ZONES)

    def _chat_role(self, role_name: str, account: str, parameters: Parameters) -> ChatRole:
        return ChatRole(
            self,
            "ChatRole",
            account=account,
            role_name=role_name,
            principals=parameters.chat_principals,
            require_source_identity=parameters.require_source_identity,
        )

    def _front(self, parameters: Parameters, network: Network, fleet: Fleet) -> Front:
        return Front(
            self,
            "Front",
            network=network,
            client_cidrs=parameters.client_cidrs,
            public=parameters.public,
            certificate_arn=parameters.certificate_arn,
            group=fleet.group,
            hostname=parameters.hostname,
            privatelink_principals=parameters.privatelink_principals,
        )

    def _tell(
        self, front: Front, key: EnclaveKey, chat_role: ChatRole, parameters: Parameters
    ) -> None:
        """Give addresses, never trust: an asker's list of releases comes from elsewhere."""
        addresses = {"url": front.url, "key_arn": key.arn, "chat_role_arn": chat_role.arn}
        flags = {
            "any_certificate": parameters.certificate_arn is None,
            "fips": parameters.fips,
        }
        CfnOutput(self, "Url", value=front.url)
        if parameters.hostname:
            CfnOutput(
                self,
                "BalancerName",
                value=front.balancer.load_balancer_dns_name,
                description=f"What {parameters.hostname} has to be an alias of",
            )
        if front.service:
            CfnOutput(
                self,
                "EndpointService",
                value=front.service.vpc_endpoint_service_name,
                description="What consumers make their PrivateLink endpoint to",
            )
        CfnOutput(self, "KeyArn", value=key.arn)
        CfnOutput(self, "ChatRoleArn", value=chat_role.arn)
        CfnOutput(
            self,
            "ChatJson",
            value=self.to_json_string({**addresses, **flags}),
            description="Askers keep this as ~/.config/enclave-llm/chat.json",
        )
