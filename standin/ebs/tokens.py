"""Block tokens and page tokens: signed, bound to what they were given for, valid for a while.

Both look as AWS's do: standard base64 (so ``+`` and ``/`` stand in them) of at most 256 characters.
"""

import base64
import binascii
import hashlib
import json
import secrets
import struct
from typing import Any

BLOCK_TOKEN_SECONDS = 7 * 86_400
PAGE_TOKEN_SECONDS = 3_600

_HEAD = struct.Struct(">Id")
_MAC_BYTES = 18


class Tokens:
    """Makes tokens and checks them."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def block_token(self, snapshot_id: str, index: int, expires: float) -> str:
        """For one block of one snapshot; ``expires`` is in seconds since the epoch."""
        head = _HEAD.pack(index, expires)
        return base64.b64encode(head + self._mac(snapshot_id.encode() + head)).decode()

    def block_token_is_valid(self, token: str, snapshot_id: str, index: int, now: float) -> bool:
        """Whether it was given for this very block and has not expired."""
        raw = _decoded(token)
        head = raw[: _HEAD.size]
        if raw[_HEAD.size :] != self._mac(snapshot_id.encode() + head):
            return False
        for_index, expires = _HEAD.unpack(head)
        return bool(for_index == index and now < expires)

    def page_token(self, about: dict[str, Any], expires: float) -> str:
        """Carries ``about`` (small, of JSON)."""
        body = json.dumps([about, expires], separators=(",", ":")).encode()
        return base64.b64encode(self._mac(body) + body).decode()

    def page(self, token: str, now: float) -> dict[str, Any] | None:
        """What the token carries; None where it is not ours or has expired."""
        raw = _decoded(token)
        if len(raw) <= _MAC_BYTES or raw[:_MAC_BYTES] != self._mac(raw[_MAC_BYTES:]):
            return None
        about, expires = json.loads(raw[_MAC_BYTES:])
        return dict(about) if now < expires else None

    def _mac(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._key, digest_size=_MAC_BYTES).digest()


def _decoded(token: str) -> bytes:
    try:
        return base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        return b""
