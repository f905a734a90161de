"""A killed run goes on to the same bits as one that was never killed."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.files import Lock
from epochal.data.batching import BatchOrder
from epochal.training.build import build
from epochal.training.resume import claim
from epochal.training.run_folder import Run
from helpers.kills import train_until_killed_at
from helpers.training import composed, in_new_process, train, train_until_killed

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
        "dataset.train_size=632",  # 79 batches, so an epoch's last step has three
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
    "masked words, low-rank additions": (
        "model=bert",
        "model.depth=1",
        "dataset=text",
        "trainer.val_check_interval=9",
        "trainer.check_val_every_n_epoch=null",
        "duration=50steps",
        "task=masked_lm",
        "finetune.lora.rank=2",
    ),
    "gan": (
        "model=gan",
        "model.width=8",
        "dataset=digits",
        "dataset.train_size=320",
        "dataset.batch_size=32",
        "duration=5epochs",
    ),
    "gan, a critic": (
        "model=wgan_gp",
        "model.width=8",
        "model.conditional=true",
        "dataset=digits",
        "dataset.train_size=320",
        "dataset.batch_size=32",
        "duration=5epochs",
    ),
    "gan, spectral norm and sample quality": (
        "model=gan",
        "model.width=8",
        "model.discriminator_norm=none",
        "model.spectral_norm=true",
        "dataset=digits",
        "dataset.train_size=320",
        "dataset.batch_size=32",
        "duration=5epochs",
        "task=adversarial",
        "task.features={classifier}",
    ),
}
LONG = (  # in slow tests
    *("convolution with averaged weights", "masked words, low-rank additions"),
    *("gan", "gan, a critic", "gan, spectral norm and sample quality"),
)


@pytest.mark.parametrize("kind", [kind for kind in RUNS if kind not in LONG])
def test_a_run_killed_five_times_ends_in_the_same_bits(kind: str, tmp_path: Path) -> None:
    overrides = (*RUNS[kind], "logger=none", "trainer=cpu", "log_every=5", "callbacks.checkpoint_every=1")
    if "dataset=text" in overrides:
        text = tmp_path / "text.txt"
        text.write_text("To be, or not to be, that is the question. " * 200)
        overrides = (*overrides, f"dataset.path={text}")
    whole, killed = (*overrides, f"output_dir={tmp_path / 'whole'}"), (*overrides, f"output_dir={tmp_path / 'killed'}")
    assert in_new_process(train_until_killed, whole, None, "on_train_start") == 0

    chance = random.Random(kind)
    for kill in range(5):
        where = {1: "on_validation_start", 3: "on_validation_end"}.get(kill, chance.choice(HOOKS))
        code = in_new_process(train_until_killed, (*killed, "resume=auto"), chance.randint(0, 2), where)
        assert code == -signal.SIGKILL
    assert in_new_process(train_until_killed, (*killed, "resume=auto"), None, "on_train_start") == 0
    check_same(tmp_path / "whole", tmp_path / "killed")


SHORT = ("model=mlp", "dataset=digits", "dataset.train_size=320", "dataset.batch_size=32", "logger=none", "trainer=cpu")
# moments around the saving of a pair of checkpoints: before last.ckpt is there, before the link and before best.ckpt is
# replaced, and after it
SAVING = (
    "replace checkpoints/last.ckpt",
    "link checkpoints/.best.ckpt.part",
    "replace checkpoints/best.ckpt",
    "after replace checkpoints/best.ckpt",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Outputs of runs that were not killed, by their duration."""
    outputs = {duration: tmp_path_factory.mktemp("whole") for duration in ("1epochs", "3epochs")}
    for duration, folder in outputs.items():
        overrides = (*SHORT, f"duration={duration}", f"output_dir={folder}")
        assert in_new_process(train_until_killed, overrides, None, "on_train_start") == 0
    return outputs


@pytest.mark.parametrize(
    ("duration", "place"), [*(("3epochs", (moment, 2)) for moment in SAVING), ("1epochs", (SAVING[1], 1))]
)
def test_a_run_killed_while_it_saves_ends_with_the_same_pair_of_checkpoints(
    duration: str, place: tuple[str, int], whole: dict[str, Path], tmp_path: Path
) -> None:
    killed = (*SHORT, f"duration={duration}", "resume=auto")
    assert in_new_process(train_until_killed_at, killed, tmp_path, place) == -signal.SIGKILL
    assert in_new_process(train_until_killed_at, killed, tmp_path, None) == 0
    check_same(whole[duration], tmp_path)


def test_a_run_that_another_process_trains_is_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = (*SHORT, "model.hidden=[8]", "duration=1epochs", f"output_dir={tmp_path}", "resume=auto")
    with build(composed(*auto), overrides=auto) as job:
        for again in (auto, (f"resume={job.run.folder}",)):
            says = f"is being trained by process {os.getpid()} on {socket.gethostname()}; it can be resumed when"
            with pytest.raises(ConfigError, match=says):
                build(composed(*again), overrides=again)
        # a process that looked for runs before that one made its folder
        monkeypatch.setattr("epochal.training.resume.resumed", lambda config, _: (config, None))
        monkeypatch.setattr("epochal.training.build.resumed", lambda config, _: (config, None))
        with pytest.raises(ConfigError, match="The same run was begun at the same time: .* by process"):
            build(composed(*auto), overrides=auto)
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.parametrize("crashed", [True, False])
def test_the_lock_of_another_machine_is_waited_for_as_a_crash_would_end_it(
    crashed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, other = Run.create(tmp_path, "x"), Run.create(tmp_path, "y")
    other.move(run.folder)
    other.lock = Lock(run.lock.path)
    assert other.claim()
    monkeypatch.setattr("epochal.core.files.Lock.holder", lambda _: ("7", "elsewhere"))
    monkeypatch.setattr("epochal.training.resume.LEASE", 0.05)
    monkeypatch.setattr("time.sleep", lambda _: other.release() if crashed else None)
    if crashed:
        claim(run)
    else:
        with pytest.raises(ConfigError, match="no longer running, delete .*lock and resume again"):
            claim(run)
    assert "by process 7 on elsewhere; waiting up to" in capfd.readouterr().err


def test_numbers_drawn_in_a_test_do_not_depend_on_the_epochs_before_it() -> None:
    seeds = {}
    for split, once in (("val", False), ("test", True)):
        order = BatchOrder(count=8, batch_size=4, seed=1, shuffle=False, once=once)
        for epoch in (0, 3):
            order.set_epoch(epoch)
            seeds[split, epoch] = [indices.seed for indices in order]
    assert seeds["test", 0] == seeds["test", 3] == seeds["val", 0] != seeds["val", 3]


KILLS = {"images": 10, "text": 10, "gan": 10, "convolution with averaged weights": 10}
KILLS |= dict.fromkeys(LONG, 10)
AT_ANY_TIME = 3  # of the kills of each kind, after a share of the time that the run takes


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLS)
def test_a_run_killed_at_any_place_and_time_ends_in_the_same_bits(kind: str, tmp_path: Path) -> None:
    overrides = (*RUNS[kind], "logger=none", "trainer=cpu", "log_every=5", "callbacks.checkpoint_every=4")
    if "dataset=text" in overrides:
        (tmp_path / "text.txt").write_text("To be, or not to be, that is the question. " * 200)
        overrides = (*overrides, f"dataset.path={tmp_path / 'text.txt'}")
    if "sample quality" in kind:
        learned = train("model=mlp", "dataset=digits", "duration=1epochs", "logger=none", f"output_dir={tmp_path}")
        overrides = tuple(override.format(classifier=learned.run.folder) for override in overrides)
    if "low-rank" in kind:
        parent = tuple(override for override in overrides if not override.startswith(("finetune.", "duration=")))
        learned = train(*parent, "duration=2steps", f"output_dir={tmp_path / 'parent'}")
        overrides = (*overrides, f"init_from={learned.run.folder}")
    counted = tmp_path / "counted.json"
    assert in_new_process(train_until_killed_at, overrides, tmp_path / "whole", None, counted) == 0
    known = json.loads(counted.read_text())
    failures = []
    for number, place in enumerate(chosen(kind, known["places"], known["seconds"])):
        outputs = tmp_path / str(number)
        killed = (*overrides, "resume=auto")
        at, seconds = (None, place) if isinstance(place, float) else (place, None)
        code = in_new_process(train_until_killed_at, killed, outputs, at, seconds=seconds)
        while code == 0 and seconds is not None:  # it had ended before: that is no kill
            outputs, seconds = outputs.with_name(f"{outputs.name}_again"), seconds / 2
            code = in_new_process(train_until_killed_at, killed, outputs, at, seconds=seconds)
        try:
            assert code == -signal.SIGKILL, f"exit code {code}"
            assert in_new_process(train_until_killed_at, killed, outputs, None) == 0, "it did not go on"
            check_same(tmp_path / "whole", outputs)
        except AssertionError as error:
            failures.append(f"killed at {place}: {str(error).splitlines()[0]}")
    assert not failures, "\n".join([f"{len(failures)} of {KILLS[kind]} runs ({kind}) ended otherwise", *failures])


def chosen(kind: str, places: dict[str, int], seconds: float) -> list[tuple[str, int] | float]:
    """Where the runs of this kind are killed: all kinds together come to every place that all of them have.

    Args:
        places: How often a run comes to each.
        seconds: How long it takes.
    """
    chance = random.Random(kind)
    names = sorted(places)
    first = sum(list(KILLS.values())[: list(KILLS).index(kind)]) - AT_ANY_TIME * list(KILLS).index(kind)
    count = KILLS[kind] - AT_ANY_TIME
    taken = [names[number % len(names)] for number in range(first, first + count)]
    return [
        *((name, chance.randint(1, places[name])) for name in taken),
        *(round(seconds * chance.random(), 3) for _ in range(AT_ANY_TIME)),
    ]


def check_same(whole: Path, killed: Path) -> None:
    """The only runs in these folders of outputs ended in the same bits."""
    (one_run,), (other_run,) = runs = [
        [file.parent for file in (outputs / "runs").glob("*/config.yaml")] for outputs in (whole, killed)
    ]
    for name in ("last", "best"):
        one, other = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for (run,) in runs)
        differing = [key for key in different(one, other) if not FREE.search(key)]
        assert not differing, f"{name}.ckpt is different in {', '.join(differing[:5])}"
    one, other = (json.loads((run / "summary.json").read_text()) for (run,) in runs)
    assert one["status"] == other["status"] == "finished"
    differing = [key for key in different(one, other) if not FREE.search(key)]
    assert not differing, f"summary.json is different in {', '.join(differing[:5])}"
    assert logged(one_run) == logged(other_run), "rows were written twice, or lost, or are different"
    one, other = files(one_run), files(other_run)
    assert one == other, f"other files: {', '.join(str(name) for name, _ in one.items() ^ other.items())}"


# what may differ: what clock, machine and code decide; what a test names; and how often Lightning has begun an epoch,
# of which a resumed one is begun twice
FREE = re.compile(
    r"seconds$|_per_second$|trained_steps$|peak_memory_mb$|git_commit$|output_dir$|resume$|epoch_progress.*(ready|started)$"
)


def different(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """The dotted keys at which two nested containers differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            yield from different(one.get(name), other.get(name), f"{key}.{name}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other)):
            yield from different(*pair, f"{key}.{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield key
    elif one != other:
        yield key


def files(run: Path) -> dict[str, bytes]:
    """The names of a run's files, and what is in its pictures and texts."""
    found = {str(file.relative_to(run)): file for file in run.rglob("*") if file.is_file()}
    return {name: file.read_bytes() if file.parent.name == "pictures" else b"" for name, file in found.items()}


def logged(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what the clock decides."""
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if k != "seconds" and not k.endswith("_per_second")} for row in rows]
