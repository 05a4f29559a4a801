"""The command line on a clock that is behind: `python -m tests.long_ago DAYS serve ...` makes entries of long ago.

The times of entries come from the clock that `open_service` gives the recorder, and from that of a rotation. Nothing
else is behind: checkpoints have the time of the machine.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import gatebook.audit.rotation
import gatebook.service
from gatebook.__main__ import main

PROGRAM = ("-m", "tests.long_ago")


class LongAgo(datetime):
    """A clock that is some days behind."""

    days = 0

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # only UTC is asked for
        """Returns what time it was."""
        assert tz is UTC
        return datetime.now(UTC) - timedelta(days=cls.days)


if __name__ == "__main__":
    LongAgo.days = int(sys.argv.pop(1))
    for module in (gatebook.service, gatebook.audit.rotation):
        module.datetime = LongAgo  # type: ignore[attr-defined]  # the name that the module imported
    sys.exit(main())
