"""The live status in a DynamoDB table: what the deployed bundle uses.

One table, keys ``pk`` and ``sk``: ``INST#<instance>`` with ``RUN`` for the entered run, and with
``UNIT#<run>#<n>`` for the bytes of one unit that are done. The run's item carries a ``generation``, a
new one at each `begin` and `set_total`; a unit's mark counts only within its own, so that forgetting
ten thousand marks is one write. The marks themselves go by the table's TTL (``ttl``, epoch seconds).
"""

import json
import random
import time
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from questdb_backup.errors import StatusUnavailableError
from questdb_backup.questdb.base import Fence
from questdb_backup.status.base import LiveRun
from questdb_backup.status.dynamodb_errors import ConflictError, RefusedError, translated
from questdb_backup.status.rules import in_progress, is_run, lease_lost, refusal

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]
"""An item in the wire's form: each value is ``{"S": text}`` or ``{"N": number as text}``."""

UNIT_MARK_SECONDS = 14 * 24 * 3600
"""How long a unit's mark is kept: as long as Step Functions allows a run to be redriven."""

_ATTEMPTS = 30
_FIRST_WAIT_SECONDS = 0.01
_LONGEST_WAIT_SECONDS = 1.0
_CONNECT_TIMEOUT_SECONDS = 3
_READ_TIMEOUT_SECONDS = 10
_CALL_ATTEMPTS = 4
_CONNECTIONS = 32

_IS_RUN = "#run = :run AND #token = :token"
_RUN_NAMES = {"#run": "run", "#token": "token"}


class DynamoStatusStore:
    """A `StatusStore` in the table that the template makes.

    Without a ``client`` one is made at the first call, from boto3's usual settings.
    """

    def __init__(self, table_name: str, client: "DynamoDBClient | None" = None) -> None:
        self._table_name = table_name
        self._known_client = client
        self._lock = Lock()

    def begin(self, instance: str, live: LiveRun, now: str) -> None:
        """See `StatusStore.begin`."""
        try:
            self._call(
                "put_item",
                Item={**_run_key(instance), **_to_item(live), "generation": _new_generation()},
                ConditionExpression="attribute_not_exists(pk) OR #holder = :holder"
                " OR #expires_at <= :now OR #token < :token",
                ExpressionAttributeNames={n: n[1:] for n in ("#holder", "#expires_at", "#token")},
                ExpressionAttributeValues={
                    ":holder": {"S": live.holder},
                    ":now": {"S": now},
                    ":token": _number(live.token),
                },
            )
        except RefusedError as error:
            raise in_progress(_from_item(error.item or {})) from None

    def refuse_if_running(self, instance: str, holder: str, now: str) -> None:
        """See `StatusStore.refuse_if_running`."""
        if error := refusal(self.read(instance), holder, now):
            raise error

    def read(self, instance: str) -> LiveRun | None:
        """See `StatusStore.read`."""
        item = self._get(_run_key(instance))
        return _from_item(item) if item else None

    def renew(self, instance: str, run: str, token: int, expires_at: str) -> None:
        """See `StatusStore.renew`."""
        self._set(instance, run, token, expires_at={"S": expires_at})

    def record_fence(self, instance: str, run: str, token: int, fence: Fence) -> None:
        """See `StatusStore.record_fence`."""
        self._set(instance, run, token, fence=_fence(fence))

    def set_total(self, instance: str, run: str, token: int, total_bytes: int) -> None:
        """See `StatusStore.set_total`."""
        total, done = _number(total_bytes), _number(0)
        self._set(instance, run, token, total_bytes=total, done_bytes=done, generation=_new_generation())

    def add_done(self, instance: str, run: str, token: int, unit: int, done_bytes: int) -> None:
        """See `StatusStore.add_done`.

        Reads, then writes the mark and the counter in one transaction that holds what was read against
        what is there; it begins anew where another unit's transaction came in between.
        """
        for wait in _waits():
            item = self._get(_run_key(instance))
            entered = _from_item(item) if item else None
            if item is None or not is_run(entered, run, token):
                raise lease_lost(run, token, entered)
            try:
                self._mark_unit(instance, item, unit, done_bytes)
            except ConflictError:
                time.sleep(wait)
            else:
                return
        raise self._too_busy()

    def record_error(self, instance: str, run: str, token: int, error: str) -> None:
        """See `StatusStore.record_error`."""
        entered = self.read(instance)
        if entered is None or not is_run(entered, run, token) or entered.error is None:
            self._set(instance, run, token, error={"S": error})

    def request_abort(self, instance: str, reason: str) -> LiveRun | None:
        """See `StatusStore.request_abort`."""
        try:
            response = self._call(
                "update_item",
                Key=_run_key(instance),
                UpdateExpression="SET abort_reason = if_not_exists(abort_reason, :reason)",
                ConditionExpression="attribute_exists(pk)",
                ExpressionAttributeValues={":reason": {"S": reason}},
                ReturnValues="ALL_NEW",
            )
        except RefusedError:
            return None
        return _from_item(response["Attributes"])

    def finish(self, instance: str, run: str, token: int) -> None:
        """See `StatusStore.finish`."""
        try:
            self._call(
                "delete_item",
                Key=_run_key(instance),
                ConditionExpression=_IS_RUN,
                ExpressionAttributeNames=_RUN_NAMES,
                ExpressionAttributeValues=_run_values(run, token),
            )
        except RefusedError:
            return

    def _set(self, instance: str, run: str, token: int, **values: Item) -> None:
        try:
            self._call(
                "update_item",
                Key=_run_key(instance),
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}_new" for name in values),
                ConditionExpression=_IS_RUN,
                ExpressionAttributeNames={**_RUN_NAMES, **{f"#{name}": name for name in values}},
                ExpressionAttributeValues={
                    **_run_values(run, token),
                    **{f":{name}_new": value for name, value in values.items()},
                },
            )
        except RefusedError as error:
            raise lease_lost(run, token, _from_item(error.item) if error.item else None) from None

    def _mark_unit(self, instance: str, item: Item, unit: int, done_bytes: int) -> None:
        generation = item["generation"]
        key = {**_pk(instance), "sk": {"S": f"UNIT#{item['run']['S']}#{unit}"}}
        mark = self._get(key)
        counted = mark is not None and mark["generation"] == generation
        before = int(mark["done_bytes"]["N"]) if mark is not None and counted else 0
        if counted and before == done_bytes:
            return
        new_mark = {
            **key,
            "generation": generation,
            "done_bytes": _number(done_bytes),
            "ttl": _number(int(time.time()) + UNIT_MARK_SECONDS),
        }
        put = {"TableName": self._table_name, "Item": new_mark, **_unchanged(mark)}
        update = {
            "TableName": self._table_name,
            "Key": _run_key(instance),
            "UpdateExpression": "ADD done_bytes :added",
            "ConditionExpression": f"{_IS_RUN} AND #generation = :generation",
            "ExpressionAttributeNames": {**_RUN_NAMES, "#generation": "generation"},
            "ExpressionAttributeValues": {
                ":run": item["run"],
                ":token": item["token"],
                ":generation": generation,
                ":added": _number(done_bytes - before),
            },
        }
        self._request("transact_write_items", TransactItems=[{"Put": put}, {"Update": update}])

    def _get(self, key: Item) -> Item | None:
        response = self._call("get_item", Key=key, ConsistentRead=True)
        item: Item | None = response.get("Item")
        return item

    def _call(self, operation: str, **request: Any) -> dict[str, Any]:
        """An operation on one item, again while a transaction holds the item."""
        if "ConditionExpression" in request:
            request["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        for wait in _waits():
            try:
                return self._request(operation, TableName=self._table_name, **request)
            except ConflictError:
                time.sleep(wait)
        raise self._too_busy()

    def _request(self, operation: str, **request: Any) -> dict[str, Any]:
        with translated(self._table_name):
            response: dict[str, Any] = getattr(self._client(), operation)(**request)
            return response

    def _client(self) -> "DynamoDBClient":
        import boto3
        from botocore.config import Config

        with self._lock:
            if self._known_client is None:
                # a session of our own: boto3's default one is not safe to use from several threads
                self._known_client = boto3.session.Session().client(
                    "dynamodb",
                    config=Config(
                        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
                        read_timeout=_READ_TIMEOUT_SECONDS,
                        retries={"mode": "standard", "total_max_attempts": _CALL_ATTEMPTS},
                        max_pool_connections=_CONNECTIONS,
                    ),
                )
            return self._known_client

    def _too_busy(self) -> StatusUnavailableError:
        return StatusUnavailableError(
            f"the status table {self._table_name} met other writers {_ATTEMPTS} times", "try again"
        )


def _waits() -> Iterator[float]:
    """Seconds to wait after each failed attempt: growing, and spread so that writers do not march in step."""
    for attempt in range(_ATTEMPTS):
        yield random.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt))


def _unchanged(mark: Item | None) -> dict[str, Any]:
    if mark is None:
        return {"ConditionExpression": "attribute_not_exists(pk)"}
    return {
        "ConditionExpression": "#generation = :generation AND #done = :done",
        "ExpressionAttributeNames": {"#generation": "generation", "#done": "done_bytes"},
        "ExpressionAttributeValues": {":generation": mark["generation"], ":done": mark["done_bytes"]},
    }


def _pk(instance: str) -> Item:
    return {"pk": {"S": f"INST#{instance}"}}


def _run_key(instance: str) -> Item:
    return {**_pk(instance), "sk": {"S": "RUN"}}


def _run_values(run: str, token: int) -> Item:
    return {":run": {"S": run}, ":token": _number(token)}


def _number(value: int) -> Item:
    return {"N": str(value)}


def _fence(fence: Fence) -> Item:
    return {"S": json.dumps(fence.to_json())}


def _new_generation() -> Item:
    return {"S": uuid4().hex}


def _to_item(live: LiveRun) -> Item:
    item = {
        "run": {"S": live.run},
        "token": _number(live.token),
        "holder": {"S": live.holder},
        "expires_at": {"S": live.expires_at},
        "fence": _fence(live.fence),
        "total_bytes": _number(live.total_bytes),
        "done_bytes": _number(live.done_bytes),
    }
    texts = {"abort_reason": live.abort_reason, "error": live.error}
    return {**item, **{name: {"S": text} for name, text in texts.items() if text is not None}}


def _from_item(item: Item) -> LiveRun:
    return LiveRun(
        run=item["run"]["S"],
        token=int(item["token"]["N"]),
        holder=item["holder"]["S"],
        expires_at=item["expires_at"]["S"],
        fence=Fence.from_json(json.loads(item["fence"]["S"])),
        total_bytes=int(item["total_bytes"]["N"]),
        done_bytes=int(item["done_bytes"]["N"]),
        abort_reason=item["abort_reason"]["S"] if "abort_reason" in item else None,
        error=item["error"]["S"] if "error" in item else None,
    )
