"""The text that is equal only while a partition's committed bytes are, within one history."""

from hashlib import blake2b

from questdb_backup.questdb.txn import Partition
from questdb_backup.source.state import State

_DIGEST_BYTES = 16


def partition_signature(directory: str, state: State, partition: Partition) -> str:
    """Whatever QuestDB changes when it rewrites, squashes, updates or appends to the partition.

    The table's directory, id and truncate version; the partition's start, name, whole size word (rows,
    squash counter, flags) and last word; the versions of the table's structure; the column versions
    that hold for the partition. It does not cover the files of indexes: recovery makes
    them anew, or (parquet) they change with the data.
    """
    versions = state.versions.records(partition.timestamp) + state.versions.default_records()
    parts = (
        directory,
        state.meta.table_id,
        state.txn.truncate_version,
        partition.timestamp,
        partition.name_txn,
        f"{partition.size_word:x}",
        partition.last_word,
        state.meta.metadata_version,
        state.txn.structure_version,
        blake2b(versions, digest_size=_DIGEST_BYTES).hexdigest(),
    )
    return "/".join(str(part) for part in parts)
