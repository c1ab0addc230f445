"""What an operation raises: an error as the service words it, or a connection that dies."""


class ServiceError(Exception):
    """An error response of EC2 or of the EBS direct APIs.

    ``reason`` is the direct APIs' second word (their exceptions' Reason member); EC2 has none.
    """

    def __init__(self, code: str, message: str, *, status: int = 400, reason: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.reason = reason


class ConnectionCut(Exception):
    """The connection ends without an answer."""


def invalid_value(message: str) -> ServiceError:
    """EC2's InvalidParameterValue."""
    return ServiceError("InvalidParameterValue", message)


def snapshot_not_found(snapshot_id: str) -> ServiceError:
    """EC2's word for a snapshot that is not there (the direct APIs have another)."""
    return ServiceError("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")


def volume_not_found(volume_id: str) -> ServiceError:
    """EC2's word for a volume that is not there."""
    return ServiceError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")


def instance_not_found(instance_id: str) -> ServiceError:
    """EC2's word for an instance that is not there."""
    return ServiceError("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")


def snapshot_unknown(snapshot_id: str) -> ServiceError:
    """The direct APIs' word for a snapshot that is not there, or not completed."""
    message = f"The snapshot '{snapshot_id}' does not exist."
    return ServiceError("ResourceNotFoundException", message, status=404, reason="SNAPSHOT_NOT_FOUND")
