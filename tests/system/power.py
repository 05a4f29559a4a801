"""What a disk holds when the power goes, told from a trace of file calls.

As strict as POSIX allows: of a file there is what its last completed sync covered, of a folder the names that its last
completed sync covered, and nothing else. Real file systems keep more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

TRACED = ("-y", "-xx", "-s", "2000000", "-e", "trace=%file,%desc")
"""Options of strace: paths of descriptors, and all bytes, in hexadecimal."""
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\w+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(\d+)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")


@dataclass(frozen=True, slots=True)
class Call:
    """A file call that succeeded, with the paths and bytes that it was about."""

    name: str
    path: str
    texts: tuple[bytes, ...]
    arguments: str


def calls(trace: str) -> Iterator[Call]:
    """Yields the calls of a trace, in the order in which they ended."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        matched = _LINE.match(line)
        if matched is None:
            continue
        pid, rest = matched["pid"], matched["rest"]
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := _RESUMED.match(rest):
            rest = begun.pop(pid, "") + resumed["rest"]
        call = _CALL.match(rest)
        if call is None:
            continue
        texts = tuple(_bytes(text) for text in _TEXT.findall(call["arguments"]))
        if call["result"].startswith("-") and call["name"] not in {"access", "faccessat", "faccessat2"}:
            continue
        described = _DESCRIPTOR.match(call["arguments"])
        path = "" if described is None or described[3] else _bytes(described[2]).decode()
        yield Call(call["name"], path, texts, call["arguments"])


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True, eq=False)
class Node:
    """A file or a folder: as it is in memory, and as it is on disk."""

    names: dict[str, Node] | None = None
    kept_names: dict[str, Node] = field(default_factory=dict)
    content: bytes = b""
    kept: bytes = b""

    def sync(self) -> None:
        """Makes what is in memory durable."""
        if self.names is None:
            self.kept = self.content
        else:
            self.kept_names = dict(self.names)


class Disk:
    """Everything below one folder, which is there and durable."""

    def __init__(self, root: Path) -> None:
        """Takes the folder."""
        self._root = PurePosixPath(root)
        self._top = Node(names={})

    def do(self, call: Call) -> None:
        """Does what a call did."""
        if call.name in {"openat", "open", "creat"}:
            self._open(call)
        elif call.name in {"pwrite64", "write", "ftruncate", "fallocate", "fsync", "fdatasync"}:
            node = self._find(call.path)
            if node is not None:
                _change(node, call)
        elif call.name in {"rename", "renameat", "renameat2", "link", "linkat"}:
            self._move(call)
        elif call.name in {"unlink", "unlinkat", "rmdir"}:
            self._drop(call.texts[0].decode())
        elif call.name in {"mkdir", "mkdirat"}:
            self._put(call.texts[0].decode(), Node(names={}))

    def write_durable(self, target: Path) -> None:
        """Writes what a loss of power would leave to a folder."""
        _write(self._top, target)

    def _open(self, call: Call) -> None:
        path = call.texts[0].decode()
        node = self._find(path)
        if node is None and "O_CREAT" in call.arguments:
            self._put(path, Node())
        elif node is not None and "O_TRUNC" in call.arguments:
            node.content = b""

    def _move(self, call: Call) -> None:
        source, target = (text.decode() for text in call.texts[:2])
        node = self._find(source)
        if node is not None:
            self._put(target, node)
            if call.name.startswith("rename"):
                self._drop(source)

    def _parts(self, path: str) -> tuple[str, ...] | None:
        try:
            return PurePosixPath(path).relative_to(self._root).parts
        except ValueError:
            return None

    def _find(self, path: str) -> Node | None:
        parts = self._parts(path)
        if parts is None:
            return None
        node: Node | None = self._top
        for part in parts:
            node = (node.names or {}).get(part) if node is not None else None
        return node

    def _put(self, path: str, node: Node) -> None:
        parent, parts = self._find(str(PurePosixPath(path).parent)), self._parts(path)
        if parent is not None and parent.names is not None and parts:
            parent.names[parts[-1]] = node

    def _drop(self, path: str) -> None:
        parent, parts = self._find(str(PurePosixPath(path).parent)), self._parts(path)
        if parent is not None and parent.names is not None and parts:
            parent.names.pop(parts[-1], None)


def _change(node: Node, call: Call) -> None:
    if call.name in {"fsync", "fdatasync"}:
        node.sync()
        return
    numbers = [int(number) for number in re.findall(r", (\d+)(?=,|$)", call.arguments)]
    if call.name == "pwrite64":
        content, offset = call.texts[0], numbers[-1]
        node.content = node.content.ljust(offset, b"\x00")
        node.content = node.content[:offset] + content + node.content[offset + len(content) :]
    elif call.name == "ftruncate":
        node.content = node.content[: numbers[-1]].ljust(numbers[-1], b"\x00")
    elif call.name == "fallocate":
        node.content = node.content.ljust(numbers[-2] + numbers[-1], b"\x00")
    else:
        raise AssertionError(f"a file of the book is written by {call.name}")


def _write(folder: Node, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name, node in folder.kept_names.items():
        path = target / name
        if node.names is None:
            path.write_bytes(node.kept)
            if name.endswith(".key"):
                path.chmod(0o600)
        else:
            _write(node, path)
