"""A handler that answers a constant: what grpc.aio on uvloop costs for a call before anything is decided.

Started by `products.empty` with the address to listen on and the number of bytes to answer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio
import uvloop


async def serve(target: str, answer: bytes) -> None:
    """Serves until the process is ended."""

    async def answered(_request: bytes, _context: object) -> bytes:
        return answer

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"Empty": grpc.unary_unary_rpc_method_handler(answered)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    server.add_insecure_port(target)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], b"\x01" * int(sys.argv[2])))
