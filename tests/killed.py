"""The command line that kills itself at a step: `python -m tests.killed MODULE:NAME:COUNT serve ...`.

The process ends, as by SIGKILL, in place of the call with this number of the function with this name; of another thread
or of the event loop, wherever it is.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from gatebook.__main__ import main

PROGRAM = ("-m", "tests.killed")


def kill_at(where: str) -> None:
    """Puts a kill in the place of a call."""
    module, name, count = where.split(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    function: Callable[..., Any] = getattr(owner, last)
    left = [int(count)]

    def counted(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    setattr(owner, last, counted)


if __name__ == "__main__":
    kill_at(sys.argv.pop(1))
    sys.exit(main())
