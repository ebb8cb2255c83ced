"""Draws single panels for `look`: HTML and SVG from series."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dashboards.asking import Series

Named = list[tuple[str, "Series"]]
Size = tuple[float, float]

_PALETTE: Final = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c"),
    *("#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"),
)
_COLOURS: Final = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "text": "#ccccdc",
    "transparent": "#00000000",
}
_THOUSANDS: Final = {"bytes": 1024.0, "Bps": 1024.0}
_ENDS: Final = {
    "bytes": "iB",
    "Bps": "iB/s",
    "reqps": " req/s",
    "cps": " c/s",
    "watt": " W",
    "celsius": " °C",
}
_TIMES: Final = ((86_400, " d"), (3600, " h"), (60, " min"), (1, " s"), (0.001, " ms"), (1e-6, " µs"))


def shown(value: float, unit: str) -> str:
    """Return a value in its unit, about as Grafana writes it."""
    if not math.isfinite(value):
        return str(value)
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s":
        size, word = next(((s, w) for s, w in _TIMES if abs(value) >= s), (1, " s"))
        return f"{value / size:.3g}{word}"
    base = _THOUSANDS.get(unit, 1000.0)
    power = 0
    while abs(value) >= base and power < 4:  # noqa: PLR2004 - up to tera
        value /= base
        power += 1
    return f"{value:.3g}{('', ' K', ' M', ' G', ' T')[power]}{_ENDS.get(unit, '')}"


def number(named: Named, panel: Mapping[str, Any], size: Size) -> str:
    """Draw a big number, with the line of how it came to be."""
    width, height = size
    field = panel["fieldConfig"]["defaults"]
    sparkline = panel["options"].get("graphMode") == "area"
    _, series = named[0]
    value = series.points[-1][1]
    text, colour = _said(value, field)
    line = ""
    if sparkline and len(series.points) > 1:
        values = [point[1] for point in series.points if math.isfinite(point[1])]
        low, high = min(values, default=0), max(values, default=1)
        line = _points(
            series.points, series.points[0][0], series.points[-1][0], low, high or 1, (width, height * 0.4)
        )
        line = f'<g transform="translate(0,{height * 0.55:.0f})">{_stroke(line, colour)}</g>'
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}">{line}<text x="50%" y="50%" fill="{colour}" '
        f'text-anchor="middle" font-size="28">{html.escape(text)}</text></svg>'
    )


def lines(named: Named, panel: Mapping[str, Any], size: Size) -> str:
    """Draw lines, or areas upon each other, with a legend."""
    width, height = size[0] - 76, size[1] - 44
    field = panel["fieldConfig"]["defaults"]
    custom = field.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    unit = field["unit"]
    colours = _colours(named, panel)
    series = _stacked(named) if stacked else [(name, one.points) for name, one in named]
    values = [value for _, points in series for _, value in points if math.isfinite(value)]
    low = min([*values, field.get("min", math.inf)], default=0)
    high = max([*values, field.get("max", -math.inf)], default=1)
    high = high if high > low else low + 1
    times = [at for _, points in series for at, _ in points]
    drawn = [
        f'<line x1="0" x2="{width}" y1="{height * part}" y2="{height * part}" stroke="#2c3235"/>'
        f'<text x="-6" y="{height * part + 4}" fill="#888" text-anchor="end" font-size="10">'
        f"{shown(high - (high - low) * part, unit)}</text>"
        for part in (0, 0.5, 1)
    ]
    for (name, points), colour in zip(series, colours, strict=True):
        path = _points(points, min(times), max(times), low, high, (width, height))
        drawn.append(_stroke(path, colour, title=name))
    for step in field.get("thresholds", {}).get("steps", []):
        if custom.get("thresholdsStyle") and step["value"] is not None and low < step["value"] <= high:
            y = height * (1 - (step["value"] - low) / (high - low))
            drawn.append(
                f'<line x1="0" x2="{width}" y1="{y}" y2="{y}" stroke="#f2495c" stroke-dasharray="6"/>'
            )
    legend = "".join(
        f'<span style="color:{colour}">▬ {html.escape(name)}</span>'
        for (name, _), colour in zip(named, colours, strict=True)
    )
    return (
        f'<svg width="{size[0]:.0f}" height="{height + 16:.0f}">'
        f'<g transform="translate(70,8)">{"".join(drawn)}</g></svg><div class="legend">{legend}</div>'
    )


def bars(named: Named, panel: Mapping[str, Any], size: Size) -> str:
    """Draw a bar for each series."""
    field = panel["fieldConfig"]["defaults"]
    most = max((abs(series.points[-1][1]) for _, series in named), default=1) or 1
    rows = []
    for name, series in named:
        value = series.points[-1][1]
        _, colour = _said(value, field)
        share = max(0.0, value / most) * (size[0] - 330)
        rows.append(
            f'<tr><td style="width:190px;overflow:hidden">{html.escape(name)}</td>'
            f'<td><div style="width:{share:.0f}px;height:14px;background:{colour};display:inline-block">'
            f"</div> {shown(value, field['unit'])}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def strips(named: Named, panel: Mapping[str, Any], size: Size) -> str:
    """Draw a coloured strip for each series."""
    field = panel["fieldConfig"]["defaults"]
    start = min(series.points[0][0] for _, series in named)
    end = max(series.points[-1][0] for _, series in named)
    high = (size[1] - 12) / len(named)
    width = size[0] - 190
    drawn = []
    for row, (name, series) in enumerate(named):
        y = row * high
        drawn.append(f'<text x="4" y="{y + high / 2 + 4}" fill="#ccccdc">{html.escape(name)}</text>')
        step = width / max(1, len(series.points))
        for at, value in series.points:
            x = 180 + width * (at - start) / (end - start + 1)
            colour = _said(value, field)[1]
            drawn.append(
                f'<rect x="{x}" y="{y}" width="{step + 0.5}" height="{high * 0.8}" fill="{colour}"/>'
            )
    return f'<svg width="{size[0]:.0f}" height="{size[1]:.0f}">{"".join(drawn)}</svg>'


def cells(named: Named, panel: Mapping[str, Any], size: Size) -> str:
    """Draw a heat map of cumulative buckets."""
    del panel  # its buckets' bounds are the rows' names
    ordered = sorted(named, key=lambda pair: float(pair[0].replace("+Inf", "inf")))
    width, height = size[0] - 60, size[1] - 12
    high = height / len(ordered)
    drawn = []
    below: dict[float, float] = {}
    counts = []
    for row, (name, series) in enumerate(ordered):
        for at, value in series.points:
            counts.append((row, at, max(0.0, value - below.get(at, 0.0))))
            below[at] = value
        y = height - (row + 1) * high
        drawn.append(f'<text x="50" y="{y + high}" fill="#888" font-size="9" text-anchor="end">{name}</text>')
    most = max((count for _, _, count in counts), default=1) or 1
    times = sorted({at for _, at, _ in counts})
    step = width / len(times)
    for row, at, count in counts:
        if count > 0:
            strength = (count / most) ** 0.5
            x, y = 56 + times.index(at) * step, height - (row + 1) * high
            drawn.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{step:.1f}" height="{high:.1f}" '
                f'fill="#ff780a" opacity="{strength:.2f}"/>'
            )
    return f'<svg width="{size[0]:.0f}" height="{size[1]:.0f}">{"".join(drawn)}</svg>'


def table(series: Sequence[Series], panel: Mapping[str, Any]) -> str:
    """Draw labels as a table, with the columns that the panel's transformation leaves."""
    (transformation,) = panel["transformations"]
    columns = transformation["options"]["renameByName"]
    head = "".join(f"<th>{html.escape(title)}</th>" for title in columns.values())
    rows = (
        "".join(f"<td>{html.escape(one.labels.get(label, ''))}</td>" for label in columns) for one in series
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _said(value: float, field: Mapping[str, Any]) -> tuple[str, str]:
    """Return a value's text and colour, by mappings and thresholds."""
    for mapping in field.get("mappings", []):
        result = mapping["options"].get(f"{value:g}")
        if result:
            return result["text"], _COLOURS.get(result["color"], result["color"])
    colour = "text"
    for step in field.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return shown(value, field["unit"]), _COLOURS.get(colour, colour)


def _colours(named: Named, panel: Mapping[str, Any]) -> list[str]:
    fixed = {
        override["matcher"]["options"]: one["value"]["fixedColor"]
        for override in panel["fieldConfig"].get("overrides", [])
        for one in override["properties"]
        if one["id"] == "color"
    }
    plain = [fixed.get(name, _PALETTE[place % len(_PALETTE)]) for place, (name, _) in enumerate(named)]
    return [_COLOURS.get(colour, colour) for colour in plain]


def _stacked(named: Named) -> list[tuple[str, tuple[tuple[float, float], ...]]]:
    below: dict[float, float] = {}
    found = []
    for name, series in named:
        points = []
        for at, value in series.points:
            below[at] = below.get(at, 0.0) + (value if "limit" not in name else 0.0)
            points.append((at, value if "limit" in name else below[at]))
        found.append((name, tuple(points)))
    return found


def _points(
    points: Sequence[tuple[float, float]], start: float, end: float, low: float, high: float, size: Size
) -> str:
    width, height = size
    wide, tall = end - start or 1, high - low or 1
    return " ".join(
        f"{width * (at - start) / wide:.1f},{height * (1 - (value - low) / tall):.1f}"
        for at, value in points
        if math.isfinite(value)
    )


def _stroke(points: str, colour: str, *, title: str = "") -> str:
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5">'
        f"<title>{html.escape(title)}</title></polyline>"
    )
