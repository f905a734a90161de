"""Vega-Lite: the style of every figure, and writing one as PNG and SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epochal.core.files import write_atomically

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#808080")  # Okabe-Ito; grey for black
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (12, 3))
# pixels without axes: with them a column of a paper, 9 cm, at 10 pixels a millimetre and SCALE 2
WIDTH, HEIGHT = 340, 220
SCALE = 3
SERIES = 24  # groups in one plot
CONFIG: dict[str, Any] = {
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
        "symbolLimit": SERIES,
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


def save(spec: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Writes `<stem>.png`, three pixels to each of the specification's, and `<stem>.svg`; each whole or not at all."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(spec, ensure_ascii=False).encode(errors="replace").decode()  # folders' names need not be Unicode
    images = {
        "png": vl_convert.vegalite_to_png(text, scale=SCALE),
        "svg": vl_convert.vegalite_to_svg(text).encode(),
    }
    for suffix, content in images.items():
        write_atomically(folder / f"{stem}.{suffix}", content)
    return [folder / f"{stem}.{suffix}" for suffix in images]
