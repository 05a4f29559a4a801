"""The power goes after any file call of a book, its people and its clerk: what was answered until then is there.

The disk is as strict as POSIX allows (see `power`): a write, a name or a removal that no completed sync covers is lost.
Needs strace.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.book_life import COUNT, MARK, read_told
from tests.system.lives import Lives
from tests.system.power import TRACED, Call, Disk, calls
from tests.system.test_book_syscalls import remove, require_nothing_lost

CHANGING = {"fsync", "fdatasync", "unlink", "rmdir", "rename", "link", "mkdir", "openat", "pwrite64", "ftruncate"}
SAMPLED = 40
SAMPLED_KILLS = 4


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one."""
    memory = Path("/dev/shm")  # noqa: S108 - only to choose the file system; the folder's name is random
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def lived(folder: Path) -> tuple[Path, list[list[Call]], list[Path]]:
    """A book that lived twice: what each life called, and what each answered."""
    base = folder / "base"
    base.mkdir()
    data = base / "data"
    data.with_suffix(".mark").touch()
    traces, told = [], []
    with Lives() as lives:
        for number in range(2):
            ended = lives.live_whole(data, *TRACED)
            assert 0 == ended.code, data.with_suffix(".error").read_text("utf-8")
            traces.append(list(calls(ended.trace)))
            told.append(Path(shutil.copy(data.with_suffix(".told"), folder / f"{number}.told")))
    return base, traces, told


def cuts(base: Path, traces: list[list[Call]], places: range) -> Iterator[tuple[str, Disk, list[int]]]:
    """Yields the disk after each of these calls, and how much each life had answered by then."""
    disk, answered, at = Disk(base), [0, 0], 0
    for life, trace in enumerate(traces):
        for call in trace:
            text = call.texts[0].decode("utf-8", "replace") if call.texts else ""
            if call.name.startswith(("access", "faccess")) and text.startswith(MARK):
                answered[life] = int(text.removeprefix(MARK))
                continue
            disk.do(call)
            if call.name in CHANGING and (str(base) in f"{call.path} {text}"):
                at += 1
                if at in places:
                    yield f"life {life}, call {at}, {call.name} {call.path or text}", disk, answered


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("every", [None, pytest.param(1, marks=pytest.mark.long)])
def test_what_was_answered_outlives_the_power(
    folder: Path, lived: tuple[Path, list[list[Call]], list[Path]], every: int | None
) -> None:
    """After each call, and in `make test-system` after some, a start finds all that was answered, and it verifies."""
    base, traces, told = lived
    total = sum(1 for _ in cuts(base, traces, range(10**9)))
    assert total > 500
    wrong = []
    for name, disk, answered in cuts(base, traces, range(1, total + 1, every or max(1, total // SAMPLED))):
        for life, count in enumerate(answered):
            found = cut(disk, folder / "cut", COUNT.pack(count) + told[life].read_bytes()[COUNT.size :])
            if found:
                wrong.append(f"{name}: {found}")

    assert [] == wrong
    assert answered[1] > 100


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.long)])
def test_what_a_killed_process_left_in_memory(folder: Path, *, all_of_them: bool) -> None:
    """Killed before a sync, started again, answering, and then without power: the start synced what it builds on.

    In `make test-system` it is killed before the syncs of folders in which data directory, keys and people get names.
    """
    base = folder / "syncs"
    base.mkdir()
    with Lives() as lives:
        whole = lives.live_whole(base / "data", *TRACED)
        mine = whole.trace[: whole.trace.index(" ") + 1]
        synced = list(calls("\n".join(line for line in whole.trace.splitlines() if line.startswith(mine))))
        remove(base / "data")
        wrong = []
        for name in ("fsync", "fdatasync"):
            paths = [call.path.removeprefix(str(base)) for call in synced if call.name == name]
            for at, path in enumerate(paths, 1):
                if all_of_them or path in {"", "/data/keys"} or (name, path) == ("fdatasync", "/data/people.db-wal"):
                    wrong.append(kill_and_cut(lives, base, f"inject={name}:signal=SIGKILL:when={at}"))
                if not all_of_them and len(wrong) == SAMPLED_KILLS:
                    break

    assert len(wrong) >= SAMPLED_KILLS
    assert not any(wrong), wrong


def kill_and_cut(lives: Lives, base: Path, kill: str) -> str:
    """Kills a life, has another one go on, and cuts the power after each of its answers; returns what is wrong."""
    data = base / "data"
    killed = lives.live_whole(data, *TRACED, "-e", kill)
    had = read_told(data.with_suffix(".told"))
    data.with_suffix(".mark").touch()
    again = lives.live_whole(data, *TRACED)
    told = data.with_suffix(".told").read_bytes()
    disk, answered, checked, wrong = Disk(base), 0, -1, ""
    for call in calls(killed.trace):
        disk.do(call)
    for call in calls(again.trace):
        text = call.texts[0].decode("utf-8", "replace") if call.texts else ""
        if call.name.startswith(("access", "faccess")) and text.startswith(MARK):
            answered = int(text.removeprefix(MARK))
        elif answered > checked and not wrong:
            checked = answered
            wrong = cut(disk, base.parent / "cut", COUNT.pack(answered) + told[COUNT.size :])
        disk.do(call)
    shutil.rmtree(data)
    for path in base.iterdir():
        path.unlink()
    return f"{kill}, {len(had)} answered before, {answered} after, {again.code}: {wrong}" if wrong or again.code else ""


def cut(disk: Disk, target: Path, told: bytes) -> str:
    """Starts what a loss of power leaves; returns what is wrong with it."""
    disk.write_durable(target)
    (target / "data.told").write_bytes(told)
    try:
        if COUNT.unpack(told[: COUNT.size]) != (0,):
            require_nothing_lost(target / "data", [])
    except Exception as err:  # noqa: BLE001  # whatever it is, it is told with its place
        return f"{err!r}"[:400]
    finally:
        shutil.rmtree(target)
    return ""
