"""What a backup on the EBS route costs, from what it counted: list prices, to tell an order of magnitude."""

from collections.abc import Mapping

_PER_REQUEST = {
    "list_requests": 0.0006 / 1000,
    "get_requests": 0.003 / 1000,
    "put_requests": 0.005 / 1000,
}
_PER_GB_SECOND = 0.0000133334
_GB = 1769 / 1024
"""Memory of the functions that plan and upload (template.yaml)."""
_TRANSITIONS_PER_UNIT = 3
_PER_TRANSITION = 0.025 / 1000


def estimated_dollars(counters: Mapping[str, float], units: int) -> float:
    """US dollars of one run, rounded to a hundredth of a cent.

    By the list prices of us-east-1 for EBS direct APIs, S3 Standard PUTs, Lambda on arm64 and Step
    Functions Standard. What is stored, and the snapshot that is kept, is charged by the month and not in it.
    """
    requests = sum(price * counters.get(name, 0) for name, price in _PER_REQUEST.items())
    seconds = counters.get("lambda_milliseconds", 0) / 1000
    transitions = _PER_TRANSITION * _TRANSITIONS_PER_UNIT * units
    return round(requests + seconds * _GB * _PER_GB_SECOND + transitions, 4)
