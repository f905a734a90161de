"""A comparison as HTML for a notebook: table, verdict, and figures as SVG. Nothing in it runs or is fetched."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from epochal.compare.figures import figure
from epochal.compare.labels import key_text, value_text
from epochal.compare.table import Row, columns, rows, spread_cell
from epochal.plots.vega import svg

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison

MAX_ROWS = 30
MAX_FIGURES = 6


def html_text(comparison: Comparison) -> str:
    """The whole comparison, as a `div`."""
    parts = [f"<h3>{escape(comparison.title)}</h3>", _table(comparison), _verdict(comparison)]
    parts += [
        f"<h4>{escape(plot.heading(comparison.drawn))}</h4>{svg(figure(comparison, plot))}"
        for plot in comparison.plots[:MAX_FIGURES]
    ]
    return f"<div>{''.join(parts)}</div>"


def _table(comparison: Comparison) -> str:
    names, listed = columns(comparison), rows(comparison)

    def cells(row: Row) -> list[str]:
        metrics = [spread_cell(name, row.spreads.get(name)) for name in names]
        return [*(value_text(row.values[key]) for key in comparison.keys), *metrics, str(row.n)]

    head = _row([key_text(name) for name in (*comparison.keys, *names)] + ["n"], "th")
    body = "".join(_row(cells(row), "td") for row in listed[:MAX_ROWS])
    left_out = len(listed) - MAX_ROWS
    more = f"<p>and {left_out} more rows</p>" if left_out > 0 else ""
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{more}"


def _row(cells: list[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _verdict(comparison: Comparison) -> str:
    if comparison.verdict is None:
        return ""
    tests = "".join(
        f"<li>{escape(test.says)}: <b>{test.verdict}</b>. {escape(test.sentence)}</li>"
        for test in comparison.verdict.tests
    )
    return f"<p><b>{comparison.verdict.verdict}</b>: {escape(comparison.verdict.sentence)}</p><ul>{tests}</ul>"
