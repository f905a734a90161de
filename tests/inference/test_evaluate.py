"""A run's folder alone rebuilds it."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from epochal.inference.notebook import load
from helpers.samples import image_folder, pixels
from helpers.training import TINY, train


@pytest.fixture
def job(home):
    return train(
        "model=mlp", "model.hidden=[16]", "dataset=digits", "duration=2epochs", "logger=none", "callbacks.ema=0.9"
    )


def test_the_run_folder_alone_gives_the_same_test_metrics(job, command, home):
    moved = job.run.folder.rename(home / "moved")
    outcome = command("evaluate", "run=moved")
    assert outcome.status == 0, outcome.error
    written = home / "moved" / "evaluation" / "digits"
    metrics = json.loads((written / "metrics.json").read_text())
    known = json.loads((moved / "summary.json").read_text())["metrics"]
    assert metrics == {name: pytest.approx(known[name]) for name in ("test/loss", "test/accuracy")}
    with (written / "per_class.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["class"] for row in table] == [str(n) for n in range(10)]
    assert sum(int(row["images"]) for row in table) == 359
    for name in ("confusion", "mistakes", "predictions"):
        assert min(Image.open(written / f"{name}.png").size) > 50
    assert "most often taken for" in outcome.out


def test_a_checkpoint_alone_is_enough(job, command, home):
    lone = home / "lone.ckpt"
    lone.write_bytes(job.run.best.read_bytes())
    outcome = command("evaluate", f"checkpoint={lone}")
    assert outcome.status == 0, outcome.error
    assert (home / "evaluation" / "digits" / "metrics.json").exists()


def test_without_a_name_the_newest_run_that_finished_is_evaluated(copied, command, home):
    folders = {}
    for age, (name, status, trainer) in enumerate(
        [
            ("overfits", "finished", "overfit"),
            ("debugs", "finished", "debug"),
            ("goes_on", "running", "default"),
            ("failed", "failed", "default"),
            ("wanted", "finished", "default"),
            ("older", "finished", "default"),
        ]
    ):
        folders[name] = copied(f"outputs/runs/{name}", status=status)
        file = folders[name] / "config.yaml"
        file.write_text(file.read_text().replace("name: default", f"name: {trainer}"))
        os.utime(folders[name] / "checkpoints" / "last.ckpt", (2e9 - age, 2e9 - age))
    outcome = command("evaluate")
    assert outcome.status == 0, outcome.error
    assert "The newest finished run is outputs/runs/wanted." in outcome.out
    assert (folders["wanted"] / "evaluation").is_dir()
    for name in ("wanted", "older"):
        shutil.rmtree(folders[name])
    outcome = command("evaluate")
    assert outcome.status == 2
    assert "None of the runs in outputs has finished" in outcome.error
    assert "run=<folder>" in outcome.error


def test_other_data_of_the_same_shape_is_evaluated(job, command, home):
    np.savez(home / "other.npz", images=pixels(60, 8, 8), labels=np.arange(60) % 10)
    outcome = command("evaluate", f"run={job.run.folder}", "dataset=images", f"dataset.path={home / 'other.npz'}")
    assert outcome.status == 0, outcome.error
    metrics = json.loads((job.run.folder / "evaluation" / "images" / "metrics.json").read_text())
    assert metrics["test/accuracy"] < 0.6, "noise has no digits in it"


def test_a_language_model_is_tested_and_writes(trained, command, copied):
    outcome = command("evaluate", f"run={copied('run', 'text')}")
    assert outcome.status == 0, outcome.error
    assert "perplexity" in outcome.out and "samples" in outcome.out


def test_every_test_image_counts_the_same_in_batches_of_unlike_size(home):
    job = train(
        "model=mlp",
        "model.hidden=[4]",
        "dataset=digits",
        "dataset.eval_batch_size=350",
        "duration=5steps",
        "logger=none",
    )
    prediction, _, labels = (torch.cat(parts) for parts in zip(*job.task._outputs))
    assert len(labels) == 359, "350 and 9"
    share = (prediction == labels).float().mean().item()
    assert job.run.summary()["metrics"]["test/accuracy"] == pytest.approx(share, abs=1e-6)


WORDS = {"bad": "awful dull boring", "good": "great fine lovely", "so": "middling average usual"}
TEXTS = ("model=gru", "model.hidden_size=16", "dataset=sentences", "duration=60steps", "logger=none")


def sentences(file, classes, *, stored_as=None, rows=120):
    """Texts whose words tell their class; of a ClassLabel where the names are `stored_as`, else plain labels."""
    import datasets

    order = classes if stored_as is None else stored_as
    words = [list(WORDS.values())[i % len(classes)] for i in range(rows)]
    labels = [classes[i % len(classes)] for i in range(rows)]
    table = datasets.Dataset.from_dict({"text": [f"{w} number {i}" for i, w in enumerate(words)], "label": labels})
    if isinstance(classes[0], str):
        table = table.cast_column("label", datasets.ClassLabel(names=list(order)))
    table.to_parquet(str(file))
    return file


@pytest.fixture
def reader(home):
    """A run that knows bad, good and so."""
    file = sentences(home / "own.parquet", ("bad", "good", "so"))
    job = train(*TEXTS, f"dataset.path={file}", "dataset.batch_size=16", "optimizer.lr=0.02")
    assert job.run.summary()["metrics"]["test/accuracy"] == 1
    return job


def test_classes_of_other_data_are_matched_by_name(reader, command, home):
    for classes, order, says in [
        (("bad", "good", "so"), None, ""),
        (("bad", "good", "so"), ("so", "bad", "good"), "matched by name"),
        ((0, 1, 2), None, "matched by position (0 is bad, 1 is good, 2 is so)"),
        ((-1, 0, 1), None, "matched by position (-1 is bad, 0 is good, 1 is so)"),
    ]:
        other = sentences(home / "other.parquet", classes, stored_as=order)
        outcome = command("evaluate", f"run={reader.run.folder}", "dataset=sentences", f"dataset.path={other}")
        assert outcome.status == 0, outcome.error
        assert says in outcome.out
        assert ("matched" in outcome.out) == bool(says)
        written = reader.run.folder / "evaluation" / "sentences"
        assert json.loads((written / "metrics.json").read_text())["test/accuracy"] == 1, (classes, order)
        with (written / "per_class.csv").open() as stream:
            assert [row["class"] for row in csv.DictReader(stream)] == list(map(str, classes))


def test_classes_that_the_model_does_not_know_are_refused_by_name(reader, refuse, home):
    for classes, says in [
        (("bad", "fine", "so"), ("does not know fine", "lacks good")),
        (("aardvark", "bison", "crow"), ("aardvark, bison, crow", "bad, good, so")),
        (("bad", "good"), ("3 classes", "has 2")),
        ((0, 1), ("3 classes", "has 2")),
    ]:
        other = sentences(home / "other.parquet", classes)
        refuse("evaluate", f"run={reader.run.folder}", "dataset=sentences", f"dataset.path={other}", says=says)


def test_images_in_another_order_of_classes_are_matched_by_name(home, command):
    folder = image_folder(home / "pets", each=30)
    job = train(*("model=mlp", "model.hidden=[8]", "dataset=images", f"dataset.path={folder}", "logger=none"),
                *("dataset.batch_size=16", "duration=60steps"))  # fmt: skip
    from epochal.core.specs import Classes
    from epochal.inference.evaluate import match_classes, renumber
    from epochal.inference.load import open_run

    saved, before = open_run(job.run.folder), job.data.rows("test")[0].labels.clone()
    assert match_classes(saved, job.data, Classes(("dog", "cat"))) != []
    assert torch.equal(job.data.rows("test")[0].labels, 1 - before)
    renumber(job.data, torch.tensor([1, 0]))
    assert torch.equal(job.data.rows("test")[0].labels, before)


def test_a_run_is_not_tested_on_its_own_data_after_they_changed(reader, refuse, command, home):
    run, own = f"run={reader.run.folder}", home / "own.parquet"
    unchanged = own.read_bytes()
    says = ("dataset=sentences changed", "dataset=sentences dataset.path=")
    sentences(own, ("bad", "good", "so"), rows=240)
    refuse("evaluate", run, says=says)
    refuse("evaluate", f"checkpoint={reader.run.last}", says=says)
    assert command("evaluate", run, "dataset=sentences", f"dataset.path={own}").status == 0, "chosen as other data"
    lone = home / "copies" / "lone.ckpt"
    lone.parent.mkdir()
    content = torch.load(reader.run.last, weights_only=True)
    torch.save(content, lone)
    refuse("evaluate", f"checkpoint={lone}", says=says)
    del content["epochal"]["data_fingerprint"]  # as in version 0.1
    torch.save(content, lone)
    outcome = command("evaluate", f"checkpoint={lone}")
    assert outcome.status == 0 and "does not tell which data it learned from" in outcome.out
    own.write_bytes(unchanged)
    assert "does not tell" not in command("evaluate", run).out
    sentences(own, ("bad", "fine", "so"))
    refuse("evaluate", run, says=says)


def test_a_language_model_classifies_by_examples_in_its_prompt(command, home):
    """The whole way: a run on running text, other data, the accuracies by number of examples, and their file."""
    (home / "text.txt").write_text("bad number 1\nbad\n\ngood number 2\ngood\n\n" * 200)
    sizes = ("model=gpt", *TINY)
    text = ("dataset=text", f"dataset.path={home / 'text.txt'}", "dataset.context_length=200", "duration=2steps")
    run = train(*sizes, *text).run
    other = ("dataset=sentences", f"dataset.path={sentences(home / 'own.parquet', ('bad', 'good'))}")
    outcome = command("evaluate", f"run={run.folder}", *other, "shots=0,1,4", "label_words=bad,good")
    assert outcome.status == 0, outcome.error
    found = json.loads((run.folder / "evaluation" / "sentences_few_shot" / "metrics.json").read_text())
    assert {*found} == {f"test/shots_{which}/accuracy" for which in ("0", "1", "4", "4_permuted")}
    assert all(0 <= value <= 1 for value in found.values())
    outcome = command("evaluate", f"run={run.folder}", *other, "shots=0,90")
    assert outcome.status == 2 and "shots=0 would fit" in outcome.error
    outcome = command("evaluate", f"run={run.folder}", *other, "label_words=bad,good")
    assert outcome.status == 2 and "label_words goes with shots" in outcome.error


def test_windows_that_overlap_and_a_state_that_is_carried_are_measured(command, home):
    """Both read more of what is before a token than windows that begin cold."""
    (home / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 120)
    text = ("dataset=text", f"dataset.path={home / 'text.txt'}", "dataset.context_length=8", "duration=150steps")
    run = train("model=gru", "model.hidden_size=16", "optimizer.lr=0.02", "logger=none", *text).run
    losses = {}
    for how in ("", "dataset.eval_stride=2", "carry_state=true"):
        chosen = (
            ("dataset=text", f"dataset.path={home / 'text.txt'}", how) if "stride" in how else (how,) if how else ()
        )
        assert (outcome := command("evaluate", f"run={run.folder}", *chosen)).status == 0, outcome.error
        losses[how] = json.loads((run.folder / "evaluation" / "text" / "metrics.json").read_text())["test/loss"]
    assert losses["dataset.eval_stride=2"] < losses[""] and losses["carry_state=true"] < losses[""]


def test_low_rank_additions_are_counted_trained_and_merged(command, home):
    """As the panel says, and as a network that is read again: without additions, but with what they learned."""
    (home / "text.txt").write_text("the quick brown fox " * 200)
    sizes = ("model=gpt", *TINY)
    text = (*sizes, "dataset=text", f"dataset.path={home / 'text.txt'}", "dataset.context_length=16", "duration=5steps")
    parent = train(*text).run
    outcome = command("train", *text, f"init_from={parent.folder}", "finetune.lora.rank=2", "optimizer.lr=0.1")
    assert outcome.status == 0, outcome.error
    assert "trained" in outcome.out
    (tuned,) = {*(home / "outputs" / "runs").iterdir()} - {parent.folder}
    network, before = load(str(tuned)).model.state_dict(), load(str(parent.folder)).model.state_dict()
    assert network.keys() == before.keys()
    changed = {name for name in network if not torch.equal(network[name], before[name])}
    assert changed and all(name.startswith(("blocks.", "head.")) and name.endswith("weight") for name in changed)
    assert command("evaluate", f"run={tuned}").status == 0


@pytest.mark.parametrize(
    "line, says",
    [
        ("prompt=a images=0", "images is not read with prompt: leave one of the two out."),
        ("prompt=a explain=true", "explain is not read with prompt"),
        ("prompt=a label_words=b,c", "label_words is not read with prompt"),
        ("prompt=a dataset=sst2", "dataset is not read with prompt"),
        ("run=x checkpoint=y", "run=x and checkpoint=y both name the weights; leave one out."),
        ("shots=0 prompt=a", "prompt is not read with shots"),
        ("shots=0 temperature=0.5", "temperature is not read with shots"),
        ("lm_eval=x.yaml beam_size=3", "beam_size is not read with lm_eval"),
    ],
)
def test_options_of_another_kind_of_evaluation_are_refused(refuse, line, says):
    refuse("evaluate", *line.split(), says=[says])
