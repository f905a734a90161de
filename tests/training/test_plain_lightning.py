"""Tasks and data with Lightning's own trainer, without configs: fit, validate, test, predict, and its checkpoints."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from epochal import data, models, optim, tasks
from epochal.core.errors import ConfigError
from helpers.samples import text_file
from helpers.training import train

SYNTHETIC = {"train_size": 32, "validation": 8, "test": 12, "batch_size": 8, "eval_batch_size": 8}
VIT = {"depth": 1, "embed_dim": 8, "num_heads": 2, "patch_size": 4}
TEXTS = [("fine film", 1), ("dull", 0), ("a great great film", 1), ("bad and dull", 0)]


def digits(**options: Any) -> data.ImageData:
    return data.ImageData(name="digits", path="package:digits.npz", **{**SYNTHETIC, **options})


def sentences() -> data.SentenceData:
    Path("texts.csv").write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in 15 * TEXTS))
    return data.SentenceData(name="texts", path="texts.csv", **SYNTHETIC)


def text() -> data.TextData:
    path = text_file(Path("text.txt"), lines=8)
    sizes = {"context_length": 8, "batch_size": 8, "eval_batch_size": 8, "validation": 0.1}
    return data.TextData(name="text", path=str(path), **sizes)


# the data, the network and its options, the task and its options, the shape of the last prediction
KINDS: dict[str, tuple[Any, Any, dict[str, Any], Any, dict[str, Any], tuple[int, ...]]] = {
    "classification": (digits, models.MLP, {"hidden": [8]}, tasks.Classification, {}, (4, 10)),
    "texts": (sentences, models.RNN, {"hidden_size": 8}, tasks.Classification, {}, (4, 2)),
    "regression": (
        partial(data.Adding, name="adding", length=4, **SYNTHETIC),
        *(models.RNN, {"hidden_size": 8}, tasks.Regression, {}, (4, 1)),
    ),
    "sequence_labeling": (
        partial(data.Copy, name="copy", length=2, symbols=2, **SYNTHETIC),
        *(models.RNN, {"hidden_size": 8}, tasks.SequenceLabeling, {}, (4, 6, 8)),
    ),
    "videos": (
        partial(data.MovingDigits, name="moving", source="digits", length=3, **SYNTHETIC),
        *(models.RNN, {"hidden_size": 8}, tasks.SequenceLabeling, {}, (4, 3, 10)),
    ),
    "language_modeling": (
        *(text, models.GPT, {"depth": 1, "embed_dim": 8, "num_heads": 2}),
        *(tasks.LanguageModeling, {"sample_length": 3}, (2, 8)),
    ),
    "translation": (
        partial(data.Reverse, name="reverse", length=3, fixed=True, **SYNTHETIC),
        *(models.Transformer, {"depth": 1, "embed_dim": 8, "num_heads": 2}, tasks.Translation, {"beam_size": 2}, (4,)),
    ),
    "captioning": (
        partial(data.DigitCaptions, name="captions", source="digits", length=1, **SYNTHETIC),
        *(models.Captioner, {"embed_dim": 8}, tasks.Captioning, {"beam_size": 2}, (4,)),
    ),
    "adversarial": (digits, models.GAN, {"width": 4}, tasks.Adversarial, {}, (4, 1, 8, 8)),
    "masked_patch": (digits, models.ViT, VIT, tasks.MaskedPatch, {}, (4, 4, 16)),
    "next_patch": (digits, models.ViT, VIT, tasks.NextPatch, {}, (4, 4, 16)),
}
OPTIONS = {
    "optimizer": lambda network: torch.optim.Adam(network.parameters(), lr=1e-2),
    "scheduler": partial(optim.cosine, warmup=0.1, final=0.0),
    "log_every": 2,
}


def trainer(**options: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(**quiet, **{"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options})


def network(kind: str) -> Any:
    make, model, options, task, *_ = KINDS[kind]
    prepared = make()
    prepared.learns = task.target
    prepared.prepare()
    return model.for_data(*prepared.specs(prepared.learns), **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_lightnings_trainer_fits_tests_predicts_and_loads(kind, home):
    make, _, _, of_kind, options, shape = KINDS[kind]
    task, rows = of_kind(model=network(kind), **OPTIONS, **options), make()  # not prepared: setup does it
    logger = pl.loggers.CSVLogger(home)
    alone = trainer(logger=logger, enable_checkpointing=True, default_root_dir=home)
    alone.fit(task, rows)
    assert alone.global_step == task.total_steps == alone.num_training_batches
    validated, tested = alone.validate(task, rows, verbose=False)[0], alone.test(task, rows, verbose=False)[0]
    assert torch.isfinite(torch.tensor([validated["val/loss"], tested["test/loss"]])).all()
    with Path(logger.log_dir, "metrics.csv").open() as stream:
        losses = [row["train/loss"] for row in csv.DictReader(stream) if row["train/loss"]]
    assert len(losses) == -(-alone.global_step // 2), "a row each two steps, and the last"

    predicted = alone.predict(task, rows)
    last = predicted[-1][0] if isinstance(predicted[-1], tuple) else predicted[-1]
    assert tuple(last.shape)[: len(shape)] == shape
    again = of_kind.load_from_checkpoint(
        alone.checkpoint_callback.best_model_path, model=network(kind), **OPTIONS, **options
    )
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), task.state_dict().values(), strict=True))


def test_predictions_come_in_the_order_of_the_rows(home):
    rows = sentences()
    task = tasks.Classification(model=network("texts"), **OPTIONS)
    predicted = torch.cat(trainer().predict(task, rows))
    inputs, lengths = rows.encode([rows.text("test", number) for number in range(12)])
    torch.testing.assert_close(predicted, task.eval()(inputs, lengths))


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_a_run_is_loaded_and_trained_further(home):
    job = train("model=mlp", "model.hidden=[8]", "dataset=digits", "duration=3steps", "logger=none")
    model = models.MLP.for_data(*job.data.specs("classes"), hidden=[8])
    loaded = tasks.Classification.load_from_checkpoint(job.run.best, model=model, **OPTIONS)
    saved = torch.load(job.run.best, weights_only=True)["state_dict"]
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in saved.items())
    assert "test/accuracy" in trainer().test(loaded, digits(), verbose=False)[0]


def test_the_training_ends_where_the_schedule_ends(home):
    task = tasks.Classification(model=network("classification"), total_steps=3, **OPTIONS)
    alone = trainer(max_epochs=9)
    alone.fit(task, digits())
    assert alone.global_step == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            lambda task: trainer().fit(task, data.Adding(name="a", length=4, **SYNTHETIC)),
            "Classification learns classes, and Adding has numbers",
        ),
        (
            lambda task: trainer().validate(task, sentences()),
            "MLP reads images and series, but SentenceData yields tokens",
        ),
        (lambda task: trainer(max_epochs=-1).fit(task, digits()), "give pl.Trainer max_epochs or max_steps"),
        (lambda task: trainer(overfit_batches=1).fit(task, digits()), "orders its batches itself"),
        (lambda task: trainer().validate(task, torch.utils.data.DataLoader([1])), "to the trainer as a data module"),
        (lambda task: task.data, "has no data yet"),
        (lambda task: digits().specs("classes"), "ImageData has read nothing yet; call prepare"),
        (lambda task: sentences().rows("test"), "SentenceData has read nothing yet; call prepare"),
        (lambda task: digits().state(), "call prepare"),
    ],
)
def test_what_cannot_go_together_is_said_in_a_sentence(wrong, says, home):
    task = tasks.Classification(model=network("classification"), **OPTIONS)
    with pytest.raises(ConfigError, match=says) as error:
        wrong(task)
    assert len(str(error.value).splitlines()) == 1
