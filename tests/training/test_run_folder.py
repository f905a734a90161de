"""The run folder: nobody shares one, and its files are whole."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from epochal.config.duration import Length
from epochal.core.errors import ConfigError
from epochal.core.files import slug
from epochal.training.loggers.files import RunLogger
from epochal.training.run_folder import Run, newest_unfinished
from helpers.training import composed


def test_runs_of_the_same_second_never_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: Run.create(tmp_path, "lenet_digits_s1"), range(40)))
    assert len({run.folder for run in runs}) == 40


def test_rows_of_one_step_are_one_row_and_new_metrics_are_new_columns(tmp_path):
    logger = logger_in(tmp_path)
    logger.log_metrics({"train/loss": 1.0}, 10)
    logger.log_metrics({"train/loss": 0.5}, 20)
    logger.log_metrics({"val/loss": 0.7}, 20)
    logger.log_metrics({"train/loss": 0.25}, 30)
    logger.log_metrics({"val/loss": 0.6}, 30)
    logger.log_metrics({"train/loss": 0.2, "test/loss": 0.3}, 30)
    with logger.run.metrics.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["step"], r["train/loss"], r["val/loss"], r["test/loss"]) for r in rows] == [
        ("10", "1.0", "", ""),
        ("20", "0.5", "0.7", ""),
        ("30", "0.2", "0.6", "0.3"),
    ]
    assert [r["epoch"] for r in rows] == ["2.0", "4.0", "6.0"]
    assert [r["examples"] for r in rows] == ["320", "640", "960"]


def test_a_resumed_run_drops_rows_past_its_checkpoint_and_a_line_cut_off(tmp_path):
    logger = logger_in(tmp_path)
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 1 / step, "val/loss": 2 / step}, step)
    with logger.run.metrics.open("a") as stream:
        stream.write("4")
    again = logger_in(tmp_path)
    again.start(20, seconds_before=100.0)
    again.log_metrics({"train/loss": 0.5}, 30)
    with logger.run.metrics.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["step"], r["val/loss"]) for r in rows] == [("10", "0.2"), ("20", "0.1"), ("30", "")]
    assert float(rows[-1]["seconds"]) >= 100
    assert again.last == {"train/loss": 0.5, "val/loss": 0.1}


ROWS = ["step,epoch,examples,seconds,train/loss", "10,2.0,320,0.1,0.5", "20,4.0,640,0.2,0.25", ""]
BYTES = "\n".join(ROWS).encode()
DAMAGED = {  # what became of the file: the steps that are left, and what is said
    "one row edited": (BYTES.replace(b"0.5", b"half"), ["20"], "rows that cannot be read are dropped, 1 of"),
    "a step edited": (BYTES.replace(b"10,2", b"ten,2"), ["20"], "rows that cannot be read are dropped, 1 of"),
    "one cell too many": (BYTES.replace(b"0.25", b"0.25,7"), ["10"], "rows that cannot be read are dropped, 1 of"),
    "cells missing": (BYTES.replace(b",0.2,0.25", b""), ["10"], "rows that cannot be read are dropped, 1 of"),
    "a quotation mark": (BYTES.replace(b"10,2", b'"10,2'), ["20"], "rows that cannot be read are dropped, 1 of"),
    "NUL at the end": (BYTES + bytes(100), ["10", "20"], ""),
    "NUL and more rows": (BYTES + bytes(100) + b"\n", ["10", "20"], "rows that cannot be read are dropped, 1 of"),
    "NUL alone": (bytes(300), [], "is missing or cannot be read; its rows begin after step 20."),
    "other bytes": (BYTES.replace(b"0.5", b"\xff\xfe"), ["20"], "rows that cannot be read are dropped, 1 of"),
    "semicolons": (BYTES.replace(b",", b";"), [], "is missing or cannot be read; its rows begin after step 20."),
    "no head": (BYTES.partition(b"\n")[2], [], "is missing or cannot be read; its rows begin after step 20."),
    "cut in a row of before": (BYTES[:-3], ["10"], "rows that cannot be read are dropped, 1 of"),
    "cut in the head": (BYTES[:9], [], "is missing or cannot be read; its rows begin after step 20."),
    "empty": (b"", [], "is missing or cannot be read; its rows begin after step 20."),
    "Windows": (b"\xef\xbb\xbf" + BYTES.replace(b"\n", b"\r\n"), ["10", "20"], ""),
    "blank lines": (BYTES + b"\n\n", ["10", "20"], ""),
    "gone": (None, [], "is missing or cannot be read; its rows begin after step 20."),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_table_does_not_keep_a_run_from_going_on(damage, tmp_path, capfd):
    content, steps, said = DAMAGED[damage]
    logger = logger_in(tmp_path)
    if content is not None:
        logger.run.metrics.write_bytes(content)
    logger.start(20, seconds_before=1.0, has_rows=True)
    printed = capfd.readouterr().err
    assert said in printed and bool(said) == bool(printed)
    logger.log_metrics({"val/loss": 0.125}, 30)
    with logger.run.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == [*steps, "30"]
    assert rows[-1]["val/loss"] == "0.125"


def test_what_is_logged_at_the_step_of_a_resume_goes_into_the_row_of_that_step(tmp_path):
    logger = logger_in(tmp_path)
    logger.run.metrics.write_bytes(BYTES)
    logger.start(20, seconds_before=1.0)
    logger.log_metrics({"test/loss": 0.125}, 20)
    with logger.run.metrics.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["step"], row["train/loss"], row["test/loss"]) for row in rows] == [
        ("10", "0.5", ""),
        ("20", "0.25", "0.125"),
    ]


def test_a_run_has_one_process_at_a_time(tmp_path):
    run = Run.create(tmp_path, "x")
    assert run.claim()
    assert not Run(run.folder).claim()
    run.release()
    assert Run(run.folder).claim()


def test_the_newest_unfinished_run_of_the_same_config_is_found(tmp_path):
    from omegaconf import OmegaConf

    def leave(seed: int, status: str) -> Run:
        run = Run.create(tmp_path, f"lenet_digits_s{seed}")
        OmegaConf.save(composed(f"seed={seed}"), run.folder / "config.yaml", resolve=True)
        run.write_summary({"status": status})
        return run

    leave(1, "stopped")
    newer = leave(1, "running")
    leave(1, "finished")
    leave(2, "stopped")
    found = newest_unfinished(tmp_path, composed("seed=1", "resume=auto"))
    assert found is not None
    assert found.folder == newer.folder
    assert newest_unfinished(tmp_path, composed("seed=3")) is None
    assert newest_unfinished(tmp_path, composed("seed=1", "optimizer.lr=0.1")) is None


def test_a_key_without_a_value_that_came_later_makes_no_other_run(tmp_path):
    from omegaconf import OmegaConf

    run = Run.create(tmp_path, "lenet_digits_s1")
    old = composed("seed=1")
    OmegaConf.set_struct(old, False)
    assert old.dataset.pop("train_size") is None
    OmegaConf.save(old, run.folder / "config.yaml", resolve=True)
    run.write_summary({"status": "stopped"})
    found = newest_unfinished(tmp_path, composed("seed=1"))
    assert found is not None and found.folder == run.folder
    assert newest_unfinished(tmp_path, composed("seed=1", "dataset.train_size=100")) is None


def test_a_summary_has_no_nan_and_is_never_half_written(tmp_path):
    run = Run.create(tmp_path, "x")
    run.write_summary({"metrics": {"val/loss": float("nan")}})
    assert run.summary() == {"metrics": {"val/loss": None}}
    assert [path.name for path in run.folder.iterdir() if "summary" in path.name] == ["summary.json"]


def test_names_become_fit_for_folders():
    assert slug("my/own data") == "my-own-data"


def logger_in(folder: Path) -> RunLogger:
    run = Run(folder)
    return RunLogger(run, length=Length(10, 5), batch_size=32)


def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_else(tmp_path):
    run = Run.create(tmp_path, "x")
    kept = [run.folder / ".lock", run.folder / "metrics.csv", run.folder / ".mine", run.best, run.pictures / "a.png"]
    left = [
        run.folder / ".metrics.csv.0badcafe",
        run.best.with_name(".best.ckpt.part"),
        run.pictures / ".a.txt.01234567",
    ]
    for file in (*kept, *left):
        file.touch()
    run.sweep()
    assert all(file.exists() for file in kept) and not any(file.exists() for file in left)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "5", '"finished"', "null", "\ufeff{}", "[" * 100_000])
def test_a_summary_that_is_none_counts_as_missing(content, tmp_path):
    run = Run(tmp_path)
    (tmp_path / "summary.json").write_text(content)
    assert run.summary() == {}


@pytest.mark.parametrize(
    ("content", "read"),
    [("- a=1\n- b=2\n", ["a=1", "b=2"]), ("[[", []), ("a: 1", []), ("5", []), ("\x00", []), ("", []), (None, [])],
)
def test_overrides_that_cannot_be_read_are_none(content, read, tmp_path):
    if content is not None:
        (tmp_path / "overrides.yaml").write_text(content)
    assert Run(tmp_path).overrides() == read


def test_folders_that_are_missing_are_made_again_and_files_in_their_place_told(tmp_path):
    Run(tmp_path).sweep()
    assert (tmp_path / "checkpoints").is_dir() and (tmp_path / "pictures").is_dir()
    (tmp_path / "pictures").rmdir()
    (tmp_path / "pictures").touch()
    with pytest.raises(ConfigError, match="pictures cannot be made"):
        Run(tmp_path).sweep()
