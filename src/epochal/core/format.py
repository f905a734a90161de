"""Numbers as text: four significant digits, fractions in percent, costs in short form. Units come from `core.metrics`."""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING

from epochal.core.metrics import find

if TYPE_CHECKING:
    from rich.text import Text


def number_text(name: str, value: float | None) -> str:
    """The value of a metric or cost: `85.42 %` for an accuracy of 0.8542, `1.234` for a loss, `12 min` for seconds.

    Args:
        name: As in `epochal.core.metrics`, with or without its split.
        value: None where a run has no finite one.
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    form = find(name).form
    if form == "percent":
        return f"{100 * value:.2f} %"
    if form == "short":
        return short(value)
    if form == "duration":
        return duration_text(value)
    return f"{value:,.0f}" if form == "whole" else _digits(value, _places(value))


def spread_text(name: str, mean: float, std: float | None = None) -> str:
    """`85.42 ± 1.96 %`, a mean and its standard deviation; without one the mean alone."""
    if std is None:
        return number_text(name, mean)
    metric = find(name)
    if metric.percent:
        return f"{100 * mean:.2f} ± {100 * std:.2f} %"
    if metric.form != "number":
        return f"{number_text(name, mean)} ± {number_text(name, std)}"
    places = _places(mean)
    return f"{_digits(mean, places)} ± {_digits(std, places)}"


def difference_text(name: str, value: float, *, sign: bool = True) -> str:
    """`+18.60 points` for a difference of 0.186 between two errors."""
    if find(name).percent:
        return f"{100 * value:{'+' if sign else ''}.2f} points"
    return ("+" if sign and value >= 0 else "") + _digits(value, _places(value))


def tick_text(name: str, value: float) -> str:
    """A value at the end of an axis, which has little room: `8`, `12 k`, `96.05 %`."""
    if find(name).form in ("percent", "duration"):
        return number_text(name, value)
    return short(value) if abs(value) >= 10_000 else f"{value:g}"


def short(number: float) -> str:
    """61706 as 61.7 k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + f" {letter}"
    return f"{number:.3g}"


def duration_text(seconds: float) -> str:
    """4.2 s, 40 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count_text(number: int, noun: str) -> str:
    """`1 run`, `1,200 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _places(value: float) -> int:
    """Decimals for four significant digits of a value; -1 where it needs scientific notation."""
    if value == 0:
        return 3
    size = math.floor(math.log10(abs(value)))
    return max(0, 3 - size) if -4 <= size < 7 else -1


def _digits(value: float, places: int) -> str:
    return f"{value:,.{places}f}" if places >= 0 else f"{value:.3g}"


def verbatim(*parts: object) -> Text:
    """What rich prints as it stands: nothing in a name, label or path is markup, such as `[red]`, `[/INST]` or `:cat:`.

    Args:
        parts: Joined; one in a style of its own is a pair (text, style).
    """
    from rich.text import Text

    return Text.assemble(*(part if isinstance(part, tuple) else str(part) for part in parts))


def cell_width(text: str) -> int:
    """How many columns of a terminal the text takes: a letter of Hangul, Han or kana takes two, a combining mark none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly so many columns of a terminal: padded with spaces, or cut and ended with an ellipsis."""
    if cell_width(text) > width:
        from rich.cells import set_cell_size

        text = set_cell_size(text, width - 1).rstrip(" ") + "…"
    padding = " " * (width - cell_width(text))
    return padding + text if right else text + padding


def print_anything() -> None:
    """Makes standard output and error replace characters that their encoding lacks by question marks, without an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    """Prints to standard error at once."""
    print(text, file=sys.stderr, flush=True)
