"""Faults on demand: by action and by number, before or after the call took effect."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from standin.ebs.errors import ConnectionCut, ServiceError
from standin.ebs.quotas import throttled

Where = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What is sent back; ``send_only`` bytes of the body, then the connection is closed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    send_only: int | None = None


@dataclass(kw_only=True)
class _Fault:
    action: str
    act: Callable[[], None] | None = None
    change: Callable[[Response], Response] | None = None
    after_effect: bool = False
    skip: int = 0
    times: int | None = 1
    where: Where | None = None
    hits: int = field(default=0)

    def strikes(self, action: str, parameters: Mapping[str, Any]) -> bool:
        if self.action not in (action, "*") or (self.where and not self.where(parameters)):
            return False
        self.hits += 1
        past = self.hits - self.skip
        return past >= 1 and (self.times is None or past <= self.times)


class Faults:
    """What goes wrong next.

    Each method takes ``action`` (a name as ``CreateSnapshots``, or ``*``), ``skip`` (that many calls pass
    first), ``times`` (None: from then on always) and ``where`` (a test of the call's parameters, by their
    API names). ``after_effect`` lets the call do its work and spoils the answer only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._faults.clear()

    def fail(
        self,
        action: str,
        code: str = "InternalError",
        message: str = "An internal error has occurred",
        *,
        status: int = 500,
        reason: str | None = None,
        after_effect: bool = False,
        skip: int = 0,
        times: int | None = 1,
        where: Where | None = None,
    ) -> None:
        """Answer with this error."""

        def act() -> None:
            raise ServiceError(code, message, status=status, reason=reason)

        self._add(
            _Fault(action=action, act=act, after_effect=after_effect, skip=skip, times=times, where=where)
        )

    def deny(self, action: str, *, times: int | None = None) -> None:
        """Answer as to a caller without the permission: EC2's UnauthorizedOperation, status 403."""
        message = "You are not authorized to perform this operation."
        self.fail(action, "UnauthorizedOperation", message, status=403, times=times)

    def deny_direct(self, action: str, *, times: int | None = None) -> None:
        """The same of the direct APIs: AccessDeniedException, UNAUTHORIZED_ACCOUNT."""
        message = "You do not have sufficient access to perform this action."
        reason = "UNAUTHORIZED_ACCOUNT"
        self.fail(action, "AccessDeniedException", message, status=403, reason=reason, times=times)

    def throttle(
        self,
        action: str,
        reason: str = "ACCOUNT_THROTTLED",
        *,
        skip: int = 0,
        times: int | None = 1,
        where: Where | None = None,
    ) -> None:
        """Refuse by the direct APIs' RequestThrottledException, with one of its reasons."""

        def act() -> None:
            raise throttled(reason)

        self._add(_Fault(action=action, act=act, skip=skip, times=times, where=where))

    def cut(
        self,
        action: str,
        *,
        after_effect: bool = False,
        skip: int = 0,
        times: int | None = 1,
        where: Where | None = None,
    ) -> None:
        """Reset the connection without an answer."""

        def act() -> None:
            raise ConnectionCut

        self._add(
            _Fault(action=action, act=act, after_effect=after_effect, skip=skip, times=times, where=where)
        )

    def delay(
        self,
        action: str,
        seconds: float,
        *,
        skip: int = 0,
        times: int | None = 1,
        where: Where | None = None,
    ) -> None:
        """Wait (real seconds) before the answer."""
        self.run(action, lambda: time.sleep(seconds), skip=skip, times=times, where=where)

    def run(
        self,
        action: str,
        act: Callable[[], None],
        *,
        after_effect: bool = False,
        skip: int = 0,
        times: int | None = 1,
        where: Where | None = None,
    ) -> None:
        """Call ``act`` on the server's thread: to kill the client, to move the clock, to delete something."""
        self._add(
            _Fault(action=action, act=act, after_effect=after_effect, skip=skip, times=times, where=where)
        )

    def wrong_checksum(self, *, skip: int = 0, times: int | None = 1, where: Where | None = None) -> None:
        """Send a block with one bit turned, under the checksum of the right one."""
        self._change(_turn_a_bit, skip, times, where)

    def truncate(self, *, skip: int = 0, times: int | None = 1, where: Where | None = None) -> None:
        """Close the connection after half of a block; its length was announced in full."""
        self._change(lambda answer: replace(answer, send_only=len(answer.body) // 2), skip, times, where)

    def _change(
        self, change: Callable[[Response], Response], skip: int, times: int | None, where: Where | None
    ) -> None:
        self._add(_Fault(action="GetSnapshotBlock", change=change, skip=skip, times=times, where=where))

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def striking(self, action: str, parameters: Mapping[str, Any]) -> "Striking":
        """The faults that this call meets; it is counted by that."""
        with self._lock:
            return Striking([fault for fault in self._faults if fault.strikes(action, parameters)])


class Striking:
    """The faults of one call."""

    def __init__(self, faults: list[_Fault]) -> None:
        self._faults = faults

    def before(self) -> None:
        """Raise or act before the effect."""
        self._act(after_effect=False)

    def after(self, response: Response) -> Response:
        """Raise, act or spoil the response after it."""
        self._act(after_effect=True)
        for fault in self._faults:
            if fault.change:
                response = fault.change(response)
        return response

    def _act(self, *, after_effect: bool) -> None:
        for fault in self._faults:
            if fault.act and fault.after_effect is after_effect:
                fault.act()


def _turn_a_bit(response: Response) -> Response:
    if response.status != 200:
        return response
    middle = len(response.body) // 2
    body = bytearray(response.body)
    body[middle] ^= 1
    return replace(response, body=bytes(body))
