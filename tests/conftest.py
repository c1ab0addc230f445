"""What suites of several folders share: the real servers, one of each for the session."""

from tests.support.deployed import deploy, s3_server
from tests.support.dynamodb_local import dynamodb_local

__all__ = ["deploy", "dynamodb_local", "s3_server"]
