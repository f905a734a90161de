"""Learning curves and profiles of a run as JSON data, thinned so that the page of many runs stays small."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from epochal.compare.records import Record
from epochal.core.files import AXES

MAX_NUMBERS = 400_000  # of all curves in a page, about seven bytes each
MAX_POINTS = 400  # of a curve
MIN_POINTS = 20
DIGITS = 5


def curves(record: Record, points: int) -> list[dict[str, list[float | None]]]:
    """The columns of metrics.csv: for metrics that were logged together their axes, and the values of each.

    Args:
        record: The run.
        points: Of each curve, at most, within MIN_POINTS and MAX_POINTS; the first and the last are among them.
    """
    most = min(max(points, MIN_POINTS), MAX_POINTS)
    columns = record.columns
    rows: dict[bytes, tuple[np.ndarray, list[str]]] = {}
    for name, column in columns.items():
        if name in AXES:
            continue
        kept = np.flatnonzero(np.isfinite(column))
        if len(kept):
            rows.setdefault(kept.tobytes(), (kept, []))[1].append(name)
    found = []
    for kept, names in rows.values():
        at = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), most)).round().astype(int))]
        axes = [name for name in AXES if name in columns]
        found.append({name: numbers(columns[name][at], 7 if name in AXES else DIGITS) for name in (*axes, *names)})
    return found


def profiles(record: Record, names: Collection[str]) -> dict[str, list[Any]]:
    """Labels and values of x and y, by name."""
    found = {name: profile for name in sorted(names) if (profile := record.profile(name)) is not None}
    return {name: [p.x_label, p.y_label, numbers(p.x, 7), numbers(p.y, DIGITS)] for name, p in found.items()}


def numbers(values: np.ndarray, digits: int) -> list[float | None]:
    """As JSON has them, in so many digits; None for what is not finite."""
    texts = [f"{value:.{digits}g}" for value in values.tolist()]
    return [_plain(float(text)) if np.isfinite(value) else None for value, text in zip(values.tolist(), texts)]


def _plain(value: float) -> float | int:
    """Whole numbers without a point."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
