"""Long work beside calls: paced, so that they do not wait for it, and with few collections.

Owns what a pause is in a server. Python runs one thread at a time, so that a call waits for whoever has its turn:

1. after `WORK_SECONDS` of work whoever builds lets everybody else go first, for `PAUSE_SECONDS`;
2. meanwhile the collector looks at what is young alone: all that is built is there to stay, and to look
   at it again and again would stop every call;
3. work that takes long tells now and then, in the log, what it is about;
4. when the server stops, it ends at its next pause, with an error, so that nothing comes of it.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator

import structlog

from gatebook.errors import DrainingError

WORK_SECONDS = 0.0005
PAUSE_SECONDS = 0.001
TELL_SECONDS = 2.0
"""How often long work is told."""
STOPPED = "the server is stopping and nothing was changed: publish again when it is back"
NEVER = 1_000_000
"""Collections of what is young, after which what is old would be looked at."""


class Pacer:
    """A `pause` for one piece of work, which one thread does."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        *,
        stopping: Callable[[], bool] = lambda: False,
        step: str = "",
        policy_set: str = "",
    ) -> None:
        """Takes the clock, what lets others go first, what tells of a stop, and how the log calls the work."""
        self._clock = clock
        self._sleep = sleep
        self._stopping = stopping
        self._step, self._policy_set = step, policy_set
        self._log = structlog.get_logger("gatebook.revisions")
        self._began = now = clock()
        self._until = now + WORK_SECONDS
        self._tell_at = now + TELL_SECONDS

    def __call__(self) -> None:
        """Lets others go first, if this has worked for long enough.

        Raises:
            DrainingError: the server stops, so that nothing is to come of this.
        """
        now = self._clock()
        if now < self._until:
            return
        if self._stopping():
            raise DrainingError(STOPPED)
        self._sleep(PAUSE_SECONDS)
        if now >= self._tell_at:
            self._tell_at = now + TELL_SECONDS
            self.tell(now - self._began)
        self._until = self._clock() + WORK_SECONDS

    def tell(self, seconds: float) -> None:
        """Tells the log for how long this has been worked on."""
        self._log.info("still at it", step=self._step, set=self._policy_set, seconds=round(seconds, 1))


class FewCollections:
    """Has what is old left alone by the collector as long as any block of this is entered."""

    def __init__(self) -> None:
        """Begins with none."""
        self._lock = threading.Lock()
        self._entered = 0
        self._before = (0, 0, 0)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Returns one block."""
        with self._lock:
            self._entered += 1
            if self._entered == 1:
                self._before = gc.get_threshold()
                gc.set_threshold(*self._before[:2], NEVER)
        try:
            yield
        finally:
            with self._lock:
                self._entered -= 1
                if not self._entered:
                    gc.set_threshold(*self._before)


few_collections = FewCollections()


class Stoppable:
    """Gives the pacers of one service, whose work ends when that stops."""

    def __init__(self) -> None:
        """Begins with a service that goes on."""
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends whatever is paced by these, each at its next pause."""
        self._stopping.set()

    def is_stopping(self) -> bool:
        """Tells whether the service stops."""
        return self._stopping.is_set()

    def pacer(self, step: str, policy_set: str = "", *, beside_calls: bool = True) -> Pacer:
        """Returns a pacer that lets others go first, or, where nobody is served yet, only tells how long it takes."""
        sleep = time.sleep if beside_calls else _go_on
        return Pacer(sleep=sleep, stopping=self.is_stopping, step=step, policy_set=policy_set)


def _go_on(_seconds: float) -> None:
    """Waits for nobody."""
