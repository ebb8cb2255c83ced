"""Draws the dashboards with data from a real Prometheus: a look at their layout where there is no Grafana.

    python -m dashboards.look http://127.0.0.1:9090 DIR

writes one HTML page for each dashboard. Positions, titles, units, colours of thresholds, legends and values
are as in the JSON; how Grafana itself draws a panel is not what this shows.
"""

from __future__ import annotations

import html
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dashboards.asking import EVERYTHING, Asked, Prometheus, asked_by, expanded
from dashboards.drawing import bars, cells, lines, number, strips, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dashboards.asking import Series

_WIDTH: Final = 1440
_UNIT: Final = 38
_POINTS: Final = 120
_STYLE: Final = """
body{background:#111217;color:#ccccdc;font:12px Inter,DejaVu Sans,sans-serif;margin:0;padding:8px}
h1{font-size:18px;margin:4px 0 10px} .vars span{background:#22252b;padding:3px 8px;margin-right:8px}
.board{position:relative;margin-top:10px}
.panel{position:absolute;background:#181b1f;border:1px solid #2c3235;border-radius:3px;overflow:hidden}
.panel b{display:block;padding:5px 8px;font-weight:500;white-space:nowrap;overflow:hidden}
.row{position:absolute;font-size:14px;padding:9px 4px} .empty{color:#f2495c;padding:20px;text-align:center}
.legend{padding:0 8px;white-space:nowrap;overflow:hidden} .legend span{margin-right:10px}
table{border-collapse:collapse;margin:4px 8px} td,th{padding:3px 10px;text-align:left;white-space:nowrap}
th{color:#6e9fff;font-weight:500}
"""


_DRAWN: Final = {
    "stat": number,
    "timeseries": lines,
    "bargauge": bars,
    "state-timeline": strips,
    "heatmap": cells,
}


def page(document: Mapping[str, Any], prometheus: Prometheus, *, seconds: float) -> str:
    """Return a dashboard as an HTML page.

    Args:
        document: Grafana's JSON model.
        prometheus: Who is asked.
        seconds: How far graphs look back.
    """
    width = (_WIDTH - 16) / 24
    drawn, bottom = [], 0
    for panel in document["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] * width, place["y"] * _UNIT
        wide, high = place["w"] * width - 8, place["h"] * _UNIT - 8
        bottom = max(bottom, top + place["h"] * _UNIT)
        at = f"left:{left:.0f}px;top:{top}px;width:{wide:.0f}px;height:{high}px"
        title = html.escape(panel["title"])
        if panel["type"] == "row":
            drawn.append(f'<div class="row" style="{at}">▾ {title}</div>')
            continue
        inside = _inside(panel, prometheus, seconds, (wide, high - 28))
        drawn.append(f'<div class="panel" style="{at}"><b>{title}</b>{inside}</div>')
    variables = "".join(f"<span>{one['label']}: All</span>" for one in document["templating"]["list"])
    title = html.escape(document["title"])
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>'
        f'<div class="vars">{variables}</div>'
        f'<div class="board" style="height:{bottom}px">{"".join(drawn)}</div>'
    )


def _inside(
    panel: Mapping[str, Any], prometheus: Prometheus, seconds: float, size: tuple[float, float]
) -> str:
    found = [
        (one, series) for asked in asked_by(panel) for one, series in _answers(asked, prometheus, seconds)
    ]
    if not found:
        return '<div class="empty">No data</div>'
    named = [(series.named(asked.legend), series) for asked, series in found]
    if panel["type"] == "table":
        return table([series for _, series in named], panel)
    drawn: str = _DRAWN[panel["type"]](named, panel, size)
    return drawn


def _answers(asked: Asked, prometheus: Prometheus, seconds: float) -> list[tuple[Asked, Series]]:
    expression = expanded(asked.expression, {**EVERYTHING, "__range": f"{seconds:.0f}s"})
    if asked.instant:
        return [(asked, one) for one in prometheus.instant(expression)]
    now = time.time()
    step = max(1.0, seconds / _POINTS)
    return [(asked, one) for one in prometheus.over(expression, start=now - seconds, end=now, step=step)]


def main() -> None:
    """Write the pages."""
    url, directory, *rest = sys.argv[1:]
    seconds = float(rest[0]) if rest else 300.0
    prometheus = Prometheus(url)
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(__file__).parent.glob("*.json")):
        drawn = page(json.loads(path.read_text()), prometheus, seconds=seconds)
        (place / f"{path.stem}.html").write_text(drawn)


if __name__ == "__main__":
    main()
