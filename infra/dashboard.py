"""
The dashboard: what an operator looks at first. Counts of requests and enclaves, never of tokens.

Time to a first token and tokens a second are not on it: nothing outside an enclave knows them, and
with one asker at a time they would be the length of that asker's answer.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from app.parent.config import (
    ANSWER_ERRORS_METRIC,
    ANSWERED_METRIC,
    AT_ONCE_METRIC,
    ENCLAVE_UP_METRIC,
    REFUSED_METRIC,
    STARTS_METRIC,
    WAITING_METRIC,
)
from app.protocol.releases import Release
from infra.metrics import host_metric

_MINUTE: Final = Duration.minutes(1)
_WIDTH: Final = 12  # of 24
_HEIGHT: Final = 6


class Dashboard(Construct):
    """
    One dashboard, named after stack and Region: an account's dashboards are of no Region.

    Args:
        release: What runs.

        key_events: How often each kind of event of the key was seen, by its name.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        release: Release,
        key_events: Mapping[str, cloudwatch.IMetric],
    ) -> None:
        super().__init__(scope, name)
        stack_name = Stack.of(self).stack_name
        board = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=f"{stack_name}-{Stack.of(self).region}",
            default_interval=Duration.hours(12),
        )
        measured = release.measurements
        board.add_widgets(
            cloudwatch.TextWidget(
                markdown=f"{stack_name} runs release **{release.name}** of kit {release.kit}\n\n"
                f"PCR0 `{measured.pcr0.hex()}`",
                width=2 * _WIDTH,
                height=2,
            )
        )
        board.add_widgets(
            self._graph("Answers a minute", "Sum", ANSWERED_METRIC, ANSWER_ERRORS_METRIC),
            self._graph("Under way and waiting, of one", "Maximum", AT_ONCE_METRIC, WAITING_METRIC),
        )
        board.add_widgets(
            self._graph("Enclaves that are up", "Sum", ENCLAVE_UP_METRIC),
            self._graph("Starts of enclaves", "Sum", STARTS_METRIC),
        )
        board.add_widgets(
            self._graph("Requests refused before they opened", "Sum", REFUSED_METRIC),
            _widget("What happened to the key", list(key_events.values())),
        )

    def _graph(self, title: str, statistic: str, *names: str) -> cloudwatch.GraphWidget:
        return _widget(title, [host_metric(self, name, statistic, _MINUTE) for name in names])


def _widget(title: str, metrics: Sequence[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=metrics, width=_WIDTH, height=_HEIGHT)
