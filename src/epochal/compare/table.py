"""The table of runs, best first: as data, in the terminal with a plot and the verdict, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from epochal.compare.comparison import Comparison
from epochal.compare.fits import fits
from epochal.compare.groups import Group, Spread, grouped, kinds, trial
from epochal.compare.labels import column_heads, key_text, label, run_label, value_text
from epochal.compare.records import Record, Value
from epochal.compare.text_plot import text_plot
from epochal.core.files import relative
from epochal.core.format import cell_width, count_text, number_text, printable, spread_text, verbatim
from epochal.core.metrics import MEASURED_COSTS, SPLITS, find
from epochal.plots.braille import cut

COST_COLUMNS = ("parameters", "flops", "examples_per_second", "seconds")
RANKINGS = {
    "max": "best first by {} (larger is better)",
    "min": "best first by {} (smaller is better)",
    None: "smallest first by {}",
}
MAX_ROWS = 30
MAX_NOTES = 5  # of each kind
MAX_FAILURES = 10  # lines
COLOURS = {"supported": "green", "not supported": "red", "inconclusive": "yellow"}
SIGNS = {"supported": "✓", "not supported": "✗", "inconclusive": "?"}


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Attributes:
        label: The values that distinguish them from the others.
        values: The same by key.
        records: The runs.
        n: How many of them the spreads are over: the finished ones, or all with a value while none has finished.
        finished: How many have finished.
        failed: Whether all of them failed, which leaves nothing to rank.
        spreads: Mean and standard deviation of `columns` and costs; values that no run has are left out.
    """

    label: str
    values: dict[str, Value]
    records: tuple[Record, ...]
    n: int
    finished: int
    spreads: dict[str, Spread]

    @property
    def failed(self) -> bool:
        return all(record.status == "failed" for record in self.records)


class Column(NamedTuple):
    """A column of the table: its head and a cell for each row."""

    head: str
    cells: list[str]
    right: bool = True


def columns(comparison: Comparison) -> list[str]:
    """The metrics that have a column: the one that ranks the runs, those plotted, and the same on the other splits."""
    metric = comparison.y.rpartition("/")[2]
    names = [comparison.y, *(plot.y for plot in comparison.plots if plot.kind != "profile")]
    names += [f"{split}/{metric}" for split in reversed(SPLITS)]
    logged = {name for record in comparison.records for name in record.metrics}
    return [
        name for name in dict.fromkeys(names) if name in logged or (name == comparison.y and name not in COST_COLUMNS)
    ]


def rows(comparison: Comparison) -> list[Row]:
    """Best first, of each task and data set by itself; then rows without a finished run, without a value, and failed."""
    names = [*columns(comparison), *COST_COLUMNS]
    sign = -1 if find(comparison.y).larger_is_better else 1

    def row(group: Group) -> Row:
        spreads = {name: spread for name in names if (spread := group.spread(name)) is not None}
        if not group.finished:
            spreads = {name: spread for name, spread in spreads.items() if name not in MEASURED_COSTS}
        n = spreads[comparison.y].n if comparison.y in spreads else len(group.finished)
        return Row(label(group.values), group.values, group.records, n, len(group.finished), spreads)

    def order(row: Row) -> tuple[bool, bool, bool, float]:
        spread = row.spreads.get(comparison.y)
        return (
            row.failed,
            spread is None,
            row.finished == 0,
            sign * spread.mean if spread is not None else 0.0,
        )

    by_kind = [[row(group) for group in grouped(kind.records, comparison.keys)] for kind in kinds(comparison.records)]
    return [row for listed in by_kind for row in sorted(listed, key=order)]


def csv_text(comparison: Comparison) -> str:
    """The rows as CSV: the keys, the number of runs, and the mean and standard deviation of each value."""
    names = columns(comparison)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = [head for name in names for head in (name, f"{name} std")]
    writer.writerow([*comparison.keys, "runs", "finished", "n", *heads, *COST_COLUMNS])
    for row in rows(comparison):
        spreads = [row.spreads.get(name) for name in names]
        values = [value for spread in spreads for value in ((spread.mean, spread.std) if spread else (None, None))]
        costs = [row.spreads[name].mean if name in row.spreads else None for name in COST_COLUMNS]
        writer.writerow([*row.values.values(), len(row.records), row.finished, row.n, *values, *costs])
    return text.getvalue()


def show(comparison: Comparison, console: Console) -> None:
    """Prints the table, the main plot and the verdict; of each part, where there are parts."""
    for number, part in enumerate(comparison.parts):
        if number:
            console.print()
        show(replace(part, skipped=comparison.skipped if part is comparison.parts[-1] else []), console)
    if comparison.parts:
        return
    ranking = RANKINGS[find(comparison.y).direction].format(comparison.y)
    count = count_text(len(comparison.records), "run")
    console.print(Text(comparison.title, "bold"))
    console.print(Text(f"{count}, {ranking}; mean ± std of n runs", "dim"))
    console.print()
    _show_tables(comparison, console)
    for line in notes(comparison):
        console.print(line)
    drawn = text_plot(comparison, comparison.plots[0], min(console.width, 100)) if comparison.plots else None
    if drawn is not None:
        console.print()
        console.print(drawn, no_wrap=True, end="")
    laws = [fit.sentence for plot in comparison.plots for fit in fits(plot, comparison.drawn)]
    if laws:
        console.print()
        console.print(verbatim("\n".join(laws)))
    if comparison.verdict is not None:
        console.print()
        console.print(verdict_panel(comparison))


def _show_tables(comparison: Comparison, console: Console) -> None:
    """The table of each task and data set, and of trials, without the rows that failed."""
    ranked = [row for row in rows(comparison) if not row.failed]
    found = kinds(comparison.records)
    for number, kind in enumerate(found):
        members = set(kind.records)
        listed = [row for row in ranked if row.records[0] in members]
        if len(found) > 1 and listed:
            console.print(verbatim(("\n" if number else "") + kind.label), style="bold")
        if listed:
            console.print(table(comparison, listed[:MAX_ROWS], console.width))
        if len(listed) > MAX_ROWS:
            console.print(f"[dim]and {len(listed) - MAX_ROWS} rows more[/]")


def table(comparison: Comparison, listed: Sequence[Row], width: int) -> Table:
    """As many columns as fit into `width` characters; y and the keys in which these rows differ stay the longest."""
    chosen = _fitting(comparison, listed, width)
    result = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in chosen:
        result.add_column(verbatim(column.head), justify="right" if column.right else "left", no_wrap=True)
    for number, cells in enumerate(zip(*(column.cells for column in chosen))):
        row = listed[number]
        best = number == 0 and row.finished and not trial(row.records[0])
        result.add_row(*map(verbatim, cells), style="bold green" if best else "" if row.finished else "dim")
    return result


def _fitting(comparison: Comparison, listed: Sequence[Row], width: int) -> list[Column]:
    """The columns of these rows that fit."""
    keys, metrics = _key_columns(comparison, listed), _metric_columns(comparison, listed)
    counts = Column("n", [_count(row) for row in listed])
    costs = [_cost(name, listed) for name in COST_COLUMNS if name != comparison.y]
    costs = [column for column in costs if any(column.cells)]
    needed = [*metrics[:1], counts]
    if not keys or _width([*keys, *needed]) > width:
        differing = _differing(comparison, listed) or comparison.keys
        names = [label({key: row.values[key] for key in differing}) for row in listed]
        keys = [Column("run", cut(names, max(12, width - _width(needed) - 2)), right=False)]
    optional = [*metrics[1:], *costs]
    spare = [*metrics[1:2], *costs, *metrics[2:]]  # the last of these goes first
    while spare and _width([*keys, *needed, *optional]) > width:
        optional.remove(spare.pop())
    return [*keys, *metrics[:1], counts, *optional]


def _differing(comparison: Comparison, listed: Sequence[Row]) -> list[str]:
    """The keys in which these rows differ."""
    return [key for key in comparison.keys if len({row.values[key] for row in listed}) > 1]


def _key_columns(comparison: Comparison, listed: Sequence[Row]) -> list[Column]:
    keys = _differing(comparison, listed)
    heads = column_heads(keys)
    cells = {key: [value_text(row.values[key]) or "–" for row in listed] for key in keys}
    return [Column(heads[key], cells[key], _numeric(key, listed)) for key in keys]


def _metric_columns(comparison: Comparison, listed: Sequence[Row]) -> list[Column]:
    """Those that any of these rows has, else all; y first where it is a cost."""
    names = columns(comparison)
    metrics = [Column(key_text(name), [spread_cell(name, row.spreads.get(name)) for row in listed]) for name in names]
    metrics = [column for column in metrics if any(column.cells)] or metrics
    return [_cost(comparison.y, listed), *metrics] if comparison.y in COST_COLUMNS else metrics


def notes(comparison: Comparison) -> list[Text]:
    """Runs that go on or were stopped or pruned, those that failed, in a list of their own, and folders that hold no run."""
    lines: list[Text] = []
    for status, sign, colour in (
        ("running", "▶", "cyan"),
        ("silent", "…", "yellow"),
        ("stopped", "■", "yellow"),
        ("pruned", "✂", "yellow"),
    ):
        found = [record for record in comparison.records if record.shown_status == status]
        lines += [
            Text.assemble((f"{sign} {status} ", colour), _note(record, comparison.keys)) for record in found[:MAX_NOTES]
        ]
        if len(found) > MAX_NOTES:
            lines.append(Text(f"{sign} {status}: {len(found) - MAX_NOTES} more", colour))
    failures = _failures(comparison)
    lines += [Text(), *failures] if lines and failures else failures
    for entry in comparison.skipped[:MAX_NOTES]:
        lines.append(Text(f"  skipped {printable(relative(entry.path))}: {entry.reason}", "dim"))
    if len(comparison.skipped) > MAX_NOTES:
        lines.append(Text(f"  skipped {len(comparison.skipped) - MAX_NOTES} more", "dim"))
    return [Text(), *lines] if lines else []


def _failures(comparison: Comparison) -> list[Text]:
    """The runs that failed, which are not ranked: those that differ in their seed alone in one line, with what they said."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in comparison.records:
        if record.status == "failed":
            values = {key: record.value(key) for key in comparison.keys}
            found.setdefault(
                (label(values) if any(v is not None for v in values.values()) else "", error_text(record)), []
            ).append(record)
    if not found:
        return []
    count = count_text(sum(map(len, found.values())), "run")
    lines = [Text(f"Failed, not ranked: {count}", "bold red")]
    for (name, error), records in list(found.items())[:MAX_FAILURES]:
        seeds = [value_text(record.seed) for record in records if record.seed is not None]
        which = [name] if name else []
        which += [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"] if seeds else []
        lines.append(Text.assemble(("✗ ", "red"), f"{', '.join(which) or records[0].name}: {error}"))
    if len(found) > MAX_FAILURES:
        lines.append(Text(f"✗ {len(found) - MAX_FAILURES} more", "red"))
    return lines


def error_text(record: Record) -> str:
    """Why a run failed, in one line."""
    return " ".join((record.error or "it did not say why").split())


def verdict_panel(comparison: Comparison) -> Panel:
    """The verdict, and the numbers of each test."""
    verdict = comparison.verdict
    assert verdict is not None
    lines: list[RenderableType] = [Text(verdict.sentence), Text()]
    for test in verdict.tests:
        sign = (f"{SIGNS[test.verdict]} ", COLOURS[test.verdict])
        lines.append(Text.assemble(sign, (test.says, "bold"), (f": {test.verdict}", COLOURS[test.verdict])))
        lines.append(Padding(Text(test.sentence, "dim"), (0, 0, 0, 2)))
    lines += [Text(), Text(comparison.footnote, "dim")]
    if comparison.source:
        lines.append(Text(comparison.source, "dim"))
    colour = COLOURS[verdict.verdict]
    return Panel(Lines(*lines), title=f"[bold {colour}]{verdict.verdict}[/]", title_align="left", border_style=colour)


def _note(record: Record, keys: Sequence[str]) -> str:
    """`resnet, depth 44, seed 3: 62 %`."""
    silent = ", and nothing written for ten minutes" if record.shown_status == "silent" else ""
    return f"{run_label(record, keys)}: {100 * record.progress:.0f} % done{silent}"


def _count(row: Row) -> str:
    """`3`, or `2 of 3` where not all have finished."""
    return str(row.n) if row.finished == len(row.records) else f"{row.finished} of {len(row.records)}"


def _cost(name: str, listed: Sequence[Row]) -> Column:
    cells = [number_text(name, row.spreads[name].mean) if name in row.spreads else "" for row in listed]
    return Column(key_text(name), cells)


def _numeric(key: str, listed: Sequence[Row]) -> bool:
    return not any(isinstance(row.values[key], str) for row in listed)


def _width(columns: Sequence[Column]) -> int:
    return sum(max(map(cell_width, [column.head, *column.cells])) + 2 for column in columns)


def spread_cell(name: str, spread: Spread | None) -> str:
    """Mean and standard deviation; empty if no run has the value."""
    return "" if spread is None else spread_text(name, spread.mean, spread.std)
