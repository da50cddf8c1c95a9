"""
Feature flags: the CDK's own settings, each as `cdk init` sets it for a new app.

Every flag that this version of the CDK asks about is here, so that an upgrade decides none. Most
concern what this stack has nothing of.
"""

from collections.abc import Mapping
from typing import Final

from infra.attested_policy import PARTITIONS

_ON: Final[Mapping[str, tuple[str, ...]]] = {
    "@aws-cdk-containers/ecs-service-extensions": ("enableDefaultLogDriver",),
    "@aws-cdk/aws-apigateway": (
        "authorizerChangeDeploymentLogicalId",
        "disableCloudWatchRole",
        "logGroupDestinationArnWithoutWildcard",
        "requestValidatorUniqueId",
    ),
    "@aws-cdk/aws-appsync": (
        "appSyncGraphQLAPIScopeLambdaPermission",
        "useArnForSourceApiAssociationIdentifier",
    ),
    "@aws-cdk/aws-autoscaling": ("generateLaunchTemplateInsteadOfLaunchConfig",),
    "@aws-cdk/aws-batch": ("defaultToAL2023",),
    "@aws-cdk/aws-cloudfront": (
        "defaultFunctionRuntimeV2_0",
        "defaultViewerProtocolPolicyRedirectToHttps",
    ),
    "@aws-cdk/aws-cloudwatch-actions": ("changeLambdaPermissionLogicalIdForLambdaAction",),
    "@aws-cdk/aws-codedeploy": ("removeAlarmsFromDeploymentGroup",),
    "@aws-cdk/aws-codepipeline-actions": ("useNewDefaultBranchForCodeCommitSource",),
    "@aws-cdk/aws-codepipeline": (
        "crossAccountKeyAliasStackSafeResourceName",
        "crossAccountKeysDefaultValueToFalse",
        "defaultPipelineTypeToV2",
    ),
    "@aws-cdk/aws-dynamodb": (
        "resourcePolicyPerReplica",
        "retainTableReplica",
    ),
    "@aws-cdk/aws-ec2": (
        "bastionHostUseAmazonLinux2023ByDefault",
        "ebsDefaultGp3Volume",
        "ec2SumTImeoutEnabled",
        "launchTemplateDefaultUserData",
        "requirePrivateSubnetsForEgressOnlyInternetGateway",
        "uniqueImdsv2TemplateName",
    ),
    "@aws-cdk/aws-ecs-patterns": (
        "secGroupsDisablesImplicitOpenListener",
        "uniqueTargetGroupId",
    ),
    "@aws-cdk/aws-ecs": (
        "arnFormatIncludesClusterName",
        "disableExplicitDeploymentControllerForCircuitBreaker",
        "reduceEc2FargateCloudWatchPermissions",
        "removeDefaultDeploymentAlarm",
        "removeEmptyLoadBalancers",
    ),
    "@aws-cdk/aws-efs": (
        "denyAnonymousAccess",
        "mountTargetOrderInsensitiveLogicalId",
    ),
    "@aws-cdk/aws-eks": (
        "defaultToAL2023",
        "nodegroupNameAttribute",
        "useNativeOidcProvider",
    ),
    "@aws-cdk/aws-elasticloadbalancingV2": (
        "albDualstackWithoutPublicIpv4SecurityGroupRulesDefault",
    ),
    "@aws-cdk/aws-elasticloadbalancingv2": (
        "networkLoadBalancerWithSecurityGroupByDefault",
        "usePostQuantumTlsPolicy",
    ),
    "@aws-cdk/aws-events": (
        "eventsTargetQueueSameAccount",
        "requireEventBusPolicySid",
    ),
    "@aws-cdk/aws-iam": (
        "importedRoleStackSafeDefaultPolicyName",
        "oidcRejectUnauthorizedConnections",
    ),
    "@aws-cdk/aws-kms": (
        "aliasNameRef",
        "applyImportedAliasPermissionsToPrincipal",
        "reduceCrossAccountRegionPolicyScope",
    ),
    "@aws-cdk/aws-lambda-nodejs": (
        "sdkV3ExcludeSmithyPackages",
        "useLatestRuntimeVersion",
    ),
    "@aws-cdk/aws-lambda": (
        "recognizeLayerVersion",
        "useCdkManagedLogGroup",
    ),
    "@aws-cdk/aws-opensearchservice": ("enableOpensearchMultiAzWithStandby",),
    "@aws-cdk/aws-rds": (
        "auroraClusterChangeScopeOfInstanceParameterGroupWithEachParameters",
        "databaseProxyUniqueResourceName",
        "preventRenderingDeprecatedCredentials",
        "setCorrectValueForDatabaseInstanceReadReplicaInstanceResourceId",
    ),
    "@aws-cdk/aws-redshift": ("columnId",),
    "@aws-cdk/aws-route53-patterns": ("useDistribution",),
    "@aws-cdk/aws-route53-patters": ("useCertificate",),
    "@aws-cdk/aws-route53-targets": ("userPoolDomainNameMethodWithoutCustomResource",),
    "@aws-cdk/aws-s3": (
        "createDefaultLoggingPolicy",
        "publicAccessBlockedByDefault",
        "serverAccessLogsUseBucketPolicy",
        "setUniqueReplicationRoleName",
    ),
    "@aws-cdk/aws-secretsmanager": ("useAttachedSecretResourcePolicyForSecretTargetAttachments",),
    "@aws-cdk/aws-signer": ("signingProfileNamePassedToCfn",),
    "@aws-cdk/aws-sns-subscriptions": ("restrictSqsDescryption",),
    "@aws-cdk/aws-stepfunctions-tasks": (
        "enableEmrServicePolicyV2",
        "fixRunEcsTaskPolicy",
    ),
    "@aws-cdk/aws-stepfunctions": ("useDistributedMapResultWriterV2",),
    "@aws-cdk/core": (
        "aspectPrioritiesMutating",
        "cfnIncludeRejectComplexResourceUpdateCreatePolicyIntrinsics",
        "checkSecretUsage",
        "enableAdditionalMetadataCollection",
        "enablePartitionLiterals",
        "explicitStackTags",
        "includePrefixInUniqueNameGeneration",
        "validateAgainstDefaultRules",
        "validateSnapshotRemovalPolicy",
    ),
    "@aws-cdk/s3-notifications": ("addS3TrustKeyPolicyForSnsSubscriptions",),
}

FEATURE_FLAGS: Final[Mapping[str, object]] = {
    **{f"{package}:{flag}": True for package, flags in _ON.items() for flag in flags},
    "@aws-cdk/core:target-partitions": list(PARTITIONS),
    "@aws-cdk/core:defaultCrossStackReferences": "weak",
    # Would empty the VPC's default security group, which nothing here is in, by a Lambda function
    # with a role of its own.
    "@aws-cdk/aws-ec2:restrictDefaultSecurityGroup": False,
    # Would put our own warnings, which the command line shows, among the rules' findings.
    "@aws-cdk/core:annotationsInValidationReport": False,
    # Would sort and join statements: policies stand in the template as they are written here.
    "@aws-cdk/aws-iam:minimizePolicies": False,
}
