"""Line charts as inline SVG and matrices as coloured tables, for the page of a run."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["chart", "heat_table", "log_scale_helps", "ticks"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 250, 52, 10, 44, 30
Points = Sequence[tuple[float, float]]


def log_scale_helps(values: Sequence[float]) -> bool:
    """Whether values span so much (a factor of 30) that small ones would lie on the axis."""
    return len(values) > 1 and min(values) > 0 and max(values) / min(values) >= 30


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(float(k * step), 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(title: str, lines: Mapping[str, Points], mark: float | None = None) -> str:
    """Lines over epochs; `mark` is the best epoch. Points show their values when pointed at."""
    ys = [y for points in lines.values() for _, y in points]
    xs = [x for points in lines.values() for x, _ in points]
    log = log_scale_helps(ys)
    shown = [math.log10(y) for y in ys] if log else ys
    low, high = min(shown), max(shown)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad
    left, right = min(xs), max(xs)

    def px(x: float) -> float:
        share = (x - left) / (right - left) if right > left else 0.5
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def py(y: float) -> float:
        share = ((math.log10(y) if log else y) - low) / (high - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    if log:
        marks = [10.0**k * f for k in range(math.floor(low), math.ceil(high) + 1) for f in (1, 2, 5)]
        marks = [m for m in marks if low <= math.log10(m) <= high]
        marks = marks if len(marks) <= 6 else [m for m in marks if f"{m:e}".startswith("1.0")]
    else:
        marks = ticks(low, high)
    out = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    heading = html.escape(title) + (" (log scale)" if log else "")
    out.append(f'<text x="4" y="14" style="font-weight:700;fill:var(--fg);font-size:13px">{heading}</text>')
    for m in marks:
        out.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py(m)}" y2="{py(m)}" stroke="var(--line)"/>')
        out.append(f'<text x="{_LEFT - 5}" y="{py(m) + 4}" text-anchor="end">{m:.4g}</text>')
    for x in [t for t in ticks(left, right) if float(t).is_integer()]:
        out.append(f'<text x="{px(x)}" y="{_HEIGHT - 10}" text-anchor="middle">{x:.0f}</text>')
    if mark is not None and left <= mark <= right:
        line = f'<line x1="{px(mark)}" x2="{px(mark)}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"'
        out.append(f'{line} stroke="var(--dim)" stroke-dasharray="4 3"><title>best epoch {mark:g}</title></line>')
    place = _LEFT
    for number, (name, points) in enumerate(lines.items()):
        colour = f"var(--c{number % 6})"
        path = " ".join(f"{px(x)},{py(y)}" for x, y in points)
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        if len(points) <= 100:
            for x, y in points:
                radius = 4.5 if x == mark else 2.5
                tip = f"<title>{html.escape(name)}, epoch {x:g}: {y:.6g}</title>"
                out.append(f'<circle cx="{px(x)}" cy="{py(y)}" r="{radius}" fill="{colour}">{tip}</circle>')
        label = name if len(lines) > 1 else ""
        if label:
            out.append(f'<rect x="{place}" y="24" width="10" height="10" rx="2" fill="{colour}"/>')
            out.append(f'<text x="{place + 14}" y="33">{html.escape(label)}</text>')
            place += 26 + 7 * len(label)
    return "".join(out) + "</svg>"


def heat_table(matrix: Sequence[Sequence[Any]], classes: Sequence[str] | None = None) -> str:
    """A confusion matrix: rows are targets, columns predictions, the colour is the share of the row."""
    names = [html.escape(str(c)) for c in classes or range(len(matrix))]
    if len(names) != len(matrix):
        raise ValueError(f"there are {len(matrix)} classes in the matrix but {len(names)} names")
    rows: list[str] = []
    for name, row in zip(names, matrix, strict=True):
        total = sum(row)
        cells = []
        for other, value in zip(names, row, strict=True):
            share = value / total if total else 0.0
            colour = f' style="background:rgba(var(--heat),{0.75 * share:.2f})"' if share else ""
            text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
            cells.append(f'<td{colour} title="{name} taken for {other}: {share:.1%}">{text}</td>')
        rows.append(f"<tr><td>{name}</td>{''.join(cells)}<td>{row[len(rows)] / total if total else 0:.1%}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    caption = '<p class="dim">Rows: what it is. Columns: what was predicted. Last column: share that is right.</p>'
    return f'{caption}<table class="heat"><tr><th></th>{head}<th>right</th></tr>{"".join(rows)}</table>'
