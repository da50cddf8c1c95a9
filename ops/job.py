"""
A deployment under way: what all of its steps need.
"""

import argparse
from dataclasses import dataclass

import boto3

from app.chatbot.console import Terminal
from infra.parameters import Parameters
from ops.child import run
from ops.deployment import Deployment, Workshop


@dataclass(frozen=True, slots=True)
class Job:
    """One deployment under way."""

    deployment: Deployment
    parameters: Parameters
    session: boto3.Session
    workshop: Workshop
    options: argparse.Namespace
    terminal: Terminal

    def cdk(self, *arguments: str) -> None:
        """Run the CDK command line for the same account, Region and profile."""
        profile = ("--profile", self.options.profile) if self.options.profile else ()
        run((*self.workshop.cdk, *arguments, *profile), self.terminal)
