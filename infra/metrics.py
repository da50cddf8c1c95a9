"""
The metrics that hosts emit, each summed over all of a stack.
"""

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from app.parent.config import METRICS_NAMESPACE, STACK_DIMENSION


def host_metric(scope: Construct, name: str, statistic: str, period: Duration) -> cloudwatch.Metric:
    """Give *name* of the hosts of the stack that *scope* is in."""
    return cloudwatch.Metric(
        namespace=METRICS_NAMESPACE,
        metric_name=name,
        dimensions_map={STACK_DIMENSION: Stack.of(scope).stack_name},
        statistic=statistic,
        period=period,
    )
