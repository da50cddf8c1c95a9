"""
The twin's CDK app: the product's own, with the twin's boot kits, for the CDK command line.
"""

import os

from infra.app import make_app
from local.cloud.stack import KITS


def main() -> None:
    """Synthesise to where the command line says."""
    app, _ = make_app(environment=os.environ, kits=KITS)
    app.synth()


if __name__ == "__main__":
    main()
