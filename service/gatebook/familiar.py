"""Requests that come again: read once, bound once, and decided once as long as the decision stands.

Owns what is remembered of whole requests, and these rules:

1. the same bytes are the same message, so that what was read of them is what would be read again;
   nothing is remembered of a request that was refused;
2. what follows from a request is remembered for one snapshot and one caller, since a decision depends on
   whom the policy set believes; another snapshot forgets it;
3. of a request that came once nothing is kept but a hash, so that who sends what never comes again makes
   nobody's request forgotten; all others together take `REMEMBERED_BYTES_MAX`;
4. what does not come any more is forgotten after at most twice `TURN_SECONDS`, while requests come.

It may be emptied at any time without changing an answer.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gatebook.audit.asked import Asked, ask, sent
from gatebook.authorize import Question, question_about
from gatebook.engine.snapshot import Snapshot
from gatebook.engine.standing import Standing
from gatebook.generations import Generations
from gatebook.values import AccessRequest

REMEMBERED_BYTES_MAX = 64 << 20
"""What all requests that are remembered may take, as far as it can be told."""
SEEN_MAX = 65_536
"""Requests that came once, of which the hash is kept."""
TURN_SECONDS = 150.0
CALLERS_MAX = 4
"""Callers of whom the same request is remembered."""
REQUEST_BYTES = 4_096
"""What a request takes beside its attributes, roughly, and what follows from it."""
BYTES_EACH = 28
"""What each byte of an encoded request takes at most once it is read: JSON of many small objects."""


class Heard(msgspec.Struct, eq=False):
    """A request that was read, whether it came before, and what followed `under` a snapshot, by caller.

    Its one owner is the memo. `under` is the mark of the snapshot, which stands for it and keeps nothing of it.
    """

    asked: Asked
    again: bool = False
    under: object = None
    questions: dict[str, Question] = {}

    def question(self, snapshot: Snapshot, caller: str, name: bytes, trace_id: bytes) -> Question:
        """Makes a question of the request, as a call of this `name` sends it; see `question_about` and `sent`."""
        if not self.again:
            return question_about(snapshot, sent(self.asked, name, trace_id), caller)
        if self.under is not snapshot.recall.mark or len(self.questions) > CALLERS_MAX:
            self.under, self.questions = snapshot.recall.mark, {}
        question = self.questions.get(caller)
        if question is None:
            about = question_about(snapshot, self.asked, caller)
            question = self.questions[caller] = Question(self.asked, caller, about.tokens, Standing())
        if not name and not trace_id:
            return question
        return Question(sent(self.asked, name, trace_id), caller, question.tokens, question.standing)


class Familiar:
    """The memo of requests of one server. Used on the event loop only."""

    def __init__(self, clock: Callable[[], float], bytes_max: int = REMEMBERED_BYTES_MAX) -> None:
        """Takes a monotonic clock, and how much may be remembered."""
        self._clock = clock
        self._heard: Generations[tuple[bytes, bool], Heard] = Generations(bytes_max)
        self._seen: Generations[int, bool] = Generations(SEEN_MAX)
        self._turned = clock()

    def known(self, encoded: bytes, *, allow_partial: bool) -> Heard | None:
        """Returns the request in these bytes, if it is remembered."""
        return self._heard.get((encoded, allow_partial))

    def hear(self, encoded: bytes, read: Callable[[], AccessRequest], *, allow_partial: bool) -> Heard:
        """Returns the request in these bytes, which `read` reads where they are new.

        Raises:
            LimitExceededError: no entry can hold it; and whatever `read` raises.
        """
        key = (encoded, allow_partial)
        heard = self._heard.get(key)
        if heard is not None:
            return heard
        heard = Heard(ask(read()))
        seen = hash(key)  # of two requests with one hash, one is remembered a little early
        if self._seen.get(seen):
            heard.again = True
            self._heard.put(key, heard, REQUEST_BYTES + BYTES_EACH * len(encoded))
        else:
            self._seen.put(seen, item=True)
        return heard

    def turn(self) -> None:
        """Forgets, now and then, what did not come again."""
        now = self._clock()
        if now - self._turned > TURN_SECONDS:
            self._turned = now
            self._heard.turn()
            self._seen.turn()
