"""Vega-Lite: the style of every figure, its axes and series, and writing a figure as PNG and SVG."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.core.files import write_atomically
from epochal.core.format import cell_width

Row = dict[str, Any]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#808080")  # Okabe-Ito; grey for black
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (12, 3))
# pixels, without axes: with them the column of a paper, 9 cm, at 10 pixels per millimetre
WIDTH, HEIGHT = 340, 220
SCALE = 3  # pixels of the PNG for each of these
LINE_LENGTH = 62  # characters in a line of a legend
MAX_SERIES = 24  # in one plot
DECADES = 1.5  # values that span more get a logarithmic axis
MAX_DECADES = 12  # of a logarithmic axis: smaller values, such as vanished gradients, are below its lower end
HALF_UP = 1 + 1e-12  # Python rounds 12345 to 12340, Vega to 12350
DIGIT = "substring('⁰¹²³⁴⁵⁶⁷⁸⁹', {0}, {0} + 1)"
EXPONENT = "round(log(datum.value) / LN10)"
POWER = (  # the Vega expression of a tick of a logarithmic axis: 10⁻⁸
    f"'10' + ({EXPONENT} < 0 ? '⁻' : '') + (abs({EXPONENT}) > 9 ? '¹' : '') + " + DIGIT.format(f"abs({EXPONENT}) % 10")
)
CONFIG: dict[str, Any] = {
    # d3's own locale writes 96% where tables have 96 %
    "locale": {
        "number": {"decimal": ".", "thousands": ",", "grouping": [3], "currency": ["$", ""], "percent": "\u00a0%"}
    },
    "font": "Helvetica, Arial, sans-serif",
    "background": "white",
    "view": {"stroke": None},
    "rule": {"color": "#444444"},
    "axis": {
        "labelFontSize": 10,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": "#e4e4e4",
        "domainColor": "#888888",
        "tickColor": "#888888",
        "labelColor": "#333333",
        "titleColor": "#222222",
        "labelOverlap": "greedy",
        "titlePadding": 6,
    },
    "legend": {
        "orient": "bottom",
        "title": None,
        "labelFontSize": 10,
        "labelColor": "#222222",
        "symbolSize": 70,
        "symbolStrokeWidth": 1.6,
        "rowPadding": 3,
        "columnPadding": 14,
        "symbolLimit": MAX_SERIES,
    },
    "title": {
        "orient": "bottom",
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 8.5,
        "fontWeight": "normal",
        "color": "#666666",
        "lineHeight": 11,
        "offset": 10,
    },
}


@dataclass(frozen=True)
class Series:
    """An entry of the legend and how it is drawn: colour, and for readers without colour also shape and dash.

    Attributes:
        name: In the legend.
        colour: As CSS has it.
        shape: Of its points.
        dash: Of its lines: lengths of strokes and gaps in pixels.
        opacity: Of its bars.
        hollow: Whether its points are outlines.
    """

    name: str
    colour: str
    shape: str
    dash: Sequence[int]
    opacity: float = 0.85
    hollow: bool = False


def specification(
    layers: Sequence[Row], caption: str, *, datasets: Mapping[str, Sequence[Row]] | None = None, height: int = HEIGHT
) -> Row:
    """A whole Vega-Lite specification in the common style.

    Args:
        layers: Each with its mark, data and encoding.
        caption: Stands below the figure, and is its description for screen readers.
        datasets: Rows by the name under which the layers use them.
        height: Pixels, without axes.
    """
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": caption,
        "title": {"text": textwrap.wrap(caption, LINE_LENGTH + 36) or ""},
        "width": WIDTH,
        "height": height,
        **({} if datasets is None else {"datasets": datasets}),
        "layer": layers or [{"mark": "point", "data": {"values": []}, "encoding": {}}],
        "config": CONFIG,
    }


def number_axis(
    title: str,
    values: Sequence[float],
    *,
    percent: bool = False,
    horizontal: bool = False,
    log: bool = False,
    ticks_at_values: bool = False,
) -> Row:
    """Type, scale and axis of a numeric encoding.

    Args:
        title: Of the axis.
        values: All that are drawn.
        percent: Whether the values are fractions, shown in percent.
        horizontal: Whether it is the x axis, which has no grid and ends at its first and last value.
        log: Whether the scale is logarithmic.
        ticks_at_values: Whether up to eight different values are the ticks, as fits the values of a config key.
    """
    axis: Row = {"title": title, "grid": not horizontal, "tickCount": 5}
    scale: Row = {"nice": not horizontal, "padding": 12 if ticks_at_values else 4 if horizontal else 0}
    if percent:
        axis["format"] = "~%"
    elif max(map(abs, values), default=0) >= 10_000:
        axis["format"] = "~s"
    if log:
        log_scale, log_axis = _logarithmic(values, round_ends=not horizontal)
        scale, axis = scale | log_scale, axis | log_axis
    else:
        scale["zero"] = False
    if ticks_at_values and len(different := sorted(set(values))) <= 8:
        axis |= {"values": different, "format": _tick_format(different, axis.get("format", "~g"))}
        axis.pop("labelExpr", None)  # which writes powers of ten
        if axis["format"].endswith("s"):  # by itself, Vega would write 1 million and 1 thousand as 1M and 0.001M
            axis["labelExpr"] = f"format(datum.value, '{axis['format']}')"
    if "values" in axis:
        axis["tickCount"] = len(axis["values"])  # with fewer, Vega would leave every other out
    return {"type": "quantitative", "scale": scale, "axis": axis}


def _tick_format(values: Sequence[float], form: str) -> str:
    """The format with as many digits as tell the values apart, at least three: without a number, Vega writes 44 as 4e+1."""
    digits = next((n for n in range(3, 12) if len({f"{value * HALF_UP:.{n}g}" for value in values}) == len(values)), 12)
    if form == "~%":  # whose digits are decimals
        smallest = min((abs(value) for value in values if value), default=1.0)
        digits = max(0, digits - 3 - math.floor(math.log10(smallest)))
    elif form == "~g":  # written out up to 9,999, however few digits tell them apart
        digits = max(digits, len(f"{max(map(abs, values), default=0):.0f}"))
    return f".{digits}{form}"


def spans_decades(values: Iterable[float]) -> bool:
    """Whether the values are positive and span more decades than a linear axis can show."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > min(finite) * 10**DECADES


def series_scales(series: Sequence[Series], *, legend: bool = True) -> dict[str, Row]:
    """The encodings stroke, fill, shape, strokeDash and fillOpacity, with one legend for all of them.

    Args:
        series: In the legend's order.
        legend: Whether there is one; a single series has none.
    """
    names = [s.name for s in series]
    longest = max(map(cell_width, names), default=0)
    columns = max(1, min(len(names), LINE_LENGTH // (longest + 6)))
    shown = {"columns": columns, "labelLimit": WIDTH - 20, "symbolOpacity": 1} if legend and len(names) > 1 else None

    def scale(channel_range: Sequence[Any]) -> Row:
        return {
            "field": "series",
            "type": "nominal",
            "scale": {"domain": names, "range": channel_range},
            "legend": shown,
        }

    dashes = scale([s.dash for s in reversed(series)])
    dashes["scale"]["domain"] = names[::-1]  # in the others' order, Vega-Lite would draw the legend's symbols dashed
    return {
        "stroke": scale([s.colour for s in series]),
        "fill": scale(["transparent" if s.hollow else s.colour for s in series]),
        "shape": scale([s.shape for s in series]),
        "strokeDash": {**dashes, "legend": None},
        # of a single number Vega makes a range from it to nothing
        "fillOpacity": {"value": series[0].opacity} if len(series) == 1 else scale([s.opacity for s in series]),
    }


def svg(spec: Mapping[str, Any]) -> str:
    """The figure as SVG."""
    import vl_convert

    return vl_convert.vegalite_to_svg(_with_fonts(_as_json(spec)))


def save(spec: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Writes `<stem>.png`, with SCALE pixels for each pixel of the specification, and `<stem>.svg`, each atomically."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    drawn = svg(spec)
    images = {"png": vl_convert.svg_to_png(drawn, scale=SCALE), "svg": drawn.encode()}
    for suffix, content in images.items():
        write_atomically(folder / f"{stem}.{suffix}", content)
    return [folder / f"{stem}.{suffix}" for suffix in images]


def _as_json(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, ensure_ascii=False).encode(errors="replace").decode()  # names of folders may not be Unicode


def _with_fonts(text: str) -> str:
    """The text of a specification, for whose characters the renderer knows our fonts; tells what no font here has."""
    if not text.isascii():
        import vl_convert

        from epochal.plots import fonts

        vl_convert.register_font_directory(str(fonts.SHIPPED))
        fonts.check(text)
    return text


def _logarithmic(values: Sequence[float], *, round_ends: bool) -> tuple[Row, Row]:
    """What a logarithmic scale, and its axis, have besides the rest."""
    top = max(values)
    low = max(min(value for value in values if value > 0), top * 10.0**-MAX_DECADES)
    scale: Row = {"type": "log"}
    axis: Row = {}
    if round_ends:
        low, top = _rounded_outward(low, top)
        scale |= {"domain": [low, top], "nice": False}
    powers = [10.0**e for e in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(top) + 1e-9) + 1)]
    if len(powers) > 2:  # else Vega's ticks between them are needed
        axis["values"] = powers[:: math.ceil(len(powers) / 7)]
    if len(powers) > 4:
        axis["labelExpr"] = POWER
    return scale, axis


def _rounded_outward(low: float, top: float) -> tuple[float, float]:
    """Both ends, moved apart to the next 1, 2 or 5 times a power of ten."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(top)) + 2)
    steps = [m * 10.0**exponent for exponent in exponents for m in (1, 2, 5)]
    return max(step for step in steps if step <= low), min(step for step in steps if step >= top)
