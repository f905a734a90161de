"""The terminal and table.csv: best first, everything counted, fit for the width."""

from __future__ import annotations

import csv
import io
import re

import pytest
from rich.console import Console

from epochal.compare import table
from epochal.compare.comparison import Plot
from epochal.compare.labels import column_heads
from epochal.compare.text_plot import text_plot
from epochal.core.format import difference_text, duration_text, number_text, short, spread_text
from helpers.run_folders import ERRORS, claim_grid, compare, grid, run_folder


def shown(comparison, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    table.show(comparison, console)
    return console.file.getvalue()


def test_rows_are_best_first_whichever_way_is_better(tmp_path):
    folder = grid(tmp_path / "runs", ERRORS)
    by_error = [row.label for row in table.rows(compare(folder, y="train/error"))]
    assert by_error == ["resnet, depth 44", "resnet, depth 8", "plain, depth 8", "plain, depth 44"]
    by_accuracy = [row.label for row in table.rows(compare(folder, y="train/accuracy"))]
    assert by_accuracy == by_error


def test_a_row_counts_finished_runs_only_and_mentions_the_others(tmp_path):
    grid(tmp_path / "runs", {("mlp", 1): [0.1, 0.2]})
    run_folder(
        tmp_path / "runs", "x", seed=3, status="failed", metrics={"train/accuracy": 0.0}, config={"model.depth": 1}
    )
    comparison = compare(tmp_path / "runs", y="train/error")
    [row] = table.rows(comparison)
    assert (row.n, row.finished, len(row.records)) == (2, 2, 3)
    assert row.spreads["train/error"].mean == pytest.approx(0.15)
    assert "2 of 3" in shown(comparison)
    assert "Failed, not ranked: 1 run\n✗ seed 3: The loss is nan at step 2." in shown(comparison)


def test_runs_that_failed_are_listed_apart_and_never_ranked(tmp_path):
    for seed in (1, 2, 3):
        run_folder(tmp_path / "runs", f"a{seed}", model="mlp", seed=seed, metrics={"val/loss": 0.5})
        run_folder(tmp_path / "runs", f"b{seed}", model="gpt", seed=seed, metrics={"val/loss": 0.1}, status="failed")
    ranked, failed = shown(compare(tmp_path / "runs")).split("\n\n", 1)[1].split("Failed, not ranked: 3 runs")
    assert "mlp" in ranked and "gpt" not in ranked
    assert failed.split("\n")[1] == "✗ gpt, seeds 1, 2, 3: The loss is nan at step 2."


def test_unlike_data_and_trials_are_ranked_apart_also_in_one_comparison(tmp_path):
    easy, trial = {"dataset.name": "easy"}, {"dataset.name": "hard", "trainer.name": "overfit"}
    run_folder(tmp_path / "runs", "a", model="mlp", metrics={"val/loss": 0.5}, config={"dataset.name": "hard"})
    run_folder(tmp_path / "runs", "b", model="gpt", metrics={"val/loss": 0.1}, config=easy)
    run_folder(tmp_path / "runs", "c", model="rnn", metrics={"val/loss": 0.0}, config=trial)
    rows = table.rows(compare(tmp_path / "runs", y="val/loss"))
    assert [row.records[0].name for row in rows] == ["b", "a", "c"]
    text = shown(compare(tmp_path / "runs", y="val/loss"))
    assert re.findall(r"^(?:trainer=|easy|hard).*", text, re.MULTILINE)[-1].startswith("trainer=overfit, hard")


def test_no_two_rows_read_the_same_in_80_columns_and_labels_are_cut_in_the_middle(tmp_path):
    for number in range(6):
        config = {f"model.option_{i}": f"a rather long value of {number >> i & 1} and so on and on" for i in range(3)}
        typed = [f"{key}=x" for key in config]
        run_folder(tmp_path / "runs", f"{number}", config=config, typed=typed, metrics={"val/loss": 0.1 * number})
    lines = shown(compare(tmp_path / "runs"), 80).splitlines()
    names = [line.split("  ")[0] for line in lines if line.startswith("option 0")]
    assert len(names) == len(set(names)) >= 6
    assert not any(name.endswith("…") for name in names)


def test_the_table_of_a_data_set_has_the_keys_in_which_its_own_rows_differ(tmp_path):
    for number, (name, size, start) in enumerate([("a", 4, "x"), ("a", 4, "y"), ("a", 8, "x"), ("b", 16, "z")]):
        config = {"dataset.name": name, "dataset.batch_size": size, "init_from": f"language_modeling@{start * 30}"}
        metrics = {"val/loss": 0.1} if name == "a" else {"val/accuracy": 0.3}
        typed = [f"{key}=x" for key in config]
        run_folder(tmp_path / "runs", f"{number}", config=config, typed=typed, metrics=metrics)
    text = shown(compare(tmp_path / "runs"), 80)
    assert re.search(r"^batch size +init from +val loss +n", text, re.MULTILINE)
    assert "val accuracy  n" in text.partition("\nb")[2]  # not an empty column of the loss


def test_two_keys_of_one_name_have_heads_and_labels_of_their_own(tmp_path):
    for number in (1, 2):
        config = {"model.size": number, "optimizer.size": 3 - number, "model.other": number % 2}
        run_folder(tmp_path / "runs", f"{number}", config=config, typed=["model.size=1", "optimizer.size=1"])
    labels = [row.label for row in table.rows(compare(tmp_path / "runs", group=("model.size", "optimizer.size")))]
    assert column_heads(["model.size", "optimizer.size", "model.depth"]) == {
        "model.size": "model size",
        "optimizer.size": "optimizer size",
        "model.depth": "depth",
    }
    assert len(set(labels)) == 2


def test_the_best_groups_are_drawn_in_text_not_the_first(tmp_path):
    for depth in range(20):
        run_folder(
            tmp_path / "runs", f"{depth:02}", config={"model.depth": depth}, metrics={"val/loss": 2.0 - depth / 10}
        )
    comparison = compare(tmp_path / "runs")
    bars = text_plot(comparison, Plot("", "val/loss", ("model.depth",), "bars"), 80).plain
    assert "depth 19" in bars and "depth 0 " not in bars and "the best 12 of 20 bars are drawn" in bars
    lines = text_plot(comparison, Plot("step", "val/loss", ("model.depth",), "curves"), 80).plain
    assert "depth 19" in lines and "depth 3" not in lines and "the best 6 of 20 lines are drawn" in lines


def test_what_has_not_finished_stands_below_without_a_time(tmp_path):
    run_folder(tmp_path / "runs", "a", model="mlp", metrics={"val/loss": 0.5})
    run_folder(tmp_path / "runs", "b", model="gpt", metrics={"val/loss": 0.1}, status="running", rows=2)
    finished, running = table.rows(compare(tmp_path / "runs"))
    assert (finished.label, running.label) == ("mlp", "gpt")
    assert "seconds" in finished.spreads and "seconds" not in running.spreads
    assert "▶ running gpt, seed 1: 40 % done" in shown(compare(tmp_path / "runs"))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_the_table_and_plot_is_wider_than_the_terminal(tmp_path, width):
    comparison = compare(grid(tmp_path / "runs", ERRORS), y="train/error")
    assert max(map(len, shown(comparison, width).splitlines())) <= width
    lines = shown(comparison, width).splitlines()
    heads = next(line for line in lines if "train error" in line)
    assert " n" in heads  # what decides stays, whatever has to go
    assert ("time" in heads) == (width == 120)


def test_folders_that_are_no_runs_are_listed_with_their_reason(tmp_path):
    run_folder(tmp_path / "runs", "a")
    (tmp_path / "runs" / "empty").mkdir()
    assert "empty: not a run folder" in " ".join(shown(compare(tmp_path / "runs"), 300).split())


def test_the_csv_file_has_every_row_with_mean_and_standard_deviation(tmp_path):
    comparison = compare(grid(tmp_path / "runs", ERRORS), y="train/error")
    rows = list(csv.DictReader(io.StringIO(table.csv_text(comparison))))
    assert [(row["model.name"], row["model.depth"]) for row in rows][:2] == [("resnet", "44"), ("resnet", "8")]
    assert (rows[3]["runs"], rows[3]["finished"], rows[3]["n"]) == ("3", "3", "3")
    assert float(rows[3]["train/error"]) == pytest.approx(0.41333, abs=1e-4)
    assert float(rows[3]["train/error std"]) == pytest.approx(0.01528, abs=1e-4)
    assert rows[0]["parameters"] == "44000.0"


def test_names_with_brackets_are_shown_as_they_are(tmp_path):
    run_folder(tmp_path / "runs", "a", config={"model.note": "one [red] word"})
    run_folder(tmp_path / "runs", "b", config={"model.note": "none"})
    assert "one [red] word" in shown(compare(tmp_path / "runs"))


def test_lists_are_shown_by_their_items(tmp_path):
    run_folder(tmp_path / "runs", "a", config={"model.branches": ["1x1", "pool"]})
    run_folder(tmp_path / "runs", "b", config={"model.branches": ["3x3"]})
    assert "1x1, pool " in shown(compare(tmp_path / "runs"))


def test_a_single_run_is_shown_too(tmp_path):
    run_folder(tmp_path / "runs", "a")
    assert "val accuracy" in shown(compare(tmp_path / "runs"))


def test_runs_without_a_single_value_are_shown_too(tmp_path):
    folder = run_folder(tmp_path / "runs", "a", status="running", metrics={"val/loss": None}, rows=1)
    (folder / "metrics.csv").unlink()
    assert "▶ running" in shown(compare(tmp_path / "runs"))


@pytest.mark.parametrize(
    "kind, x", [("points", "model.depth"), ("bars", "model.name"), ("curves", "epoch"), ("bars", "")]
)
def test_every_kind_of_plot_is_drawn_in_text_with_its_names_and_ends(tmp_path, kind, x):
    comparison = compare(grid(tmp_path / "runs", ERRORS), y="train/error")
    text = text_plot(comparison, Plot(x, "train/error", ("model.name",), kind), 80).plain
    assert "plain" in text and "resnet" in text and "%" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_plot_without_values_is_none(tmp_path):
    run_folder(tmp_path / "runs", "a")
    comparison = compare(tmp_path / "runs")
    for kind in ("points", "bars", "curves", "profile"):
        assert text_plot(comparison, Plot("epoch", "nothing", (), kind), 80) is None


def test_a_rising_line_rises(tmp_path):
    (run_folder(tmp_path / "runs", "a") / "metrics.csv").write_text("step,val/loss\n0,0\n10,5\n")
    comparison = compare(tmp_path / "runs", x="step", y="val/loss")
    lines = [
        line.partition("┤")[2] or line.partition("│")[2]
        for line in text_plot(comparison, comparison.plots[0], 60).plain.splitlines()
    ]
    places = [len(line) - len(line.lstrip(" ")) for line in lines[1:10]]
    assert places == sorted(places, reverse=True)


def test_a_verdict_stands_in_a_panel_with_its_numbers(tmp_path):
    from epochal.compare.claims import load_claim

    claim, _ = load_claim("depth_degradation", "smoke")
    depth = claim["tests"][0]["more"]["model.depth"]
    errors = {("plain", depth): [0.1] * 3}
    claim_grid(tmp_path / "runs", "depth_degradation", "smoke", errors)
    text = shown(compare(tmp_path / "runs"))
    assert "─ inconclusive ─" in text
    assert "no run that counts has" in text
    assert "Budget smoke" in text


@pytest.mark.parametrize(
    "text, words",
    [
        (number_text("val/accuracy", 0.98337), "98.34 %"),
        (number_text("val/loss", 0.012349), "0.01235"),
        (number_text("train/learning_rate", 5e-7), "5e-07"),
        (number_text("val/perplexity", 1234.5), "1,234"),
        (spread_text("test/error", 0.0875, 0.0012), "8.75 ± 0.12 %"),
        (spread_text("val/loss", 1.25, 0.0312), "1.250 ± 0.031"),
        (spread_text("val/loss", 1.25, None), "1.250"),
        (difference_text("test/error", -0.0123), "-1.23 points"),
        (difference_text("val/loss", 0.5), "+0.5000"),
        (short(61706), "61.7 k"),
        (short(999_999), "1.00 M"),
        (short(833), "833"),
        (duration_text(59.9 * 60), "1 h 0 min"),
        (duration_text(12000), "3 h 20 min"),
    ],
)
def test_numbers_are_written_with_their_units(text, words):
    assert text == words
