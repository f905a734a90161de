"""Every network for sequences on every kind of data that it fits; the pairs are found, not listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from epochal.config.finalize import finalize
from epochal.config.instantiate import make_model, target_class
from epochal.config.objectives import common_tasks
from epochal.config.validate import validate
from epochal.core.specs import PAD
from epochal.data import Batch
from epochal.data.batching import BatchIndices
from epochal.tasks import Task
from epochal.training.factories import make_data, make_task
from helpers.training import CONF, composed, train

TASKS = ("classification", "sequence_labeling", "regression", "translation", "captioning", "language_modeling")
WORDS = ["the", "a", "good", "bad", "dull", "fine", "film", "story", "actor", "scene", "and", "but", "not", "very"]
DATA = {  # small, offline; {folder} is one of files made for the test
    "sentences": ("dataset.path={folder}/sentences.csv", "dataset.min_count=1", "dataset.validation=0.2"),
    "pairs": ("dataset.path={folder}/pairs", "dataset.source=de", "dataset.target=en", "dataset.vocab_size=300"),
    "text": ("dataset.path={folder}/text.txt", "dataset.context_length=16"),
    "reverse": ("dataset.length=6", "dataset.train_size=64"),
    "copy": ("dataset.length=3", "dataset.symbols=2", "dataset.train_size=64"),
    "adding": ("dataset.length=8", "dataset.train_size=64"),
    "moving_digits": ("dataset.source=digits", "dataset.length=4", "dataset.size=20", "dataset.train_size=64"),
    "digit_captions": ("dataset.source=digits", "dataset.train_size=64"),
    "digits": ("dataset.train_size=64",),
}
SMALL = {  # where the default would be slow
    "rnn": ("model.hidden_size=16",),
    "lstm": ("model.hidden_size=16",),
    "gru": ("model.hidden_size=16",),
    "gpt": ("model.embed_dim=16", "model.depth=1", "model.context_length=300"),
    "llama": ("model.embed_dim=16", "model.depth=1", "model.context_length=300"),
    "bert": ("model.embed_dim=16", "model.depth=1", "model.context_length=300"),
    "seq2seq": ("model.hidden_size=16", "model.embed_dim=16"),
    "transformer": ("model.embed_dim=16", "model.num_heads=2", "model.depth=1"),
    "transformer_encoder": ("model.embed_dim=16", "model.num_heads=2", "model.depth=1"),
    "captioner": (),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("texts")
    chance = torch.Generator().manual_seed(0)

    def sentence() -> str:
        count = int(torch.randint(2, 9, (), generator=chance))
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (count,), generator=chance).tolist())

    lines = [sentence() for _ in range(120)]
    labelled = "\n".join(f"{line},{'positive' if 'good' in line else 'negative'}" for line in lines)
    (made / "sentences.csv").write_text(f"sentence,label\n{labelled}\n")
    (made / "text.txt").write_text("\n".join(lines))
    (made / "pairs").mkdir()
    for split, part in (("train", lines[:80]), ("validation", lines[80:100]), ("test", lines[100:])):
        (made / "pairs" / f"{split}.en").write_text("\n".join(part) + "\n")
        (made / "pairs" / f"{split}.de").write_text("\n".join(line[::-1] for line in part) + "\n")
    return made


def pairs() -> list[tuple[str, str, str]]:
    """(model, data set, task) that go together."""
    found = []
    for model in SMALL:
        network = target_class(composed(f"model={model}").model._target_)
        for dataset in DATA:
            kind = target_class(composed(f"dataset={dataset}").dataset._target_)
            both = [task for task in TASKS if task in common_tasks(kind, network)]
            found += [(model, dataset, task) for task in both if kind.yields in network.reads]
    return found


def made(model: str, dataset: str, task: str, folder: Path) -> tuple[Task, Batch, int]:
    """The objective, a training batch as the network reads it, and what the batch weighs."""
    options = [option.format(folder=folder) for option in DATA[dataset]]
    config = composed(
        f"model={model}", f"dataset={dataset}", f"task={task}", *SMALL[model], *options, "dataset.batch_size=8"
    )
    config = finalize(config)
    validate(config)
    data = make_data(config)
    objective = make_task(config, make_model(config, *data.specs(data.learns)), total_steps=10)
    objective.trainer = type("Trainer", (), {"testing": False, "datamodule": data, "global_step": 0})()  # type: ignore[assignment]
    batch = data.rows("train")[0][BatchIndices(torch.arange(8), 0)]  # of unlike lengths
    batch = data.on_after_batch_transfer(batch, 0)
    return objective, batch, objective.weight(batch)


def answer(model: torch.nn.Module, batch: Batch, task: str) -> Tensor:
    if task in ("translation", "captioning"):
        return model(batch.inputs, batch.targets[:, :-1], *([] if batch.lengths is None else [batch.lengths]))
    return model(batch.inputs) if batch.lengths is None else model(batch.inputs, batch.lengths)


def test_the_networks_for_sequences_are_all_here() -> None:
    sequences = {"step_classes", "numbers", "target_text", "next_token", "masked_token"}
    names = {
        file.stem
        for file in (CONF / "model").glob("*.yaml")
        if sequences & set(target_class(composed(f"model={file.stem}").model._target_).heads)
    }
    assert names - {"char_rnn", "seq2seq_attention"} == set(SMALL)  # settings of others


@pytest.mark.parametrize(("model", "dataset", "task"), pairs())
def test_every_pair_that_fits_takes_a_step_and_padding_changes_nothing(
    model: str, dataset: str, task: str, folder: Path
) -> None:
    objective, batch, weight = made(model, dataset, task, folder)
    loss, metrics = objective.step(batch)
    loss.backward()
    assert torch.isfinite(loss) and weight > 0
    assert all(torch.isfinite(value).all() for value in metrics.values())
    assert all(p.grad is not None for p in objective.model.parameters() if p.requires_grad)

    network = objective.model.eval()
    whole, each_step = answer(network, batch, task), task in ("sequence_labeling", "language_modeling", "masked_lm")
    if batch.lengths is not None:
        wider = torch.cat((batch.inputs, torch.full_like(batch.inputs[:, :3], PAD)), dim=1)
        more = answer(network, batch._replace(inputs=wider), task)
        torch.testing.assert_close(more[:, : whole.shape[1]] if each_step else more, whole)
        for row, length in enumerate(batch.lengths.tolist()):  # alone, and with no padding at all
            alone = Batch(
                batch.inputs[row : row + 1, :length], batch.targets[row : row + 1], 0, batch.lengths[row : row + 1]
            )
            there = whole[row : row + 1, :length] if each_step else whole[row : row + 1]
            torch.testing.assert_close(answer(network, alone, task), there, rtol=1e-4, atol=1e-5)
    if task in ("translation", "captioning"):  # what is to be written later is not seen
        shorter = batch._replace(targets=batch.targets[:, :-1])
        torch.testing.assert_close(answer(network, shorter, task), whole[:, :-1], rtol=1e-4, atol=1e-5)


JOURNEYS = (  # model, data set, what is written
    ("lstm", "sentences", "test/accuracy"),
    ("transformer_encoder", "moving_digits", "test/accuracy"),
    ("lstm", "adding", "test/mae"),
    ("seq2seq", "pairs", "test/bleu"),
    ("transformer", "reverse", "test/exact"),
    ("captioner", "digit_captions", "test/exact"),
)


@pytest.mark.parametrize(("model", "dataset", "metric"), JOURNEYS)
def test_a_run_is_trained_tested_and_evaluated_again(
    model: str, dataset: str, metric: str, folder: Path, home: Path, command
) -> None:
    options = [option.format(folder=folder) for option in DATA[dataset]]
    job = train(f"model={model}", f"dataset={dataset}", *SMALL[model], *options, "dataset.batch_size=8", "duration=4steps", "logger=none", "trainer=cpu")  # fmt: skip
    known = json.loads((job.run.folder / "summary.json").read_text())
    assert known["status"] == "finished" and metric in known["metrics"]
    assert list((job.run.folder / "pictures").iterdir()), "something to look at"
    outcome = command("evaluate", f"run={job.run.folder}")
    assert outcome.status == 0, outcome.error
    again = json.loads(next((job.run.folder / "evaluation").rglob("metrics.json")).read_text())
    assert again[metric] == pytest.approx(known["metrics"][metric], abs=1e-5)
