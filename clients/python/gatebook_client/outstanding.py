"""The checks of one stream that have no answer yet.

Owns correlation and per-check deadlines; it does no I/O. An answer that fits no open check is an
error, and so is the end of a stream that owes answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook_client.asking import Asking, read_result
from gatebook_client.decision import Decision
from gatebook_client.doubts import Asked
from gatebook_client.errors import MalformedAnswerError
from gatebook_client.question import Check


class Outstanding:
    """The checks of one stream that have no answer yet. Safe to share between two threads."""

    def __init__(self, asking: Asking, timeout_seconds: float) -> None:
        """Starts empty; each check has `timeout_seconds` from when it is sent."""
        self._asking = asking
        self._timeout_seconds = timeout_seconds
        self._sent: dict[str, tuple[Check, Asked, float]] = {}
        self._count = 0
        self._all_sent = False
        self._lock = threading.Lock()

    def add(self, checks: Sequence[Check]) -> access_pb2.StreamCheckAccessRequest:
        """Returns the message that asks these checks, and expects their answers from now on."""
        request = access_pb2.StreamCheckAccessRequest(policy_set=self._asking.policy_set)
        with self._lock:
            for check in checks:
                correlation_id = str(self._count)
                self._count += 1
                request.items.append(self._asking.item(check, correlation_id))
                self._sent[correlation_id] = (check, self._asking.asked(check), time.monotonic())
        return request

    def settle(self, response: access_pb2.StreamCheckAccessResponse) -> list[tuple[Check, Decision]]:
        """Reads the answers of one message.

        Raises:
            MalformedAnswerError: an answer is to no check without an answer.
        """
        settled: list[tuple[Check, Decision]] = []
        for result in response.results:
            with self._lock:
                found = self._sent.pop(result.correlation_id, None)
            if found is None:
                raise MalformedAnswerError(f"the stream answers `{result.correlation_id}`, which is not open")
            check, asked, _ = found
            settled.append((check, read_result(result, asked)))
        return settled

    def finish(self) -> None:
        """Notes that no further check will be added."""
        self._all_sent = True

    @property
    def is_settled(self) -> bool:
        """Tells whether every check was asked and answered."""
        return self._all_sent and not self._sent

    def require_settled(self) -> None:
        """Refuses the end of a stream that owes answers."""
        if not self._all_sent:
            raise MalformedAnswerError("the stream ended before every check was asked")
        if self._sent:
            raise MalformedAnswerError(f"the stream ended with {len(self._sent)} checks unanswered")

    def left_seconds(self) -> float:
        """Returns the time that the oldest check has left; with none open, that of a new one."""
        with self._lock:
            if not self._sent:
                return self._timeout_seconds
            _, _, sent_time = next(iter(self._sent.values()))
        return max(0.0, sent_time + self._timeout_seconds - time.monotonic())

    def is_overdue(self) -> bool:
        """Tells whether a check waits for longer than it may."""
        return bool(self._sent) and self.left_seconds() <= 0
