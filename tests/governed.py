"""The one model that governed sets have, as it is shipped."""

from __future__ import annotations

from pathlib import Path

GOVERNED_MODEL = (Path(__file__).parents[1] / "policies" / "telemetry" / "model.conf").read_text(encoding="utf-8")
