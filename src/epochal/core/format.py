"""Numbers as a person reads them: as many digits as mean something, shares in percent, costs short."""

from __future__ import annotations

import io
import math
import sys

from epochal.core.metrics import is_share


def number_text(name: str, value: float) -> str:
    """`85.42 %` for an accuracy of 0.8542, `1.234` for a loss."""
    return f"{value:.2%}".replace("%", " %") if is_share(name) else _digits(value, _places(value))


def spread_text(name: str, mean: float, std: float | None = None) -> str:
    """`85.42 ± 1.96 %`, a mean and its standard deviation; without one the mean alone."""
    if std is None:
        return number_text(name, mean)
    if is_share(name):
        return f"{100 * mean:.2f} ± {100 * std:.2f} %"
    places = _places(mean)
    return f"{_digits(mean, places)} ± {_digits(std, places)}"


def difference_text(name: str, value: float, *, sign: bool = True) -> str:
    """`+18.6 points` for a difference of 0.186 in error."""
    plus = "+" if sign else ""
    return (
        f"{100 * value:{plus}.2f} points"
        if is_share(name)
        else ("+" if sign and value >= 0 else "") + _digits(value, _places(value))
    )


def short(number: float) -> str:
    """61706 as 61.7 k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:#.3g}".rstrip(".") + f" {letter}"
    return f"{number:.3g}"


def duration_text(seconds: float) -> str:
    """As a person says it: 4.2 s, 40 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def count_text(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _places(value: float) -> int:
    """Decimals that show four digits of a value; -1 where only powers of ten can."""
    if value == 0:
        return 3
    size = math.floor(math.log10(abs(value)))
    return max(0, 3 - size) if -4 <= size < 7 else -1


def _digits(value: float, places: int) -> str:
    return f"{value:,.{places}f}" if places >= 0 else f"{value:.3g}"


PERCENT = ("accuracy", "exact", "whole", "solved")  # ends of names of metrics that are shares


def metric_text(name: str, value: float | None) -> str:
    if value is None:
        return "not finite"
    if name.endswith(PERCENT):
        return f"{value:.2%}"
    return f"{value:.4f}" if value == 0 or abs(value) > 1e-3 else f"{value:.1e}"


def print_anything() -> None:
    """A terminal or file whose encoding lacks a sign gets a question mark for it, and no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
