"""
Metrics in CloudWatch's embedded format: a log line that CloudWatch makes metrics of.

The instance so needs no right and no endpoint beyond those of its logs.

Source: Amazon CloudWatch user guide, "Embedded metric format specification".
"""

import json
from collections.abc import Mapping

from app.parent.config import METRICS_NAMESPACE, STACK_DIMENSION


def encode_metrics(counts: Mapping[str, int], *, stack_name: str, at_seconds: float) -> str:
    """Give one line that holds *counts*, each a metric by its name."""
    metrics = [{"Name": name, "Unit": "Count"} for name in sorted(counts)]
    directive = {
        "Namespace": METRICS_NAMESPACE,
        "Dimensions": [[STACK_DIMENSION]],
        "Metrics": metrics,
    }
    return json.dumps(
        {
            "_aws": {"Timestamp": round(at_seconds * 1000), "CloudWatchMetrics": [directive]},
            STACK_DIMENSION: stack_name,
            **counts,
        }
    )
