"""The context object: what ``$$`` names while a state is visited."""

from dataclasses import dataclass
from datetime import UTC, datetime

Context = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One visit of a state, or one attempt of it."""

    execution: Context
    name: str
    entered: str
    retry_count: int = 0

    def context(self) -> Context:
        """The context object, without its Map."""
        state = {"Name": self.name, "EnteredTime": self.entered, "RetryCount": self.retry_count}
        return {"Execution": self.execution, "State": state}


def format_time(moment: datetime) -> str:
    """A time of the context object: ISO 8601 UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
