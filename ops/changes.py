"""
The changes that a deployment would make, shown before anybody says yes.
"""

import json
from collections.abc import Mapping

from app.protocol.releases import parse_releases
from ops.assembly import Assembly, find_key_policy
from ops.job import Job
from ops.live_stack import LiveStack, read_key_policy
from ops.policy_words import Deployed, compare_policies, read_policy, stays_changed
from ops.steps import RefusedError


def show_changes(job: Job, assembly: Assembly, live: LiveStack | None) -> None:
    """
    Show what a deployment of *assembly* would change, and the key policy in words.

    Raises:
        RefusedError: The policy is none of ours, or the live one would stay changed by hand.
    """
    deployed, new = _read_deployed(job, live), read_policy(assembly.key_policy)
    job.cdk("diff", job.deployment.name, "--app", str(assembly.path))
    job.terminal.note("\nThe key policy in words")
    for line in compare_policies(deployed, new, _release_names(job)):
        job.terminal.note(line)
    if not new.ours:
        raise RefusedError("the synthesised key policy is not what this version makes")
    if stays_changed(deployed, new):
        _refuse_changed_policy(job, assembly)


def _read_deployed(job: Job, live: LiveStack | None) -> Deployed | None:
    if live is None:
        return None
    if "KeyArn" not in live.outputs:
        job.terminal.note(f"stack {live.name} is {live.status} and puts out no key")
        return None
    return Deployed(
        live=read_policy(read_key_policy(job.session, live.outputs["KeyArn"])),
        written=read_policy(find_key_policy(live.template)),
        running=live.running,
    )


def _refuse_changed_policy(job: Job, assembly: Assembly) -> None:
    path = job.workshop.outputs / "key-policy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(assembly.key_policy, indent=2) + "\n")
    raise RefusedError(
        "the live key policy was changed by hand, and this deployment would leave it so: find out "
        "who did it, put it right (aws kms put-key-policy --key-id … --policy-name default "
        f"--policy file://{path}), and deploy again"
    )


def _release_names(job: Job) -> Mapping[str, str]:
    listed = parse_releases(job.parameters.releases.read_bytes(), kits=job.workshop.kits)
    return {item.measurements.pcr0.hex(): item.name for item in listed}
