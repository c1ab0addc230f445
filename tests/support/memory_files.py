"""A file system in memory: the twin of the readers for what is built upon them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from questdb_backup.source.base import EntryKind
from questdb_backup.volumes.base import Device, Extent, Node, Stretch, check_range

PAGE = 4096


@dataclass(slots=True)
class MemoryDevice:
    """Device on bytes that grow as files are put there; ``shift`` is where it begins on the whole disk."""

    data: bytearray = field(default_factory=bytearray)
    shift: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        check_range(offset, length, len(self.data))
        return bytes(self.data[offset : offset + length])

    def locate(self, offset: int, length: int) -> Iterator[Stretch]:
        check_range(offset, length, len(self.data))
        yield Stretch(self.shift + offset, length)


@dataclass(frozen=True, slots=True)
class Link:
    target: str


class MemoryFiles:
    """FileSystem of nested dictionaries: bytes are files, a `Link` is a symlink; all have one ctime."""

    kind = "ext4"
    was_dirty = False

    def __init__(
        self, content: Mapping[str, object], *, shift: int = 0, label: str = "", changed_at: float = 0.0
    ) -> None:
        self.label = label
        self._changed_at = changed_at
        self.uuid = f"uuid-{label}"
        self._device = MemoryDevice(shift=shift)
        self._children: dict[int, dict[str, Node]] = {}
        self._content: dict[int, bytes | str] = {}
        self._extents: dict[int, list[Extent]] = {}
        self._numbers = 1
        self._root = self._make(content)

    @property
    def device(self) -> Device:
        return self._device

    @property
    def root(self) -> Node:
        return self._root

    def entries(self, folder: Node) -> Iterator[tuple[str, Node]]:
        if folder.kind is not EntryKind.DIRECTORY:
            raise NotADirectoryError(folder.number)
        yield from self._children[folder.number].items()

    def find(self, folder: Node, name: str) -> Node | None:
        return dict(self.entries(folder)).get(name)

    def read_link(self, node: Node) -> str:
        target = self._content[node.number]
        assert isinstance(target, str)
        return target

    def extents(self, node: Node) -> Iterator[Extent]:
        yield from self._extents[node.number]

    def _make(self, content: object) -> Node:
        self._numbers += 1
        number = self._numbers
        if isinstance(content, Mapping):
            self._children[number] = {name: self._make(below) for name, below in content.items()}
            return Node(number, 0, EntryKind.DIRECTORY, 0o755, 0, self._changed_at)
        if isinstance(content, Link):
            self._content[number] = content.target
            return Node(number, 0, EntryKind.SYMLINK, 0o777, len(content.target), self._changed_at)
        assert isinstance(content, bytes)
        self._extents[number] = list(self._put(content))
        return Node(number, 0, EntryKind.FILE, 0o640, len(content), self._changed_at)

    def _put(self, content: bytes) -> Iterator[Extent]:
        """Pages of zeros are holes; every page has a place of its own, with a gap behind."""
        for start in range(0, len(content), PAGE):
            page = content[start : start + PAGE]
            if any(page):
                offset = len(self._device.data)
                self._device.data += page.ljust(2 * PAGE, b"\xee")
                yield Extent(start, len(page), offset)
