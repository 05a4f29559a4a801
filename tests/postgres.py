"""A PostgreSQL of a test's or a benchmark's own: in a folder of its own, reached by a socket there and by nothing else.

Needs PostgreSQL 13 or newer. It runs as the user `postgres` where the tests run as root, which it refuses to be.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

START_SECONDS = 30
NEEDED = ("initdb", "postgres")


def program(name: str) -> str | None:
    """Returns the path of a program of PostgreSQL, which Debian keeps beside the path; None where it is not there."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")]))


def missing() -> str | None:
    """Returns the program that is needed and not there, if any."""
    return next((name for name in NEEDED if program(name) is None), None)


@contextmanager
def running() -> Iterator[Path]:
    """Runs a server, and gives the folder of its socket."""
    initdb, postgres = (program(name) or name for name in NEEDED)
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="gatebook-", dir="/tmp") as name:  # a socket's path is short
        folder = Path(name)
        if as_postgres:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        made = [initdb, "-D", data, "-U", "postgres", "-E", "UTF8", "--locale", "C.UTF-8", "-A", "trust", "--no-sync"]
        subprocess.run([*as_postgres, *made], check=True, capture_output=True, cwd=folder)
        served = [postgres, "-D", data, "-k", name, "-c", "listen_addresses=", "-c", "fsync=off"]
        with subprocess.Popen([*as_postgres, *served], cwd=folder, stderr=subprocess.DEVNULL) as process:
            try:
                asyncio.run(_reached(folder, process))
                yield folder
            finally:
                process.terminate()
                process.wait(START_SECONDS)


async def _reached(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Waits until the server answers."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            await (await asyncpg.connect(host=str(folder), user="postgres")).close()
        except (OSError, asyncpg.PostgresError):
            await asyncio.sleep(0.1)
        else:
            return
    raise RuntimeError("PostgreSQL did not start")
