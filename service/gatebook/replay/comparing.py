"""Puts questions of the book before a draft, in a process that does nothing else.

Owns that process for one replay or shadow: which snapshots it has, and that it ends. Whatever comes of it is told to
who asked for it and to nobody else: nothing here can change what is decided.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from types import TracebackType
from typing import Self

import msgspec

from gatebook.errors import GatebookError, OverloadedError, PolicySetRefusedError
from gatebook.policy import bundle
from gatebook.replay.asked_then import AskedThen
from gatebook.replay.judging import (
    SNAPSHOTS_MAX,
    Answer,
    Answers,
    Ask,
    Asks,
    Build,
    Built,
    Judged,
    Task,
    read_exactly,
    write,
)
from gatebook.replay.snapshots import last_of
from gatebook.revisions.active import Past, Revisions
from gatebook.revisions.aside import RETRY_SECONDS, give_way
from gatebook.values import Revision

COMMAND = (sys.executable, "-P", "-m", "gatebook.replay.judging")
ANSWER_SECONDS = 600.0
DRAFT = "draft"
MISSING = "its revision is missing or not understood"


class Comparing:
    """One draft, and the process that decides under it. Used on the event loop, by one task."""

    def __init__(self, revisions: Revisions, files: Mapping[str, bytes], name: str, now: datetime) -> None:
        """Takes the revisions, the draft, its name where it gives none, and the time."""
        self._store, self._lineage = revisions.store, revisions.state.lineage
        self._files, self._name, self._now = dict(files), name, now
        self._keys: dict[str, str] = {}  # what the process has, the oldest first: by key, why it could not be had
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        """Starts the process.

        Raises:
            OverloadedError: the system has none for it.
        """
        self._process = await asyncio.to_thread(_started)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process, also where who waits for this has gone."""
        if self._process is not None:
            self._process.kill()
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(_ended, self._process)))

    async def _draft(self, directory: Revision | None, until: datetime | None, beside: str = "") -> str:
        """Builds the draft under a directory and the lineage until a time, if it is not built, and returns its key.

        Raises:
            PolicySetRefusedError: the draft cannot be compiled.
            RevisionNotFoundError, BookRefusedError: the directory is missing or damaged.
        """
        key = f"{DRAFT}/{directory.digest if directory else ''}/{until}"
        if key not in self._keys:
            revision = Revision(bundle.digest(self._files), 0)
            lineage = self._lineage.until(until)
            task = Build(key, self._files, self._name, revision, None, directory, self._now, is_draft=True)
            refused = await self._build(msgspec.structs.replace(task, lineage=lineage), beside)
            if refused:
                raise PolicySetRefusedError(f"the draft is refused: {refused}", policy_set=self._name)
        return key

    async def _of_then(self, past: Past) -> str:
        """Builds what decided a question; returns its key, or an empty one where it cannot be had."""
        key = f"{past.policy.digest}/{past.directory.digest if past.directory else ''}"
        key = f"{key}/{past.lineage_until}"
        if key not in self._keys:
            try:
                files = await asyncio.to_thread(self._store.get_policy_set, past.policy.digest)
                task = Build(key, files, past.policy_set, past.policy, None, past.directory, self._now)
                await self._build(msgspec.structs.replace(task, lineage=self._lineage.until(past.lineage_until)))
            except GatebookError as err:
                self._keys[key] = err.reason
        return "" if self._keys[key] else key

    async def require(self, directory: Revision | None) -> None:
        """Requires a draft that compiles under a directory.

        Raises:
            PolicySetRefusedError: it does not.
        """
        await self._draft(directory, last_of(self._lineage.times(), datetime.max.replace(tzinfo=UTC)))

    async def judge(self, asked: Sequence[AskedThen], directory: Revision | None = None) -> list[Judged]:
        """Decides questions of the book under what decided them and under the draft.

        The draft decides under the directory of then, or under the one that is given.

        Raises:
            PolicySetRefusedError: the draft cannot be compiled.
            OverloadedError: the process ended, or takes too long.
        """
        judged: list[Judged] = []
        for (past, under), some in groupby(
            map(self._rounded, asked), lambda one: (one.past, directory or one.past.directory)
        ):
            old = await self._of_then(past)
            if not old:
                judged += [Judged(failed=MISSING) for _ in some]
                continue
            new = await self._draft(under, past.lineage_until, old)
            asks = [Ask(old, new, it.request, it.caller, it.entry_time, it.plan_dialect) for it in some]
            judged += await self._answered(asks)
        return judged

    def _rounded(self, asked: AskedThen) -> AskedThen:
        """Returns a question whose lineage is until the last event that counts, so that many have one in common."""
        until = last_of(self._lineage.times(), asked.past.lineage_until)
        return msgspec.structs.replace(asked, past=msgspec.structs.replace(asked.past, lineage_until=until))

    async def _answered(self, waiting: Sequence[Ask]) -> list[Judged]:
        if not waiting:
            return []
        answer = await self._said(Asks(tuple(waiting)))
        if not isinstance(answer, Answers):
            raise TypeError("the process did not answer questions")
        return list(answer.judged)

    async def _build(self, task: Build, beside: str = "") -> str:
        """Has a snapshot built, in the place of the oldest but `beside`; returns why it could not be."""
        people = None
        if task.directory_revision is not None:
            people = await asyncio.to_thread(self._store.get_directory, task.directory_revision.digest)
        held = [key for key, refused in self._keys.items() if not refused and key != beside]
        drop = held[0] if len(held) >= SNAPSHOTS_MAX - 1 else ""
        answer = await self._said(msgspec.structs.replace(task, directory=people, drop=drop))
        if not isinstance(answer, Built):
            raise TypeError("the process did not say what it built")
        self._keys.pop(drop, None)
        self._keys[task.key] = answer.refused
        return answer.refused

    async def _said(self, task: Task) -> Answer:
        process = self._process
        if process is None:
            raise RuntimeError("the process was not started")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.to_thread(_ask, process, task)
        except TimeoutError as err:
            process.kill()  # so that the thread ends
            raise OverloadedError("the draft takes too long to decide: ask again", RETRY_SECONDS) from err


def _started() -> subprocess.Popen[bytes]:
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=nothing)  # noqa: S603  # this program
    except OSError as err:
        raise OverloadedError("there is no process to decide under the draft: ask again", RETRY_SECONDS) from err
    give_way(process.pid, only_idle=False)
    return process


def _ask(process: subprocess.Popen[bytes], task: Task) -> Answer:
    """Says one thing to the process, and waits for its answer. For a thread."""
    said = b""
    with contextlib.suppress(OSError, ValueError):  # it is gone, or its pipes are closed
        if process.stdin is not None and process.stdout is not None:
            write(process.stdin, task)
            said = read_exactly(process.stdout)
    if not said:
        message = "the process that decides under the draft was ended: is there memory for it?"
        raise OverloadedError(message, RETRY_SECONDS, limit="memory")
    answer: Answer = msgspec.json.decode(said, type=Answer)
    return answer


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
