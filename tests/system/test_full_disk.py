"""Disks that are really full, of bytes or of names, under a book and under a whole server. Needs root, to mount."""

from __future__ import annotations

import errno
import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.acknowledged import Acknowledged
from tests.books import check_log, publisher
from tests.serving import POLICIES, RunningServer, gatebook

from gatebook.audit.book import Book
from gatebook.audit.clerk import sole_writer
from gatebook.audit.limits import BookLimits
from gatebook.errors import BookUnavailableError
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

ORIGIN = "gatebook.test/book"
LIMITS = BookLimits(segment_bytes=8_192, group_entries_max=64, group_bytes_max=4_000)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NOT_NOW = 3
SECONDS = 60
ASKED_MAX = 5_000
FILES_MAX = 100_000


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory."""
    place = tmp_path / "small"
    place.mkdir()
    mounted: list[Path] = []

    def make(options: str) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        mounted.append(place)
        return place

    yield make
    for each in mounted:
        subprocess.run(["umount", str(each)], check=True)


def take_bytes(ballast: Path) -> None:
    """Fills a file system to the last byte."""
    with ballast.joinpath("bytes").open("wb", buffering=0) as file:
        for size in (1 << 20, 4_096, 1):
            use_up(lambda _, size=size: file.write(bytes(size)))  # type: ignore[misc]


def take_names(ballast: Path) -> None:
    """Makes files until a file system has no place for another."""
    use_up(lambda number: os.close(os.open(ballast / f"{number}", os.O_CREAT)))


def use_up(take: Callable[[int], object]) -> None:
    """Takes until there is nothing left."""
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        deque(map(take, range(FILES_MAX)), maxlen=0)


def give_back(ballast: Path) -> None:
    """Removes what was taken."""
    for path in ballast.iterdir():
        path.unlink()


class Caller:
    """Asks one server, about somebody else each time, and keeps each receipt."""

    def __init__(self, channel: grpc.Channel, acknowledged: Acknowledged) -> None:
        """Takes a channel, and where receipts go."""
        self._access: Any = AccessServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._acknowledged = acknowledged
        self.asked = 0

    def ask(self) -> grpc.StatusCode:
        """Asks once; returns how that ended."""
        self.asked += 1
        question = pb.CheckAccessRequest(
            access=types_pb2.AccessRequest(
                subject=types_pb2.Subject(id="alice"),
                action=types_pb2.Action(name="read"),
                resource=types_pb2.Resource(id=f"report:{self.asked}"),
            ),
            receipt_level=types_pb2.RECEIPT_LEVEL_FULL,
        )
        try:
            self._acknowledged.add(self._access.CheckAccess(question, timeout=SECONDS).decision.receipt)
        except grpc.RpcError as err:
            return err.code()
        return grpc.StatusCode.OK

    def ask_until(self, code: grpc.StatusCode) -> set[grpc.StatusCode]:
        """Asks until that is how it ends; returns in which other ways it ended before."""
        others: set[grpc.StatusCode] = set()
        for _ in range(ASKED_MAX):
            ended = self.ask()
            if ended == code:
                return others
            others.add(ended)
        raise AssertionError(f"after {ASKED_MAX} calls none ended with {code}")

    def wait_for(self, status: int) -> None:
        """Waits until the health of the server is such."""
        for told in self._health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS):
            if told.status == status:
                return


@pytest.mark.parametrize(("options", "take"), [("size=80m", take_bytes), ("size=80m,nr_inodes=400", take_names)])
def test_a_server_on_a_full_disk(
    tmp_path: Path, mount: Callable[[str], Path], options: str, take: Callable[[Path], None]
) -> None:
    """Callers are told UNAVAILABLE and nothing else; with space it goes on by itself. A start on a full disk fails."""
    place = mount(options)
    data, ballast, acknowledged = place / "data", place / "ballast", Acknowledged()
    ballast.mkdir()
    server = RunningServer(data, "--policies", str(POLICIES / "basic"))
    with server.channel() as channel:
        caller = Caller(channel, acknowledged)
        assert set() == caller.ask_until(grpc.StatusCode.OK)
        for _ in range(2):
            take(ballast)
            assert {grpc.StatusCode.OK} >= caller.ask_until(grpc.StatusCode.UNAVAILABLE)
            caller.wait_for(NOT_SERVING)
            assert grpc.StatusCode.UNAVAILABLE == caller.ask()
            give_back(ballast)
            caller.wait_for(SERVING)
            assert {grpc.StatusCode.UNAVAILABLE} >= caller.ask_until(grpc.StatusCode.OK)
        before = len(acknowledged)
        take(ballast)
        caller.ask_until(grpc.StatusCode.UNAVAILABLE)
        server.kill()
    with sole_writer(data / "book.new"):  # its clerk has gone, and makes no more room
        take(ballast)
    refused = gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0")
    assert NOT_NOW == refused.returncode, refused.stderr
    assert "no space left on device" in refused.stderr.lower()
    give_back(ballast)
    server = RunningServer(data)
    with server.channel() as channel:
        assert set() == Caller(channel, acknowledged).ask_until(grpc.StatusCode.OK)
    assert 0 == server.stop()
    assert before < acknowledged.require_kept(data, tmp_path) == len(acknowledged)


def test_a_book_on_a_full_disk(mount: Callable[[str], Path]) -> None:
    """On a file system of 400 KiB the book stops before it writes what does not fit, and goes on with space."""
    place = mount("size=400k")
    ballast = place / "ballast"
    ballast.write_bytes(bytes(100_000))
    book = Book.open(place / "data", origin=ORIGIN, limits=LIMITS)
    publish = publisher(book)
    entries: list[bytes] = []
    with pytest.raises(BookUnavailableError):
        fill(book, entries)
    assert entries == book.read(0, book.size)
    assert not book.failure
    ballast.unlink()
    publish.publish_now()
    book.append_group([b"after"])
    signed = publish.publish_now().checkpoint.size
    book.close()
    check_log(place / "data", [*entries, b"after"], signed)


def fill(book: Book, entries: list[bytes]) -> None:
    """Appends and publishes until there is no space."""
    publish = publisher(book)
    for number in range(1_000):
        group = [b"%d" % (number * 40 + at) * 10 for at in range(40)]
        book.append_group(group)
        entries += group
        if number % 3 == 0:
            publish.publish_now()
