"""Run folders are read as they are found, and never written."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from epochal.compare.command import compare
from epochal.compare.records import read_columns
from epochal.compare.report import page
from epochal.compare.scan import read
from epochal.core.errors import ConfigError
from helpers.run_folders import run_folder


def test_a_run_has_its_config_metrics_costs_and_errors(tmp_path):
    run_folder(tmp_path, "a", metrics={"val/accuracy": 0.75}, config={"model.hidden": [8, 4], "allow": []}, seed=3)
    [record], skipped = read([tmp_path / "a"])
    assert skipped == []
    assert (record.status, record.seed, record.progress) == ("finished", 3, 1.0)
    assert [record.value(name) for name in ("val/accuracy", "val/error", "parameters")] == [0.75, 0.25, 1000]
    assert [record.value(name) for name in ("model.name", "model.hidden", "allow")] == ["mlp", "[8, 4]", "[]"]
    assert record.value("val/bleu") is None
    assert {"val/error", "flops", "optimizer.lr"} <= set(record.names)


@pytest.fixture
def evaluated(tmp_path) -> Path:
    """The folder of runs with one that evaluate.py was used on: its own data, other data, few-shot questions, a task."""
    run = run_folder(tmp_path / "runs", "a", metrics={"test/accuracy": 0.5}, config={"dataset.name": "digits"})
    run_folder(tmp_path / "runs", "b", metrics={"test/accuracy": 0.6}, config={"dataset.name": "digits"})
    for name, content in {
        "digits/metrics.json": {"test/accuracy": 0.1},
        "mnist/metrics.json": {"test/accuracy": 0.2, "test/noise_0.3/accuracy": 0.15, "test/loss": "nan"},
        "sst2_few_shot/metrics.json": {"test/shots_4/accuracy": 0.75, "test/shots_4_permuted/accuracy": 0.5},
        "lm_eval/a-b_2shot.json": {"task": "a/b", "shots": 2, "metrics": {"acc": 0.3, "acc_stderr": 0.01}},
    }.items():
        file = run / "evaluation" / name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    return tmp_path / "runs"


def test_what_evaluate_found_since_are_values_of_the_run(evaluated):
    [record, other], _ = read([evaluated])
    assert record.evaluated == {
        **{"mnist/accuracy": 0.2, "mnist/noise_0.3/accuracy": 0.15},
        **{"sst2/shots_4/accuracy": 0.75, "sst2/shots_4_permuted/accuracy": 0.5},
        **{"a-b/shots_2/acc": 0.3, "a-b/shots_2/acc_stderr": 0.01},
    }
    assert record.value("test/accuracy") == 0.5, "of its own data the test's value stays"
    assert record.value("sst2/shots_4/accuracy") == 0.75 and other.value("sst2/shots_4/accuracy") is None
    assert compare(evaluated, y="sst2/shots_4/accuracy").records


def test_what_evaluate_found_since_has_columns_in_the_page(evaluated, tmp_path):
    data = page.contents(compare(evaluated), [])
    since = {"a-b/shots_2/acc", "mnist/accuracy", "mnist/noise_0.3/accuracy", "sst2/shots_4/accuracy"}
    assert since | {"sst2/shots_4_permuted/accuracy"} <= set(data["columns"])
    assert "a-b/shots_2/acc_stderr" not in data["columns"] and "a-b/shots_2/acc_stderr" in data["names"]
    named = data["names"]["sst2/shots_4/accuracy"]
    assert (named["title"], named["form"], named["best"]) == ("sst2 accuracy at 4 shots", "percent", "max")


def test_curves_leave_out_what_was_not_logged(tmp_path):
    folder = run_folder(tmp_path, "a")
    (folder / "metrics.csv").write_text(
        "step,epoch,val/accuracy,train/loss\n1,0.5,,2.0\n2,1.0,0.5,nan\n3,1.5,,inf\n4,2.0,0.75,1.0\n"
    )
    [record], _ = read([folder])
    assert [values.tolist() for values in record.curve("val/accuracy", "epoch")] == [[1.0, 2.0], [0.5, 0.75]]
    assert [values.tolist() for values in record.curve("val/error")] == [[2, 4], [0.5, 0.25]]
    assert [values.tolist() for values in record.curve("train/loss")] == [[1, 4], [2.0, 1.0]]
    assert record.curve("val/loss") is None
    assert record.curve("val/accuracy", "seconds") is None


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    folder = run_folder(tmp_path, "a", rows=3)
    with (folder / "metrics.csv").open("a") as stream:
        stream.write("40,4.0,25")
    [record], _ = read([folder])
    assert record.columns["step"].tolist() == [10, 20, 30]


@pytest.mark.parametrize("content", ["", "step", "\n", "step,a\n1,x\n", "\x00\x01\n\xff\n"])
def test_metrics_that_are_none_are_no_curves(tmp_path, content):
    folder = run_folder(tmp_path, "a")
    (folder / "metrics.csv").write_text(content, encoding="latin1")
    [record], _ = read([folder])
    assert record.curve("val/loss") is None


def test_columns_read_by_arrow_are_those_that_numpy_reads(tmp_path):
    values = np.random.default_rng(0).normal(size=(37, 3)) * 10.0 ** np.arange(-9, 9, 6)
    values[[0, 5, 36], [0, 1, 2]] = np.nan
    text = "\n".join(",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in values)
    (tmp_path / "a.csv").write_text(f"a,b,c\n{text}\n")
    np.testing.assert_array_equal(np.stack(list(read_columns(tmp_path / "a.csv").values()), axis=1), values)


def test_what_is_no_run_is_skipped_with_its_reason(tmp_path):
    run_folder(tmp_path, "good")
    shutil.rmtree(run_folder(tmp_path, "no-config") / "pictures")
    (tmp_path / "no-config" / "config.yaml").unlink()
    (run_folder(tmp_path, "bad-config") / "config.yaml").write_text("a: [")
    (run_folder(tmp_path, "foreign") / "config.yaml").write_text("learning_rate: 1")
    (run_folder(tmp_path, "text") / "config.yaml").write_text("words")
    (run_folder(tmp_path, "binary") / "config.yaml").write_bytes(b"\x80\x81")
    (run_folder(tmp_path, "half") / "summary.json").unlink()
    (run_folder(tmp_path, "bad-summary") / "summary.json").write_text('{"status": ')
    (run_folder(tmp_path, "no-status") / "summary.json").write_text("[]")
    (run_folder(tmp_path, "bad-overrides") / "overrides.yaml").write_text("- seed=1\n- [")
    (tmp_path / "good" / "overrides.yaml").unlink()  # as of a run that Python code began
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("")
    records, skipped = read([tmp_path, tmp_path / "notes.txt"])
    assert [record.name for record in records] == ["good"]
    reasons = {entry.path.name: entry.reason for entry in skipped}
    assert reasons.keys() == {
        *("no-config", "bad-config", "foreign", "text", "binary", "half", "bad-summary", "no-status", "notes.txt"),
        "bad-overrides",
    }
    assert reasons["no-config"].startswith("not a run folder")
    assert reasons["bad-config"] == reasons["binary"] == "broken: its config.yaml cannot be read"
    assert reasons["foreign"].startswith("not a run of Epochal")
    assert reasons["half"].startswith("half-finished")
    assert reasons["bad-summary"] == "broken: its summary.json cannot be read"
    assert reasons["bad-overrides"] == "broken: its overrides.yaml cannot be read"
    assert reasons["notes.txt"] == "a file, not a run folder"


def test_a_folder_that_cannot_be_opened_is_skipped(tmp_path, monkeypatch):
    run_folder(tmp_path, "good")
    (tmp_path / "closed").mkdir()
    listed = Path.iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    records, [skipped] = read([tmp_path])
    assert [record.name for record in records] == ["good"]
    assert skipped == (tmp_path / "closed", "a folder that cannot be opened (Permission denied)")


def test_reading_writes_nothing(tmp_path):
    folder = run_folder(tmp_path, "a")
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]}
    [record], _ = read([folder])
    record.curve("val/loss"), record.pictures(), record.profile("state_gradient"), record.progress
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.rglob("*")]} == before


def test_paths_are_folders_of_runs_patterns_and_runs_each_read_once(tmp_path, monkeypatch):
    for name in ("runs/a1", "runs/a2", "runs/b", "depth/c"):
        run_folder(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    names = lambda *paths: [record.name for record in read(paths)[0]]  # noqa: E731
    assert names("runs") == ["a1", "a2", "b"]
    assert names("runs/a*", "runs") == ["a1", "a2", "b"]
    assert names(".") == ["c", "a1", "a2", "b"]
    with pytest.raises(ConfigError, match="nothing at rnus"):
        read(["rnus"])
    with pytest.raises(ConfigError, match="nothing at runs/z"):
        read(["runs/z*"])


def test_a_run_that_says_running_and_has_been_quiet_is_shown_as_silent(tmp_path):
    folder = run_folder(tmp_path, "a", status="running", rows=2)
    [record], _ = read([folder])
    assert (record.shown_status, record.progress) == ("running", 0.4)
    for path in folder.iterdir():
        os.utime(path, (time.time() - 700,) * 2)
    [record], _ = read([folder])
    assert (record.status, record.shown_status) == ("running", "silent")


def test_a_run_going_on_shows_what_it_logged_since_its_summary(tmp_path):
    folder = run_folder(tmp_path, "a", status="running", rows=2, steps=10)
    (folder / "summary.json").write_text(json.dumps({"status": "running", "steps": 10, "total_steps": 50}))
    [record], _ = read([folder])
    assert record.value("val/loss") == 0.5
    assert record.progress == 0.4


def test_records_are_used_again_until_a_file_changes(tmp_path):
    a, b = run_folder(tmp_path, "a"), run_folder(tmp_path, "b", status="running")
    first, _ = read([tmp_path])
    run_folder(tmp_path / "other", "b", status="finished")
    os.replace(tmp_path / "other" / "b" / "summary.json", b / "summary.json")
    os.utime(b / "summary.json", (time.time() + 5,) * 2)
    second, _ = read([a, b], known=first)
    assert second[0] is first[0]
    assert (first[1].status, second[1].status) == ("running", "finished")


def test_pictures_texts_and_profiles_are_distinguished(tmp_path):
    folder = run_folder(tmp_path, "a")
    for name in ("samples_000020.txt", "samples_000003.png", "test_confusion.png", "curve_loss.png", "x.tmp"):
        (folder / "pictures" / name).touch()
    for step in (10, 20):
        (folder / "pictures" / f"state_gradient_{step:06}.csv").write_text(
            f"time step,gradient norm\n0,{step}\n1,1e-9\n"
        )
    [record], _ = read([folder])
    assert [(name, step, path.name) for name, step, path in record.pictures()] == [
        ("confusion", None, "test_confusion.png"),
        ("samples", 3, "samples_000003.png"),
        ("samples", 20, "samples_000020.txt"),
    ]
    profile = record.profile("state_gradient")
    assert (profile.x_label, profile.y_label, profile.y.tolist()) == ("time step", "gradient norm", [20, 1e-9])
    assert record.profiles == ["state_gradient"]
    assert record.profile("nothing") is None


def test_what_evaluate_explained_is_among_the_pictures(tmp_path):
    folder = run_folder(tmp_path, "a", config={"dataset": {"name": "mnist"}})
    (folder / "pictures" / "test_explain_filters.png").touch()
    (folder / "pictures" / "test_explain_features.png").touch()
    [record], _ = read([folder])
    assert [picture.path.parent for picture in record.pictures()] == [folder / "pictures"] * 2
    for data in ("mnist", "fashion_mnist"):
        (folder / "evaluation" / data).mkdir(parents=True)
        for name in ("explain_filters.png", "confusion.png"):
            (folder / "evaluation" / data / name).touch()
    [again], _ = read([folder], known=[record])
    assert again.stamp != record.stamp, "or an open page would not ask for them"
    assert [(name, step, str(path.relative_to(folder))) for name, step, path in again.pictures()] == [
        ("explain_features", None, "pictures/test_explain_features.png"),
        ("explain_filters", None, "evaluation/mnist/explain_filters.png"),
        ("explain_filters on fashion_mnist", None, "evaluation/fashion_mnist/explain_filters.png"),
    ]


@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "metrics.csv", "overrides.yaml"])
def test_a_run_whose_file_is_a_link_to_elsewhere_is_refused(tmp_path, name):
    folder = run_folder(tmp_path / "runs", "a")
    (folder / name).unlink(missing_ok=True)
    (tmp_path / "elsewhere").write_text("model: {name: secret}\ndataset: {name: secret}\n")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    records, [skipped] = read([folder])
    assert records == []
    assert skipped.reason == f"refused: its {name} is no file in this folder"


def test_what_a_run_says_does_not_command_the_terminal(tmp_path, capsys):
    red, title = "\x1b[31m", "\x9b2J\x1b]0;owned\x07"
    run_folder(tmp_path / "runs", "a", model=f"m{red}", metrics={f"test/{red}": 1.0, "val/loss": 1.0})
    run_folder(tmp_path / "runs", f"b{red}", status="failed", error=f"because{title}", config={f"model.k{red}": title})
    (tmp_path / "runs" / f"c{red}").mkdir()
    compare(tmp_path / "runs", to=tmp_path / "report")
    shown = capsys.readouterr().out
    assert "because\N{REPLACEMENT CHARACTER}2J" in shown
    assert not {"\x1b", "\x9b", "\x07"} & set(shown)
    with pytest.raises(ConfigError) as error:
        compare(tmp_path / "runs" / f"c{red}", to=tmp_path / "report")
    assert "is not a run folder" in str(error.value)
