"""Power laws in figures, tables, pages and documents."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from epochal.compare.comparison import Plot, claimed_plot
from epochal.compare.figures import figure
from epochal.compare.fits import fits
from epochal.compare.report import docs, page
from epochal.compare.table import show
from helpers.run_folders import compare, run_folder

BY_SIZE = {"x": "parameters", "y": "val/loss", "fit": "power"}
BY_COMPUTE = {"x": "training_flops", "y": "val/loss", "group": "parameters", "fit": "power"}
SIZES = [100 * 2**k for k in range(6)]
EXAMPLES = np.geomspace(10, 1e5, 20).round()


def sized(folder, sizes=SIZES):
    """Runs whose loss is 10 / sqrt(parameters) + 10 / sqrt(examples): the best size grows with the root of the compute."""
    for size in sizes:
        made = run_folder(folder, f"n{size}", config={"model.width": size}, parameters=size, flops=2 * size)
        losses = 10 / math.sqrt(size) + 10 / np.sqrt(EXAMPLES)
        lines = [
            f"{step},{step},{examples},{step},{loss}" for step, (examples, loss) in enumerate(zip(EXAMPLES, losses))
        ]
        (made / "metrics.csv").write_text("\n".join(["step,epoch,examples,seconds,val/loss", *lines, ""]))
        summary = (made / "summary.json").read_text().replace('"val/loss": 0.5', f'"val/loss": {losses[-1]}')
        (made / "summary.json").write_text(summary)
    return folder


@pytest.fixture
def compared(tmp_path):
    comparison = compare(sized(tmp_path / "runs"))
    plots = [claimed_plot(entry, comparison.records) for entry in (BY_SIZE, BY_COMPUTE)]
    return replace(comparison, plots=plots)


def test_training_takes_three_forward_passes(compared):
    (record,) = [record for record in compared.records if record.value("parameters") == 100]
    flops, losses = record.curve("val/loss", "training_flops")
    assert flops == pytest.approx(3 * 200 * EXAMPLES)
    assert len(losses) == len(EXAMPLES)


def test_points_have_the_law_of_their_means(compared):
    (fit,) = fits(compared.plots[0], compared.drawn)
    assert fit.law.exponent == pytest.approx(-0.46, abs=0.005) and fit.law.n == len(SIZES)  # -0.5 with endless examples
    assert fit.ends == (SIZES[0], SIZES[-1])
    assert fit.sentence.startswith("Power law, validation loss by parameters: exponent -0.4")


def test_curves_have_the_law_of_the_sizes_that_are_best_for_their_compute(compared):
    (fit,) = fits(compared.plots[1], compared.drawn)
    assert fit.law.n == len(SIZES) - 2  # the smallest and the largest are not judged
    assert fit.law.exponent == pytest.approx(-0.25, abs=0.02)
    growth = float(fit.sentence.partition("parameters by training FLOPs: exponent ")[2].partition(",")[0])
    assert growth == pytest.approx(0.5, abs=0.03)


def test_too_few_sizes_are_told(tmp_path):
    records = compare(sized(tmp_path / "runs", SIZES[:4])).records
    (fit,) = fits(claimed_plot(BY_COMPUTE, records), records)
    assert fit.law is None
    assert fit.sentence == "No law of the best for their compute: 2 of 4 sizes are the best for some, and 3 are needed."
    assert fits(claimed_plot(BY_SIZE, records[:2]), records[:2]) == []


def test_a_plot_that_asks_for_none_has_none(compared):
    assert fits(Plot("parameters", "val/loss", (), "points"), compared.drawn) == []


@pytest.mark.parametrize("number", [0, 1])
def test_the_law_is_a_dashed_line_over_its_own_points(compared, number):
    spec = figure(compared, compared.plots[number])
    (fit,) = fits(compared.plots[number], compared.drawn)
    rows = spec["datasets"]["fitted"]
    assert (rows[0]["x"], rows[-1]["x"]) == pytest.approx(fit.ends, rel=1e-5)
    assert rows[0]["y"] == pytest.approx(fit.law(rows[0]["x"]), rel=1e-5)
    (layer,) = [layer for layer in spec["layer"] if layer["data"]["name"] == "fitted"]
    assert layer["mark"]["strokeDash"] and layer["encoding"]["x"]["scale"]["type"] == "log"
    assert f"Dashed: {fit.sentence}" in spec["description"]


def test_the_law_is_told_in_the_terminal_the_page_and_the_document(compared, tmp_path):
    said = [fit.sentence for plot in compared.plots for fit in fits(plot, compared.drawn)]
    out = io.StringIO()
    show(compared, Console(file=out, width=400))
    assert all(sentence in out.getvalue() for sentence in said)
    plots = page.contents(compared, [])["plots"]
    assert [law["says"] for plot in plots for law in plot["laws"]] == said
    for plot, shown in zip(compared.plots, plots, strict=True):
        (law,), (fit,) = shown["laws"], fits(plot, compared.drawn)
        assert [law["line"][0][0], law["line"][-1][0]] == pytest.approx(fit.ends)
        assert law["line"][0][1] == pytest.approx(fit.law(fit.ends[0]))
    assert " ".join(said) in docs.section(replace(compared, experiment="x", claim={}), tmp_path / "a", tmp_path / "b")
