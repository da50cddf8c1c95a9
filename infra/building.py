"""
Building in an account: what the build stack and whoever uses it agree on. Pure Python.
"""

from typing import Final

SOURCES: Final = "sources"  # folders of the bucket
RESULTS: Final = "results"
KEPT_DAYS: Final = 7  # that an object stays in it
MINUTES: Final = 90  # that a build may take
SPECIFICATION: Final = "image/container/buildspec.yml"
DEBIAN: Final = "debian:bookworm"  # that builds run in, by the name that Docker Hub has for it
BUCKET_OUTPUT: Final = "BucketName"
PROJECT_OUTPUT: Final = "ProjectName"
