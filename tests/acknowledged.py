"""What a server acknowledged, from many threads, and whether its book holds all of it, as others than it see it."""

from __future__ import annotations

import shutil
import threading
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from google.protobuf import json_format
from tests import rfc6962
from tests.serving import gatebook

from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.receipt import Receipt, verify_receipt
from gatebook.v1 import types_pb2


class Acknowledged:
    """Receipts with signatures, as clients got them. Any thread may add."""

    def __init__(self) -> None:
        """Begins without."""
        self._lock = threading.Lock()
        self._receipts: dict[tuple[str, int], types_pb2.Receipt] = {}

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._receipts)

    def add(self, receipt: types_pb2.Receipt) -> None:
        """Takes one in; no other entry may ever be acknowledged at its place."""
        with self._lock:
            known = self._receipts.setdefault((receipt.origin, receipt.index), receipt)
        assert known == receipt, f"two entries were acknowledged as entry {receipt.index}"

    def require_kept(self, data: Path, folder: Path) -> int:
        """Verifies a copy of a book, and each receipt of it against the copy; returns how many there were.

        Twice: with the command, which reads the receipts, and by the definition in RFC 6962, from nothing but files.
        """
        copy, listed = folder / "copy", folder / "receipts"
        shutil.copytree(data, copy)
        vkey = (copy / "book" / "vkey").read_text("utf-8").strip()
        key = VerifierKey.parse(vkey)
        mine = [receipt for (origin, _), receipt in self._receipts.items() if origin == key.name]
        lines = [json_format.MessageToJson(receipt, indent=None) for receipt in mine]
        listed.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        verified = gatebook("audit", "verify", str(copy), "--vkey", vkey, "--receipts", str(listed))
        assert verified.returncode == 0, verified.stdout + verified.stderr
        entries = read_entries(copy / "book")
        for each in mine:
            assert each.leaf_hash == sha256(b"\x00" + entries[each.index]).digest()
            assert each.entry_bytes == entries[each.index]
            time_ns = each.entry_time.ToNanoseconds()
            receipt = Receipt(each.origin, each.index, each.leaf_hash, time_ns, each.entry_bytes, each.signature)
            assert each.signature
            verify_receipt(receipt, key)
        shutil.rmtree(copy)
        return len(mine)


def read_entries(book: Path) -> list[bytes]:
    """Returns the entries of a published book, whose root by definition must be that of its checkpoint."""
    _, size, root, *_ = (book / "checkpoint").read_text("utf-8").split("\n")
    entries: list[bytes] = []
    for number in range((int(size) + 255) // 256):
        name = "/".join(
            [*(f"x{part}" for part in (f"{number // 1_000:03d}",) if number >= 1_000), f"{number % 1_000:03d}"]
        )
        full = book / "tile" / "entries" / name
        content = (full if full.exists() else Path(f"{full}.p") / str(int(size) % 256)).read_bytes()
        while content:
            end = 2 + int.from_bytes(content[:2], "big")
            entries.append(content[2:end])
            content = content[end:]
    entries = entries[: int(size)]
    assert len(entries) == int(size)
    assert rfc6962.mth(entries) == b64decode(root)
    return entries
