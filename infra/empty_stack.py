"""
An empty stack: all that the CDK command line needs to know of a stack in order to destroy it.

So that a deployment can be destroyed from a fresh clone, without its EIF and its parameters.
"""

from pathlib import Path

from aws_cdk import App, Environment, Stack


def write_empty_stack(assembly: Path, *, name: str, account: str, region: str) -> None:
    """Synthesise a stack of that name, with nothing in it, into the folder *assembly*."""
    app = App(outdir=str(assembly))
    Stack(app, name, env=Environment(account=account, region=region))
    app.synth()
