"""Numbers as a person reads them: as many digits as mean something, shares in percent, costs short."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochal.compare.groups import Spread


def is_share(name: str) -> bool:
    """Accuracies and errors, which are shown in percent."""
    return name.rpartition("/")[2].endswith(("accuracy", "error"))


def number_text(name: str, value: float) -> str:
    """`85.42 %` for an accuracy of 0.8542, `1.234` for a loss."""
    return f"{value:.2%}".replace("%", " %") if is_share(name) else _digits(value, _places(value))


def spread_text(name: str, spread: Spread | None) -> str:
    """`85.42 ± 1.96 %`; of a single run without the spread."""
    if spread is None:
        return ""
    if spread.std is None:
        return number_text(name, spread.mean)
    if is_share(name):
        return f"{100 * spread.mean:.2f} ± {100 * spread.std:.2f} %"
    places = _places(spread.mean)
    return f"{_digits(spread.mean, places)} ± {_digits(spread.std, places)}"


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
