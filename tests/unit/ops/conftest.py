from tests.stubbed import aws

__all__ = ["aws"]
