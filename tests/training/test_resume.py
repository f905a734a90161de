"""A killed run goes on to the same bits as one that was never killed."""

from __future__ import annotations

import csv
import json
import random
import signal
from pathlib import Path

import pytest
import torch

from helpers.training import SAVING, in_new_process, train_until_killed, train_until_killed_saving

HOOKS = ("on_train_batch_start", "on_after_backward", "on_before_optimizer_step", "on_train_batch_end")
RUNS = {
    "images": (
        "model=mlp",
        "model.dropout=0.2",
        "dataset=digits",
        "dataset.train_size=320",
        "dataset.batch_size=32",
        "dataset.crop_padding=1",
        "dataset.flip=true",
        "dataset.cutout=2",
        "duration=5epochs",
    ),
    "convolution with averaged weights": (
        "model=resnet",
        "model.depth=8",
        "dataset=digits",
        "dataset.train_size=320",
        "dataset.batch_size=32",
        "callbacks.ema=0.9",
        "duration=5epochs",
    ),
    "several batches a step, and early stopping": (
        "model=mlp",
        "dataset=digits",
        "dataset.train_size=640",
        "trainer.accumulate_grad_batches=4",
        "trainer.val_check_interval=6",
        "trainer.check_val_every_n_epoch=null",
        "callbacks.early_stopping=40",
        "dataset.batch_size=8",
        "duration=50steps",
    ),
    "text": (
        "model=gpt",
        "model.depth=1",
        "model.dropout=0.1",
        "dataset=text",
        "trainer.val_check_interval=9",
        "duration=50steps",
        "task=language_modeling",
        "task.sample_length=8",
    ),
    "gan": (
        "model=gan",
        "model.width=8",
        "dataset=digits",
        "dataset.train_size=320",
        "dataset.batch_size=32",
        "duration=5epochs",
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_killed_ten_times_ends_in_the_same_bits(kind: str, tmp_path: Path) -> None:
    overrides = (*RUNS[kind], "logger=none", "trainer=cpu", "log_every=5", "callbacks.checkpoint_every=1")
    if kind == "text":
        text = tmp_path / "text.txt"
        text.write_text("To be, or not to be, that is the question. " * 200)
        overrides = (*overrides, f"dataset.path={text}")
    whole, killed = (*overrides, f"output_dir={tmp_path / 'whole'}"), (*overrides, f"output_dir={tmp_path / 'killed'}")
    assert in_new_process(train_until_killed, whole, None, "on_train_start") == 0

    chance = random.Random(kind)
    for kill in range(10):
        where = {3: "on_validation_start", 7: "on_validation_end"}.get(kill, chance.choice(HOOKS))
        code = in_new_process(train_until_killed, (*killed, "resume=auto"), chance.randint(0, 2), where)
        assert code == -signal.SIGKILL
    assert in_new_process(train_until_killed, (*killed, "resume=auto"), None, "on_train_start") == 0
    check_same(tmp_path / "whole", tmp_path / "killed")


SHORT = ("model=mlp", "dataset=digits", "dataset.train_size=320", "dataset.batch_size=32", "logger=none", "trainer=cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Outputs of runs that were not killed, by their duration."""
    outputs = {duration: tmp_path_factory.mktemp("whole") for duration in ("1epochs", "3epochs")}
    for duration, folder in outputs.items():
        overrides = (*SHORT, f"duration={duration}", f"output_dir={folder}")
        assert in_new_process(train_until_killed, overrides, None, "on_train_start") == 0
    return outputs


@pytest.mark.parametrize(
    ("duration", "save", "moment"), [*(("3epochs", 2, moment) for moment in SAVING), ("1epochs", 1, "before link")]
)
def test_a_run_killed_while_it_saves_ends_with_the_same_pair_of_checkpoints(
    duration: str, save: int, moment: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    killed = (*SHORT, f"duration={duration}", f"output_dir={tmp_path}", "resume=auto")
    assert in_new_process(train_until_killed_saving, killed, moment, save) == -signal.SIGKILL
    assert in_new_process(train_until_killed, killed, None, "on_train_start") == 0
    check_same(whole[duration], tmp_path)


def check_same(whole: Path, killed: Path) -> None:
    """The only runs in these folders of outputs ended in the same bits."""
    runs = [next((outputs / "runs").iterdir()) for outputs in (whole, killed)]
    assert len(list((killed / "runs").iterdir())) == 1
    for name in ("last", "best"):
        one, other = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in runs)
        assert one["global_step"] == other["global_step"]
        assert one["state_dict"].keys() == other["state_dict"].keys()
        for key, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][key]), f"{name}: {key} is different"
    one, other = (json.loads((run / "summary.json").read_text()) for run in runs)
    assert one["status"] == other["status"] == "finished"
    assert one["best"] == other["best"]
    assert logged(runs[0]) == logged(runs[1]), "rows were written twice, or lost, or are different"


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what the clock decides."""
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if k != "seconds" and not k.endswith("_per_second")} for row in rows]
