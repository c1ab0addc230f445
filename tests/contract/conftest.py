"""What the contract suites share: the real servers, one of each for the session."""

from tests.support.dynamodb_local import dynamodb_local

__all__ = ["dynamodb_local"]
