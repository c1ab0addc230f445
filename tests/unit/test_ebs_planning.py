"""Whether what is in the snapshots is of the server whose checkpoint was held."""

import pytest

from questdb_backup.clock import parse_timestamp
from questdb_backup.ebs.planning import refuse_old_checkpoint
from questdb_backup.ebs.root import ServerRoot
from questdb_backup.errors import SourceFileError
from questdb_backup.volumes.mounts import Mounted
from questdb_backup.volumes.tree import VolumeTree
from tests.support.memory_files import MemoryFiles

STARTED_AT = "2026-01-01T00:00:05.000000Z"


def root_made(seconds: float) -> ServerRoot:
    """A root whose checkpoint was made so long after the one that was held."""
    made_at = parse_timestamp(STARTED_AT).timestamp() + seconds
    files = MemoryFiles({"questdb": {".checkpoint": {"db": {}}}}, changed_at=made_at)
    return ServerRoot(tree=VolumeTree(Mounted(files, 0), "questdb"), volume=0, part="", path="questdb")


@pytest.mark.parametrize("seconds", [-3.0, 0.0, 0.5, 3600.0])
def test_a_checkpoint_that_is_as_new_as_the_one_held_is_taken(seconds: float) -> None:
    refuse_old_checkpoint(root_made(seconds), STARTED_AT)


@pytest.mark.parametrize("seconds", [-6.0, -86_400.0])
def test_an_older_checkpoint_is_refused_by_the_name_of_the_parameter(seconds: float) -> None:
    with pytest.raises(SourceFileError, match="DatabaseInstance"):
        refuse_old_checkpoint(root_made(seconds), STARTED_AT)
