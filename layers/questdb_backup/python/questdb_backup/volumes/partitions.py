"""Where the partitions of a disk lie."""

from questdb_backup.volumes.base import Device
from questdb_backup.volumes.gpt import read_gpt
from questdb_backup.volumes.mbr import read_mbr
from questdb_backup.volumes.slots import PartitionTable


def read_partitions(disk: Device) -> PartitionTable | None:
    """The disk's GPT, else its MBR; None where it has neither.

    Raise DamagedVolumeError where there is one of which nothing can be read.
    """
    return read_gpt(disk) or read_mbr(disk)
