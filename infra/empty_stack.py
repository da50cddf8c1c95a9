"""
An empty stack: all that the CDK command line needs to know of a stack in order to destroy it.

So that a deployment can be destroyed from a fresh clone, without its EIF and its parameters. It is
an app of its own, `python -m infra.empty_stack NAME ACCOUNT REGION`, which the CDK command line
starts: whoever asks for it needs no CDK before that.
"""

import sys

from aws_cdk import App, Environment, Stack


def main() -> None:
    """Synthesise a stack of that name and place, with nothing in it, where the CDK says."""
    name, account, region = sys.argv[1:]
    app = App()
    Stack(app, name, env=Environment(account=account, region=region))
    app.synth()


if __name__ == "__main__":
    main()
