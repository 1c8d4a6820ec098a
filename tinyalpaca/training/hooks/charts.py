"""Line charts as SVG and small pictures as PNG, for pages without other files."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from math import floor, isfinite, log10
from typing import Any, NamedTuple

import numpy as np

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b7791f", "#c53030", "#0f766e", "#9d174d")
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 40
MOST_POINTS = 400
# Dark blue over green to yellow, like viridis: even steps to the eye, and in print.
COLOUR_STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


class Line(NamedTuple):
    """One line of a chart; `dots` marks its points, `faint` draws it in the background."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    faint: bool = False


def line_chart(lines: Sequence[Line], y_label: str, *, logarithmic: bool = False) -> str:
    """An SVG element with axes, grid and legend; x is the step.

    Points that are not finite (or, on a logarithmic axis, not positive) are left out.
    """
    drawn = [line._replace(points=_usable(line.points, logarithmic)) for line in lines]
    everything = [point for line in drawn for point in line.points]
    if not everything:
        return '<p class="none">Nothing has been recorded.</p>'
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_ticks = _log_ticks(min(ys), max(ys)) if logarithmic else _ticks(min(ys), max(ys), 5)
    y_low, y_high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def place_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        low, high, value = y_low, y_high, y
        if logarithmic:
            low, high, value = log10(low), log10(high), log10(y)
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)}">']
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(x_low, x_high, 6):
        if x_low <= tick <= x_high:
            x = place_x(tick)
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>'
            )
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">step</text>')
    for number, line in enumerate(drawn):
        parts.append(_drawn(line, COLOURS[number % len(COLOURS)], place_x, place_y))
    parts.append("</svg>")
    return "".join(parts) + legend([line.name for line in drawn])


def loss_lines(
    losses: Sequence[tuple[float, float]], records: Sequence[dict[str, Any]]
) -> list[Line]:
    """The learning curve, wherever it is drawn.

    Args:
        losses: (step, training loss) of every step.
        records: of the validations.
    """
    smooth = smoothed([loss for _, loss in losses])
    return [
        Line("training", [(x, y) for (x, _), y in zip(losses, smooth, strict=True)]),
        Line("validation", [(r["step"], r["val_loss"]) for r in records], dots=True),
        Line("training, each step", losses, faint=True),
    ]


def smoothed(values: Sequence[float], share: float = 0.01) -> list[float]:
    """Exponential average over about `share` of all values, corrected for its start."""
    keep = 1 - 1 / max(1.0, share * len(values))
    result, average, weight = [], 0.0, 0.0
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def legend(names: Sequence[str]) -> str:
    """A line of coloured names."""
    items = (
        f'<span><i style="background:{COLOURS[n % len(COLOURS)]}"></i>{escape(name)}</span>'
        for n, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(items)}</p>'


def _drawn(line: Line, colour: str, place_x, place_y) -> str:
    points = [(place_x(x), place_y(y)) for x, y in _thinned(line.points)]
    if not points:  # a run that has not been validated yet
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    style = "0.8" if line.faint else "1.8"
    opacity = "0.45" if line.faint else "1"
    result = (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{style}" '
        f'stroke-linejoin="round" opacity="{opacity}"/>'
    )
    if line.dots or len(points) == 1:
        for x, y in line.points:
            result += (
                f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="3.2" fill="{colour}">'
                f"<title>{escape(line.name)}, step {x:g}: {y:.4f}</title></circle>"
            )
    return result


def _usable(points: Sequence[tuple[float, float]], positive: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None and isfinite(y) and (y > 0 or not positive)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, each the mean of its neighbours."""
    if len(points) <= MOST_POINTS:
        return list(points)
    parts = np.array_split(np.asarray(points, np.float64), MOST_POINTS)
    return [(float(x), float(y)) for x, y in (part.mean(axis=0) for part in parts)]


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that enclose low and high."""
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    unit = 10.0 ** floor(log10(raw))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw)
    first, last = floor(low / step), -floor(-high / step)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose low and high."""
    first, last = floor(log10(low)), -floor(-log10(high))
    return [10.0**n for n in range(first, max(last, first + 1) + 1)]


def heat_map(values: np.ndarray) -> str:
    """A picture of a matrix (rows, columns) of values from 0 to 1, as a data URI."""
    stops = np.asarray(COLOUR_STOPS, np.float64)
    places = np.linspace(0, 1, len(stops))
    scaled = np.clip(values, 0, 1)
    rgb = np.stack([np.interp(scaled, places, stops[:, c]) for c in range(3)], axis=-1)
    return "data:image/png;base64," + base64.b64encode(png(rgb.astype(np.uint8))).decode("ascii")


def png(rgb: np.ndarray) -> bytes:
    """A PNG file of a picture (rows, columns, 3) uint8. Format: W3C, "PNG Specification", 2003."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows, columns, _ = rgb.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)  # 8 bits, RGB
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(rgb))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
