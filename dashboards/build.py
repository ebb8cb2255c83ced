"""From the dashboards' builders to the JSON that Grafana reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import exporter, fleet, gpu, node, receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dashboards.board import Board

SCHEMA_VERSION: Final = 42
"""Of classic dashboards; newer ones are another format, which does not import cleanly everywhere."""

BOARDS: Final[Mapping[str, Callable[[], Board]]] = {
    "fleet": fleet.board,
    "node": node.board,
    "exporter": exporter.board,
    "gpu": gpu.board,
    "receiver": receiver.board,
}
"""Each dashboard by the name of its file."""


def documents() -> dict[str, dict[str, Any]]:
    """Return every dashboard as Grafana's JSON model, by the name of its file."""
    return {name: _document(make()) for name, make in BOARDS.items()}


def text(document: Mapping[str, Any]) -> str:
    """Return a dashboard as the file that is committed."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _document(board: Board) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    # A null id makes Grafana find the dashboard by its uid, wherever it is imported.
    return {"id": None, **made, "schemaVersion": SCHEMA_VERSION}
