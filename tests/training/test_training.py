"""The main job, end to end: what a run learns, what it leaves, and how long it is."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from conftest import ROOT
from epochal.core.errors import DivergedError
from epochal.core.files import AXES
from epochal.training.trainer import available_threads
from helpers.samples import text_file
from helpers.training import train

SMALL = ("model=mlp", "model.hidden=[32]", "dataset=digits", "logger=none", "trainer=cpu", "dataset.batch_size=32")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_the_first_run_is_accurate_and_shows_it(command, home):
    outcome = command("train", "duration=16epochs")
    assert outcome.status == 0, outcome.error
    folder = next((home / "outputs" / "runs").iterdir())
    assert f"python evaluate.py run=outputs/runs/{folder.name}" in outcome.out
    for words in ("61,706", "833,040", "test/accuracy", "examples/s"):
        assert words in outcome.out
    assert summary(folder)["metrics"]["test/accuracy"] > 0.95
    assert summary(folder)["best"]["value"] > 0.95


def test_a_run_folder_holds_what_other_programs_rely_on(home):
    job = train(*SMALL, "duration=3epochs", "log_every=10", "seed=7", "dataset.train_size=0.5")
    folder = job.run.folder
    assert folder.parent == home / "outputs" / "runs"
    assert folder.name.endswith("_mlp_digits_s7")
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {"config.yaml", "overrides.yaml", "metrics.csv", "summary.json", "checkpoints", "pictures"}
    assert OmegaConf.load(folder / "config.yaml").task.name == "classification"
    assert "seed=7" in OmegaConf.load(folder / "overrides.yaml")

    table = rows(folder)
    assert list(table[0])[:4] == list(AXES)
    steps = [int(row["step"]) for row in table]
    assert steps == sorted(set(steps)), "one row a step"
    assert {int(row["step"]) for row in table if row["train/loss"]} == {10, 20, 30, 40, 50, 60}
    last = table[-1]
    assert float(last["epoch"]) == 3
    assert int(last["examples"]) == int(last["step"]) * 32
    for name in ("train/gradient_norm", "train/learning_rate", "train/examples_per_second", "val/accuracy"):
        assert last[name], name

    keys = "status error model dataset task seed metrics best parameters flops examples_per_second seconds"
    keys += " peak_memory_mb steps epochs git_commit versions data_fingerprint wandb_id"
    known = summary(folder)
    assert set(keys.split()) <= set(known)
    assert (known["status"], known["steps"], known["epochs"], known["seed"]) == ("finished", 60, 3, 7)
    assert known["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
    assert known["flops"] == 2 * (64 * 32 + 32 * 10)
    for name in ("last", "best"):
        content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["epochal"]["specs"][0] == {"kind": "Images", "channels": 1, "height": 8, "width": 8}
    for picture in (folder / "pictures").glob("*.png"):
        assert min(Image.open(picture).size) > 50
    pictures = {path.name for path in (folder / "pictures").iterdir()}
    assert {"test_confusion.png", "test_predictions.png", "curve_loss.png", "predictions_000060.png"} <= pictures


def test_a_language_model_learns_and_writes(tmp_path, home):
    text = text_file(tmp_path / "text.txt")
    job = train(
        *("model=lstm", "dataset=text", f"dataset.path={text}", "dataset.tokenizer=character", "logger=none"),
        *(
            "duration=60steps",
            "dataset.batch_size=4",
            "task=language_modeling",
            "task.sample_length=20",
            "log_every=10",
        ),
    )
    table = rows(job.run.folder)
    losses = [float(row["train/loss"]) for row in table if row["train/loss"]]
    assert losses[-1] < 0.7 * losses[0]
    metrics = summary(job.run.folder)["metrics"]
    assert metrics["val/perplexity"] == pytest.approx(2.718281828 ** metrics["val/loss"], rel=1e-4)
    assert metrics["val/bits_per_character"] == pytest.approx(metrics["val/loss"] / 0.6931472, rel=1e-4)
    samples = sorted((job.run.folder / "pictures").glob("samples_*.txt"))
    assert samples
    assert (job.run.folder / "pictures" / "test_samples.txt").read_text().strip()


def test_a_gan_counts_batches_and_draws_the_same_noise(home):
    gan = (
        "model=gan",
        "model.width=4",
        "dataset=digits",
        "dataset.batch_size=32",
        "duration=2epochs",
        "logger=none",
        "log_every=10",
    )
    job = train(*gan, "trainer.gradient_clip_val=0.001")
    known = summary(job.run.folder)
    assert known["steps"] == job.trainer.global_step == 80, "two optimisers, one step a batch"
    table = rows(job.run.folder)
    for name in ("generator_loss", "discriminator_loss", "d_real", "d_fake"):
        assert all(float(row[f"train/{name}"]) > 0 for row in table if row["train/loss"]), name
    for name in ("generator_gradient_norm", "discriminator_gradient_norm"):
        assert all(float(row[f"train/{name}"]) > 0.001 for row in table if row["train/loss"]), "before they are clipped"
    assert "train/gradient_norm" not in table[0]
    pictures = sorted((job.run.folder / "pictures").glob("samples_*.png"))
    assert [picture.stem for picture in pictures] == ["samples_000040", "samples_000080"]
    assert Image.open(pictures[0]).size == Image.open(pictures[1]).size


@pytest.mark.parametrize(
    ("duration", "steps"), [("2epochs", 80), ("7steps", 7), ("100examples", 4), ("0.5epochs", 20), ("1e2 examples", 4)]
)
def test_a_duration_is_as_long_as_it_says(home, duration, steps):
    job = train(*SMALL, f"duration={duration}")
    assert summary(job.run.folder)["steps"] == steps
    assert int(rows(job.run.folder)[-1]["step"]) == steps, "and validated at its end"
    assert job.trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0] < 1e-4, "and the schedule is at its end"


def test_minutes_become_steps_that_are_kept_and_can_be_repeated(home):
    job = train(*SMALL, "duration=0.02minutes")
    config = OmegaConf.load(job.run.folder / "config.yaml")
    steps = summary(job.run.folder)["steps"]
    assert steps > 5
    assert config.duration == f"{steps}steps"
    assert config.requested.duration == "0.02minutes"
    again = train(*SMALL, f"duration={steps}steps")
    for one, other in zip(job.task.parameters(), again.task.parameters(), strict=True):
        assert torch.equal(one, other)


def test_accumulated_batches_learn_like_one_large_batch(home):
    data = (
        "dataset.train_size=512",
        "dataset.crop_padding=0",
        "optimizer=sgd",
        "scheduler=constant",
        "optimizer.lr=0.01",
        "duration=8steps",
    )
    small = train(*SMALL, *data, "dataset.batch_size=16", "trainer.accumulate_grad_batches=4")
    assert summary(small.run.folder)["steps"] == 8
    assert int(rows(small.run.folder)[-1]["examples"]) == 8 * 64
    large = train(*SMALL, *data, "dataset.batch_size=64")
    for one, other in zip(small.task.parameters(), large.task.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("batches", [1, 3])
def test_the_gradient_norm_is_logged_before_it_is_clipped(home, batches):
    small = ("duration=2steps", "log_every=1", f"trainer.accumulate_grad_batches={batches}")
    job = train(*SMALL, *small, "trainer.gradient_clip_val=0.001")
    assert all(float(row["train/gradient_norm"]) > 0.01 for row in rows(job.run.folder))


@pytest.mark.parametrize(("model", "networks"), [("mlp", {"MLP"}), ("gan", {"Generator", "Discriminator"})])
def test_compile_compiles_every_network_that_a_step_calls(home, monkeypatch, model, networks):
    called = set()

    def compiled(function, *args, **kwargs):
        def call(*inputs, **options):
            called.add(type(function.__self__).__name__)
            return function(*inputs, **options)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    train(f"model={model}", "dataset=digits", "logger=none", "trainer=cpu", "duration=1steps", "compile=true")
    assert called == networks


def test_the_last_step_of_an_epoch_counts_the_batches_that_it_has(home):
    data = ("dataset.train_size=96", "dataset.batch_size=16", "trainer.accumulate_grad_batches=4", "log_every=1")
    job = train(*SMALL, *data, "duration=2epochs")
    table = [row for row in rows(job.run.folder) if row["train/loss"]]
    assert [int(row["examples"]) for row in table] == [64, 96, 160, 192]
    assert [float(row["epoch"]) for row in table] == [0.5, 1, 1.5, 2]
    assert summary(train(*SMALL, *data, "duration=100examples").run.folder)["steps"] == 3


def test_early_stopping_stops_and_the_best_is_tested(home):
    job = train(*SMALL, "duration=60epochs", "callbacks.early_stopping=2", "optimizer.lr=0.02")
    known = summary(job.run.folder)
    assert known["status"] == "finished"
    assert known["steps"] < known["total_steps"] == 2400
    assert known["steps"] - known["best"]["step"] <= 2 * 40


def test_averaged_weights_are_what_is_validated_kept_and_tested(home):
    plain = train(*SMALL, "duration=2epochs")
    averaged = train(*SMALL, "duration=2epochs", "callbacks.ema=0.9")
    kept = torch.load(averaged.run.last, weights_only=True)
    last = torch.load(plain.run.last, weights_only=True)["state_dict"]
    for name, value in kept["current_model_state"].items():
        assert torch.equal(value, last[name]), "averaging does not change the training"
        assert not torch.equal(value, kept["state_dict"][name])
    assert summary(averaged.run.folder)["metrics"]["val/loss"] != summary(plain.run.folder)["metrics"]["val/loss"]


def test_one_batch_can_be_learned_by_heart(home):
    job = train("model=mlp", "dataset=digits", "logger=none", "trainer=overfit", "optimizer.weight_decay=0")
    assert summary(job.run.folder)["metrics"]["train/loss"] < 0.01


def test_debug_takes_five_steps(home):
    assert summary(train("model=mlp", "dataset=digits", "logger=none", "trainer=debug").run.folder)["steps"] == 5


def test_mixed_precision_clips(home):
    job = train("model=gru", "dataset=digits", "logger=none", "trainer.precision=bf16-mixed", "duration=2steps")
    assert summary(job.run.folder)["steps"] == 2


def test_steps_after_the_last_validation_are_kept(home):
    job = train(*SMALL, "dataset.train_size=640", "duration=60steps", "trainer.check_val_every_n_epoch=2")
    assert torch.load(job.run.last, weights_only=True)["global_step"] == 60


def test_without_validation_the_last_weights_are_the_best(home):
    job = train(*SMALL, "duration=9steps", "trainer.limit_val_batches=0")
    assert summary(job.run.folder)["metrics"]["test/accuracy"] > 0
    assert torch.load(job.run.best, weights_only=True)["global_step"] == 9


def test_a_lost_loss_stops_the_run_and_keeps_the_last_good_checkpoint(command, home):
    outcome = command("train", *SMALL, "duration=9epochs", "optimizer=sgd", "scheduler=constant", "optimizer.lr=1e4")
    assert outcome.status == 1
    assert "The loss is " in outcome.error
    assert " at step " in outcome.error
    assert "finite" in outcome.error
    assert "Traceback" not in outcome.error
    folder = next((home / "outputs" / "runs").iterdir())
    assert summary(folder)["status"] == "failed"
    assert "The loss is" in summary(folder)["error"]


def test_a_parameter_that_is_not_finite_is_named_and_never_kept(home, monkeypatch):
    from epochal.tasks import Classification

    original = Classification.on_train_batch_start

    def poison(self, batch, batch_idx):
        original(self, batch, batch_idx)
        if self.global_step == 50:
            with torch.no_grad():
                next(iter(self.model.parameters())).fill_(float("nan"))

    monkeypatch.setattr(Classification, "on_train_batch_start", poison)
    with pytest.raises(DivergedError, match=r"at step 51; the first parameter that is not finite is \S+weight"):
        train(*SMALL, "duration=2epochs")
    folder = next((home / "outputs" / "runs").iterdir())
    kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 40
    assert (summary(folder)["diverged"], summary(folder)["sizes"]["test"]) == (True, 359)
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_a_multirun_trains_every_combination(command, home):
    outcome = command("train", "-m", "model=mlp,lenet", "dataset=digits", "seed=1,2", "duration=2steps", "logger=none")
    assert outcome.status == 0, outcome.error
    names = sorted(f.name.split("_", 2)[2] for f in (home / "outputs" / "runs").iterdir())
    assert [name[: len("lenet_digits_s1")] for name in names][:2] == ["lenet_digits_s1", "lenet_digits_s2"]
    assert len(names) == 4


def test_wandb_gets_config_curves_and_pictures_and_a_resumed_run_goes_on(home):
    overrides = (*SMALL, "logger=wandb", "duration=2epochs")
    job = train(*overrides)
    known = summary(job.run.folder)
    offline = list((job.run.folder / "wandb").glob(f"offline-run-*-{known['wandb_id']}"))
    assert len(offline) == 1
    assert list(offline[0].rglob("predictions*.png"))
    for _ in range(100):  # W&B's own process writes the records, on a busy machine a little later
        records = b"".join(file.read_bytes() for file in offline[0].glob("*.wandb"))
        if b"val/accuracy" in records:
            break
        time.sleep(0.1)
    for words in (b"train/gradient_norm", b"val/accuracy", b"learning_rate", b"batch_size", b"mlp-digits"):
        assert words in records, words
    known["status"] = "stopped"
    (job.run.folder / "summary.json").write_text(json.dumps(known))
    again = train(*overrides, "resume=auto")
    assert again.run.folder == job.run.folder
    assert summary(job.run.folder)["wandb_id"] == known["wandb_id"]


def test_tensorboard_is_a_choice(home):
    pytest.importorskip("tensorboard")
    job = train(*SMALL, "logger=tensorboard", "duration=2epochs")
    assert list((job.run.folder / "tensorboard").glob("events.*"))


TEXTS = ["model=seq2seq", "dataset=reverse", "dataset.train_size=160", "dataset.validation=9", "dataset.test=9"]
TEXTS += [
    "optimizer=sgd",
    "optimizer.lr=1",
    "model.dropout=0",
    "model.hidden_size=8",
    "model.embed_dim=8",
    "dataset.batch_size=4",
    "task.generated=2",
]


def on_devices(count: int, out: Path, *overrides: str) -> Path:
    """The folder of a run on so many processes."""
    arguments = [*overrides, "trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={count}"]
    arguments += ["log_every=1", "logger=none", f"output_dir={out}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, ROOT / "train.py", *arguments], check=True, env=environment, timeout=120)
    (folder,) = (out / "runs").iterdir()
    return folder


def test_two_processes_learn_like_one(home, tmp_path):
    losses = {}
    for devices in (1, 2):
        folder = on_devices(devices, tmp_path / str(devices), *TEXTS, "duration=8steps")
        losses[devices] = [float(row["train/loss"]) for row in rows(folder) if row["train/loss"]]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)


SMALL_BERT = "model=bert model.depth=1 model.embed_dim=8 model.num_heads=2 dataset=sentences dataset.tokenizer=byte"


@pytest.mark.parametrize(
    "line",
    [
        f"{SMALL_BERT} task=masked_lm dataset.batch_size=4 dataset.eval_batch_size=8 dataset.validation=9 dataset.test=9",
        pytest.param(
            "model=gan model.width=4 dataset=digits dataset.batch_size=32 task.test_images=64 task.validation_images=64",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["a last batch with rows for one of them", "two optimizers"],
)
def test_two_processes_come_to_the_end_of_the_test(home, tmp_path, line):
    if "sentences" in line:
        texts = [f"{'good' if n % 2 else 'bad'} film number {n},{n % 2}" for n in range(40)]
        Path("texts.csv").write_text("\n".join(["text,label", *texts]))
        line += " dataset.path=texts.csv"
    known = summary(on_devices(2, tmp_path, *line.split(), "duration=2steps"))
    assert known["status"] == "finished" and any(name.startswith("test/") for name in known["metrics"])


def test_a_recurrent_classifier_keeps_the_gradient_of_each_state(home):
    job = train("model=lstm", "model.hidden_size=8", "dataset=digits", "duration=3steps", "logger=none")
    (profile,) = job.run.pictures.glob("state_gradient_*.csv")
    head, *rows = profile.read_text().splitlines()
    assert head == "time step,gradient norm"
    norms = [float(row.split(",")[1]) for row in rows]
    assert len(norms) == 8 and min(norms) > 0  # a row of the image each
    decades = job.run.summary()["metrics"]["val/gradient_decades_lost"]
    assert decades == pytest.approx(math.log10(norms[-1] / norms[0]), abs=1e-4)
    assert profile.with_suffix(".png").exists()


def test_small_networks_take_one_thread_and_others_what_there_is(home):
    torch.set_num_threads(2)
    available_threads.cache_clear()
    small = ("model=mlp", "model.hidden=[8]", "duration=1steps", "logger=none")
    train(*small)
    assert torch.get_num_threads() == 1
    train("model=resnet", "model.depth=8", "dataset.batch_size=256", "duration=1steps", "logger=none")
    assert torch.get_num_threads() == 2
    train(*small, "threads=3")
    assert torch.get_num_threads() == 3
    available_threads.cache_clear()


def test_resume_auto_says_that_a_run_is_finished(command, home):
    arguments = ("train", "model=mlp", "model.hidden=[8]", "duration=2steps", "logger=none", "resume=auto")
    assert command(*arguments).status == 0
    again = command(*arguments)
    assert again.status == 0 and "Finished before: outputs/runs/" in again.out
    assert len(list((home / "outputs" / "runs").iterdir())) == 1
