"""The path to which jobs report what they made: OpenLineage's HTTP transport, `POST /api/v1/lineage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gatebook.gateway.rim import Call, Rim
from gatebook.governance.openlineage import EVENT_BYTES_MAX
from gatebook.rpc.reporting import Reporting

PATH = "/api/v1/lineage"
OPERATION = "RecordLineage"


class Lineage:
    """Answers the path. Used on the event loop only."""

    def __init__(self, rim: Rim, reporting: Reporting) -> None:
        """Takes the rim of every call, and where events go."""
        self._rim = rim
        self._reporting = reporting

    async def report(self, request: Request) -> Response:
        """Takes one run event."""
        return await self._rim.answer(OPERATION, request, self._record, EVENT_BYTES_MAX, as_it_came=True)

    async def _record(self, call: Call) -> Mapping[str, Any]:
        response = await self._reporting.record(call.content, call.caller)
        call.told["outputs"] = len(response.outputs)
        outputs = [
            {"namespace": one.namespace, "name": one.name, "changed": one.changed, "index": one.index}
            for one in response.outputs
        ]
        return {"event_type": response.event_type, "outputs": outputs}
