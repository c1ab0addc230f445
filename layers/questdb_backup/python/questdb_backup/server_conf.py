"""Edit a ``server.conf`` the way a careful person would: comments, order and line endings stay."""

from questdb_backup.properties import entries, escape_value, split_lines


def with_property(text: str, key: str, value: str, *, why: str = "set by questdb-backup") -> str:
    """The text with the property set.

    The active line is replaced in place (of several the last one, which is the one that counts); where
    there is none, the property is appended below a comment that says ``why``. The result is unchanged
    where the value is set already.
    """
    lines = split_lines(text)
    ending = next(filter(None, map(_ending_of, reversed(lines))), "\n")
    setting = f"{key}={escape_value(value)}"
    active = [entry for entry in entries(lines) if entry.key == key]
    if not active:
        return _ended(text, ending) + f"# {why}{ending}{setting}{ending}"
    last = active[-1]
    if last.value == value:
        return text
    return "".join([*lines[: last.first], setting + _ending_of(lines[last.last]), *lines[last.last + 1 :]])


def _ended(text: str, ending: str) -> str:
    """The text such that a new line may follow; a last line that continues must not swallow it."""
    closed = text if not text or text.endswith(("\n", "\r")) else text + ending
    return closed + ending if closed.rstrip("\r\n").endswith("\\") else closed


def _ending_of(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]
