"""The entry of the command `gatebook`.

Owns two promises: where only the client is installed, the command says what to install; and gRPC itself
writes nothing among the lines of the log, where each stranger's handshake would be one.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Runs the command line; returns 2 where the packages that it needs are not installed."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read once, when gRPC is first imported
    try:
        from gatebook.cli import main as run  # noqa: PLC0415 - the base install lacks what it imports
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "gatebook", "gatebook_client"}:
            raise
        sys.stderr.write(f"gatebook: the command line needs `{missing}`: run `pip install 'gatebook[server]'`\n")
        return 2
    return run() or 0


if __name__ == "__main__":
    sys.exit(main())
