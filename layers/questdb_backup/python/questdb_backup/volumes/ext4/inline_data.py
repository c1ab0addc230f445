"""Data inside inodes: chapters "Inline Data" and "Extended Attributes" (the space behind an inode)."""

import struct

from questdb_backup.volumes.ext4.damage import damaged
from questdb_backup.volumes.ext4.inodes import BASE_SIZE, Inode

_MAGIC = 0xEA020000
_ENTRY = struct.Struct("<BBHIII")
"""e_name_len, e_name_index, e_value_offs, e_value_inum, e_value_size, e_hash; then the name."""
_SYSTEM = 7
_NAME = b"data"


def inline_parts(inode: Inode) -> tuple[bytes, bytes]:
    """The 60 bytes of i_block, and the value of the attribute ``system.data``.

    Raise DamagedVolumeError where the attributes behind the inode are not right.
    """
    return inode.block_map, _attribute(inode)


def inline_content(inode: Inode) -> bytes:
    """A file's or symlink's bytes. Raise DamagedVolumeError where there are fewer than its size says."""
    content = b"".join(inline_parts(inode))
    if inode.size > len(content):
        raise damaged(f"inode {inode.number} has {inode.size} bytes inline, but {len(content)} are there")
    return content[: inode.size]


def _attribute(inode: Inode) -> bytes:
    raw = inode.raw
    if len(raw) <= BASE_SIZE:
        raise damaged(f"inode {inode.number} has inline data, but no space for attributes")
    begin = BASE_SIZE + int.from_bytes(raw[0x80:0x82], "little") + 4
    if int.from_bytes(raw[begin - 4 : begin], "little") != _MAGIC:
        raise damaged(f"inode {inode.number} has inline data, but no attributes")
    at = begin
    while at + 4 <= len(raw) and raw[at : at + 4] != bytes(4):
        if at + _ENTRY.size > len(raw):
            break
        length, index, offset, holder, size, _ = _ENTRY.unpack_from(raw, at)
        name = raw[at + _ENTRY.size : at + _ENTRY.size + length]
        if index == _SYSTEM and name == _NAME:
            return _value(inode, begin + offset, size, holder)
        at += _ENTRY.size + (length + 3 & ~3)
    raise damaged(f"inode {inode.number} has inline data, but no attribute system.data")


def _value(inode: Inode, start: int, size: int, holder: int) -> bytes:
    if holder or start + size > len(inode.raw):
        raise damaged(f"inode {inode.number} has inline data outside the inode")
    return inode.raw[start : start + size]
