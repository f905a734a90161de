"""Numbers as text: four significant digits, fractions in percent, costs in short form. Units come from `core.metrics`."""

from __future__ import annotations

import io
import math
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from epochal.core.metrics import find
from epochal.core.multirun import in_grid

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


def ratio_text(value: float) -> str:
    """`×1.083` for a ratio of two values."""
    return f"×{_digits(value, _places(value))}"


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


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and ends of lines


def printable(value: Any) -> Any:
    """The value, and all within it, without control characters: a stranger's run must not command the terminal."""
    if isinstance(value, str):
        return CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {printable(key): printable(inner) for key, inner in value.items()}
    return [printable(inner) for inner in value] if isinstance(value, list) else value


def verbatim(*parts: object) -> Text:
    """What rich prints as it stands: nothing in a name, label or path is markup, such as `[red]`, `[/INST]` or `:cat:`.

    Control characters, which would command the terminal, are replaced.

    Args:
        parts: Joined; one in a style of its own is a pair (text, style).
    """
    from rich.text import Text

    return Text.assemble(*((printable(p[0]), p[1]) if isinstance(p, tuple) else printable(str(p)) for p in parts))


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


class Output(io.FileIO):
    """Standard output or error. Where it ends, as a pipe to `head` or a full disk does, the command goes on without it."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if self.fileno() == 1 and not in_grid():  # each run of a grid would say it
                pipe = isinstance(error, BrokenPipeError)
                why = "Nobody reads the output any more" if pipe else f"The output cannot be written ({error.strerror})"
                say(f"{why}; the command goes on without it.")
            return len(content)


def print_anything() -> None:
    """Prepares standard output and error for anything: characters that their encoding lacks, and readers that end.

    The former become question marks.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="replace")
        if stream is not getattr(sys, f"__{name}__") or os.name == "nt":  # somebody collects the output; no such pipes
            continue
        stream.flush()
        buffer = io.BufferedWriter(Output(stream.fileno(), "w", closefd=False))
        now = stream.line_buffering, stream.write_through
        again = io.TextIOWrapper(
            buffer, encoding=stream.encoding, errors="replace", line_buffering=now[0], write_through=now[1]
        )
        setattr(sys, name, again)


def say(text: str) -> None:
    """Prints to standard error at once, without control characters."""
    print(printable(text), file=sys.stderr, flush=True)
