"""Every task with every trainer, precision and limit: it runs with its pictures, or is refused in a sentence before."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

import epochal
from epochal.data import Adding
from epochal.tasks.base import at_least_single
from helpers.samples import text_file
from helpers.training import train

SIZES = (
    *("dataset.train_size=32", "dataset.validation=12", "dataset.test=20"),
    *("dataset.batch_size=8", "dataset.eval_batch_size=8"),
)
RECURRENT = ("model=lstm", "model.hidden_size=8")
SMALL = ("model.depth=1", "model.embed_dim=8", "model.num_heads=2")
WRITES = ("++task.generated=4", "++task.beam_size=2")
KINDS: dict[str, tuple[str, ...]] = {
    "images": ("model=cnn", "dataset=digits", "++task.shifts=[1]", *SIZES),
    "attention": ("model=vit", *SMALL, "model.patch_size=4", "dataset=digits", *SIZES),
    "texts": (*RECURRENT, "dataset=sentences", "dataset.path=texts.csv", *SIZES),
    "series": (*RECURRENT, "dataset=adding", "dataset.length=4", *SIZES),
    "steps": (*RECURRENT, "dataset=copy", "dataset.length=2", "dataset.symbols=2", *SIZES),
    "videos": (*RECURRENT, "dataset=moving_digits", "dataset.source=digits", "dataset.length=2", *SIZES),
    "language": (
        *("model=gpt", *SMALL, "dataset=text", "dataset.path=text.txt", "dataset.context_length=8"),
        *("++task.sample_length=3", "dataset.batch_size=8", "dataset.eval_batch_size=8"),
    ),
    "translation": (
        "model=seq2seq_attention",
        "model.hidden_size=8",
        "dataset=reverse",
        "dataset.length=3",
        *WRITES,
        *SIZES,
    ),
    "transformer": ("model=transformer", *SMALL, "dataset=reverse", "dataset.length=3", *WRITES, *SIZES),
    "captions": (
        *(
            "model=captioner",
            "model.embed_dim=8",
            "dataset=digit_captions",
            "dataset.source=digits",
            "dataset.length=1",
        ),
        *(*WRITES, *SIZES),
    ),
    "gan": ("model=gan", "model.width=4", "dataset=digits", *SIZES),
    "patches": ("model=vit", "task=masked_patch", *SMALL, "model.patch_size=4", "dataset=digits", *SIZES),
}
TRAINERS: dict[str, tuple[str, ...]] = {
    "debug": ("trainer=debug",),
    "overfit": ("trainer=overfit", "duration=4steps"),
    "a test batch": ("trainer.limit_test_batches=1",),
    "no test": ("trainer.limit_test_batches=0",),
    "half": ("trainer.limit_test_batches=0.5", "trainer.limit_val_batches=0.5", "+trainer.limit_train_batches=0.5"),
    "no validation": ("trainer.limit_val_batches=0",),
    "clipped": (
        "trainer.gradient_clip_val=0.5",
        "trainer.val_check_interval=0.5",
        "trainer.check_val_every_n_epoch=1",  # a GPT's own is null: batches are counted across epochs
    ),
    "bf16-true": ("trainer.precision=bf16-true",),
    "bf16-mixed": ("trainer.precision=bf16-mixed",),
    "64-true": ("trainer.precision=64-true",),
    "64": ("trainer.precision=64",),
}
QUICK = (
    *(
        ("texts", "debug"),
        ("images", "a test batch"),
        ("transformer", "half"),
        ("language", "overfit"),
        ("texts", "no test"),
    ),
    *(
        ("images", "bf16-true"),
        ("attention", "64-true"),
        ("series", "bf16-true"),
        ("videos", "64-true"),
        ("language", "64"),
    ),
)


def run(kind: str, trainer: str) -> None:
    Path("texts.csv").write_text("text,label\n" + 20 * "fine film,1\ndull,0\na great great film,1\nbad and dull,0\n")
    text_file(Path("text.txt"), lines=120)  # two batches of validation
    given = dict(argument.split("=", 1) for argument in (*KINDS[kind], "duration=3steps", *TRAINERS[trainer]))
    if trainer == "overfit":
        given.pop("dataset.train_size", None)  # the trainer's is one batch
    job = train(*(f"{key}={value}" for key, value in given.items()), "log_every=1", "logger=none")
    metrics = json.loads((job.run.folder / "summary.json").read_text())["metrics"]
    assert math.isfinite(metrics["train/loss"])
    tested = {name for name in metrics if name.startswith("test/")}
    assert bool(tested) == (trainer != "no test")
    assert all(math.isfinite(metrics[name]) for name in tested)
    pictures = [path.name for path in job.run.pictures.iterdir()]
    assert any(name.startswith("test_") for name in pictures) == (trainer != "no test")
    assert epochal.load(job.run.folder).model is not None


@pytest.mark.parametrize(("kind", "trainer"), QUICK)
def test_a_trainer_draws_and_tests(kind, trainer, home):
    run(kind, trainer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "trainer"), [pair for pair in itertools.product(KINDS, TRAINERS) if pair not in QUICK]
)
def test_every_task_goes_with_every_trainer(kind, trainer, home):
    run(kind, trainer)


REFUSED = {
    "trainer.limit_test_batches=0.01": "trainer.limit_test_batches=0.01 is none of the test part's batches (1)",
    "trainer.limit_val_batches=0.01": "is none of the val part's batches (1)",
    "+trainer.limit_train_batches=0.001": "trainer.limit_train_batches=0.001 is none of the train part's batches (20)",
    "trainer.precision=16-mixed": "trainer.precision=16-mixed needs a GPU",
    "trainer.precision=16-true": "trainer.precision=16-true loses small gradients",
    "trainer.precision=16": "trainer.precision=16 needs a GPU",
    "trainer.precision=transformer-engine": "needs an NVIDIA GPU and the package transformer_engine",
    "trainer.precision=bf16-true callbacks.ema=0.9": "an average of so few digits stands still",
    "trainer.num_nodes=2": "trainer.num_nodes=2 needs a launcher",
    "trainer.devices=x": "trainer.devices=x must be a number of devices, auto, or a list",
    "trainer.devices=1.5": "must be a number of devices",
    "trainer.devices=0": "trainer.devices=0 must be above zero",
    "trainer.strategy=ddp_spawn": "trainer.strategy=ddp_spawn copies a process that has begun; ddp starts others",
    "trainer.strategy=xyz": "invalid strategy name",
    "trainer.accelerator=tpu": "torch_xla",
    "trainer.limit_val_batches=0 callbacks.early_stopping=2": "callbacks.early_stopping needs validations",
    "+trainer.log_every_n_steps=5": "trainer.log_every_n_steps is set by Epochal; give log_every=<steps>",
    "+trainer.num_sanity_val_steps=2": "trainer.num_sanity_val_steps is set by Epochal",
    "+trainer.barebones=true": "trainer.barebones is set by Epochal",
    "+trainer.profiler=xyz": "profiler",
    "+trainer.gradient_clip_algorithm=xyz": "gradient_clip_algorithm",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_a_trainer_cannot_do_is_said_before_a_run(refuse, arguments):
    if "GPU" in REFUSED[arguments] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    refuse("train", "model=mlp", *arguments.split(), "logger=none", says=(REFUSED[arguments],))


LEFTOVER = {
    "+trainer.max_epochs=5": "trainer.max_epochs belongs to a training",
    "+trainer.limit_train_batches=2": "trainer.limit_train_batches belongs to a training",
    "trainer.accumulate_grad_batches=3": "trainer.accumulate_grad_batches belongs to a training",
    "+trainer.foo=1": "There is no key trainer.foo.",
    "trainer.limit_test_batches=0": "trainer.limit_test_batches=0 leaves nothing to test",
    "trainer.limit_test_batches=0.01": "is none of the test part's batches",
    "trainer.limit_test_batches=-1": "trainer.limit_test_batches=-1 must be zero or more",
    "trainer.devices=2": "A run is tested on one device",
    "duration=5epochs": "There is no key duration",
    "dataset.test=0.5": "dataset.test goes with dataset=<other data>; without it",
    "dataset=digits dataset.batch_size=3": "dataset.batch_size belongs to a training",
    "dataset=sst2 dataset.tokenizer=bpe": "texts are read with the vocabulary of the run",
    "+seed=3": "There is no key seed: nothing reads it",
}


@pytest.mark.parametrize("argument", LEFTOVER)
def test_what_is_left_over_for_an_evaluation_is_said(refuse, copied, argument):
    copied("run", status="finished")
    refuse("evaluate", "run=run", *argument.split(), says=(LEFTOVER[argument],))


def test_a_limited_epoch_is_as_long_as_it_is(home):
    job = train("model=mlp", "model.hidden=[8]", "dataset=digits", "duration=2epochs", "+trainer.limit_train_batches=3")
    summary = json.loads((job.run.folder / "summary.json").read_text())
    assert (summary["steps"], summary["epochs"]) == (6, 2)


def test_a_loss_has_more_digits_than_weights_in_half_precision():
    half, double = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float64)
    assert (at_least_single(half).dtype, at_least_single(double).dtype) == (torch.float32, torch.float64)


def test_a_mean_in_bfloat16_counts_further_than_256(home):
    """Counted in the precision of the weights, the mean of 1,000 rows would be that of the first 256, about."""
    given = ("dataset=adding", "dataset.length=4", "dataset.train_size=8", "dataset.batch_size=8", "dataset.test=1000")
    job = train(
        *RECURRENT, *given, "dataset.validation=8", "duration=1steps", "trainer.precision=bf16-true", "logger=none"
    )
    job.task.float()
    data = Adding(name="adding", length=4, test=1000, validation=8, train_size=8, batch_size=8)
    data.prepare()
    batch = next(iter(data.predict_dataloader()))  # 256 rows
    whole = torch.cat([b.targets for b in data.predict_dataloader()])
    assert len(batch.targets) == 256
    with torch.no_grad():
        outputs = torch.cat([job.task(b.inputs) for b in data.predict_dataloader()])
    assert job.task.measured["test/mae"] == pytest.approx((outputs - whole).abs().mean().item(), rel=0.02)
