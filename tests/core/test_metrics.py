"""One registry has the label, direction and form of every metric, and every place uses it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from epochal.compare import table
from epochal.compare.comparison import Plot
from epochal.compare.figures import figure
from epochal.compare.labels import key_text, title
from epochal.compare.report import page
from epochal.compare.text_plot import text_plot
from epochal.core.format import number_text
from epochal.core.metrics import COSTS, METRICS, direction, find
from epochal.experiments.outcome import line
from epochal.experiments.sweeps import figures as sweep_figures
from epochal.experiments.sweeps import report as sweep_report
from epochal.experiments.sweeps.settings import Objective
from epochal.plots.vega import svg
from helpers.run_folders import compare, run_folder

WRITTEN = {  # name, value, and how it reads wherever it stands
    "test/accuracy": (0.98337, "98.34 %"),
    "test/error": (0.01663, "1.66 %"),
    "test/noise_0.3/accuracy": (0.5, "50.00 %"),
    "train/top5_accuracy": (1.0, "100.00 %"),
    "test/exact": (0.9605, "96.05 %"),
    "val/whole": (0.25, "25.00 %"),
    "val/solved": (0.125, "12.50 %"),
    "val/loss": (0.012349, "0.01235"),
    "test/perplexity": (1234.5, "1,234"),
    "test/bleu": (34.217, "34.22"),
    "train/learning_rate": (5e-7, "5e-07"),
    "train/tokens_per_second": (61706.0, "61.7 k"),
    "val/f1": (0.93, "0.9300"),  # of a user
}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("val/accuracy", "max"),
        ("test/noise_0.3/accuracy", "max"),
        ("train/top5_accuracy", "max"),
        ("test/bleu", "max"),
        ("test/bleu_kept", "max"),
        ("val/chrf", "max"),
        ("val/explained", "max"),
        ("examples_per_second", "max"),
        ("train/tokens_per_second", "max"),
        ("val/loss", "min"),
        ("val/generator_loss", "min"),
        ("test/error", "min"),
        ("val/perplexity", "min"),
        ("val/mae", "min"),
        ("seconds", "min"),
        ("parameters", "min"),
        ("train/gradient_norm", None),
        ("train/learning_rate", None),
        ("epoch", None),
        ("val/f1", "max"),  # unknown ones are guessed
        ("val/my_auc", "max"),
        ("val/r2", "max"),
        ("val/error2", "min"),
        ("val/my_distance", "min"),
    ],
)
def test_the_direction_of_a_metric(name, wanted):
    assert direction(name) == wanted
    assert find(name).larger_is_better == (wanted == "max")


@pytest.mark.parametrize(
    ("name", "short", "full"),
    [
        ("test/accuracy", "test accuracy", "test accuracy"),
        ("train/error", "train error", "training error"),
        ("val/bits_per_character", "val bits per character", "validation bits per character"),
        ("test/noise_0.3/error", "test error at noise 0.3", "test error at noise 0.3"),
        ("val/my_distance", "val my distance", "validation my distance"),
        ("seconds", "time", "time (s)"),
        ("peak_memory_mb", "peak memory", "peak memory (MB)"),
        ("model.name", "model", "model"),
        ("model.num_layers", "num layers", "num layers"),
    ],
)
def test_labels(name, short, full):
    assert (key_text(name), title(name)) == (short, full)


def test_every_cost_is_known():
    assert set(COSTS) <= set(METRICS)


def test_an_unknown_metric_is_a_plain_number():
    assert number_text("val/reconstruction_error", 3.5) == "3.500"


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_not_finite_says_so(value):
    assert {number_text(name, value) for name in WRITTEN} == {"not finite"}


def test_what_tasks_report_has_the_direction_of_the_registry():
    from epochal import tasks

    reports = [getattr(task, "reports", None) for task in vars(tasks).values() if isinstance(task, type)]
    reports = [report for report in reports if report is not None]
    assert len(reports) > 4
    assert all(direction(name) == way for name, way in reports)


def test_the_metrics_that_tasks_log_are_known():
    """All but a user's: a new one belongs into the registry."""
    from epochal.tasks.text_metrics import scores

    logged, _ = scores(["a cat sat here"], [["a cat sat here"]])
    assert set(logged) <= set(METRICS)


def read_page(comparison):
    return page.contents(comparison, [])


@pytest.fixture
def comparison(tmp_path):
    for seed in (1, 2):
        metrics = {name: value for name, (value, _) in WRITTEN.items()}
        run_folder(tmp_path / "runs", f"run-{seed}", seed=seed, metrics=metrics, config={"model.depth": 8})
    return lambda **choices: compare(tmp_path / "runs", **choices)


@pytest.mark.parametrize(("name", "value", "text"), [(name, *row) for name, row in WRITTEN.items()])
def test_a_value_reads_the_same_everywhere(comparison, name, value, text):
    compared = comparison(x="model.depth", y=name)
    outcome = {"overrides": [], "status": "finished", "summary": {"best": {"metric": name, "value": value}}}
    written = Console(file=io.StringIO(), width=200, color_system=None)
    table.show(compared, written)
    shown = read_page(compared)

    assert number_text(name, value) == text
    assert f"best {name} {text}" in line(outcome, 1.0).plain  # the line of a grid
    [row] = table.rows(compared)
    spread = table.spread_cell(name, row.spreads[name])
    assert spread.startswith(text.removesuffix(" %")) and spread.endswith(" %") == text.endswith(" %")
    assert text.removesuffix(" %") in written.file.getvalue()
    assert shown["runs"][0]["values"][name] == pytest.approx(value)  # which the page writes by its form
    assert (shown["names"][name]["form"] == "percent") == text.endswith("%")
    assert text in text_plot(compared, Plot("model.depth", name, (), "points"), 80).plain


@pytest.mark.parametrize("name", WRITTEN)
def test_axes_of_figures_are_in_percent_where_tables_are(comparison, name):
    percent = WRITTEN[name][1].endswith("%")
    spec = figure(comparison(x="model.depth", y=name), Plot("model.depth", name, (), "points"))
    axes = [layer["encoding"]["y"]["axis"] for layer in spec["layer"] if "axis" in layer["encoding"].get("y", {})]
    assert axes and all(("%" in axis.get("format", "")) == percent for axis in axes)
    made = sweep_figures.axis(Objective("minimize", name), [0.1, 0.2])
    assert ("%" in made["axis"].get("format", "")) == percent


def test_figures_write_percent_as_tables_do(tmp_path):
    for depth, accuracy in ((8, 0.2), (20, 0.4)):
        run_folder(tmp_path / "runs", f"{depth}", metrics={"val/accuracy": accuracy}, config={"model.depth": depth})
    compared = compare(tmp_path / "runs", x="model.depth", y="val/accuracy")
    drawn = ElementTree.fromstring(svg(figure(compared, compared.plots[0])))
    texts = {element.text for element in drawn.iter() if element.text}
    assert "20\N{NO-BREAK SPACE}%" in texts


def test_a_search_writes_its_objectives_as_all_other_places_do():
    study = SimpleNamespace(
        objectives=[Objective("maximize", "val/accuracy"), Objective("minimize", "parameters")],
        space=SimpleNamespace(parameters=[]),
    )
    trial = SimpleNamespace(number=3, values=[0.9605, 61706.0], params={})
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(sweep_report.table(study, [trial], 200))
    assert console.file.getvalue().split()[-5:] == ["3", "96.05", "%", "61.7", "k"]


def test_a_run_its_evaluation_and_its_comparison_say_the_same(command, home):
    trained = command("train", "model=mlp", "dataset=digits", "duration=20steps", "logger=none")
    [accuracy] = [row.split(maxsplit=1)[1].strip() for row in trained.out.splitlines() if "test/accuracy" in row]
    assert accuracy.endswith(" %")
    [run] = (home / "outputs" / "runs").iterdir()
    logged = json.loads((run / "summary.json").read_text())["metrics"]
    assert {name.rpartition("/")[2] for name in logged} <= set(METRICS)
    assert accuracy in command("evaluate", f"run={run}").out
    assert accuracy in command("compare", "outputs/runs", "y=test/accuracy").out
