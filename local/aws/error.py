"""
An AWS error: the code and message that the twin's services answer with.

Services raise it under the names of AWS's query protocol; `local/aws/server.py` writes each in the
protocol of the service, under the name that KMS or STS has for it.
"""


class AwsError(Exception):
    """A refusal, with the code that botocore shows its caller."""

    def __init__(self, code: str, message: str = "", *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def access_denied(message: str) -> AwsError:
    """Give the error for a call that no policy lets through."""
    return AwsError("AccessDenied", message, status=403)


def validation_error(message: str) -> AwsError:
    """Give the error for a malformed request."""
    return AwsError("ValidationError", message)
