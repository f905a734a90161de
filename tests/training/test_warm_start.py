"""Weights of another run to begin with: taken over up to the head, or refused by name."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from helpers.samples import image_folder, pixels
from helpers.training import TINY, train

SMALL = ("model=cnn", "model.filters=[4]", "model.hidden=8", "dataset=digits", "duration=2steps", "logger=none")
VIT = ("model=vit", "model.embed_dim=8", "model.depth=1", "model.num_heads=1", "dataset=digits", "logger=none")


def weights(job):
    return job.task.model.state_dict()


def beginning(*overrides):
    """The weights before the first step."""
    return told(*overrides)[0]


def told(*overrides):
    """The weights before the first step, and what was printed about them."""
    from epochal.training.build import build
    from helpers.training import composed

    printed = io.StringIO()
    with build(composed(*overrides), console=Console(file=printed)) as job:
        state = {name: tensor.clone() for name, tensor in weights(job).items()}
        job.run.release()
    return state, " ".join(printed.getvalue().split())


def test_a_run_begins_with_the_best_weights_of_another(home):
    parent = train(*SMALL)
    best = torch.load(parent.run.best, weights_only=True)["state_dict"]
    state = beginning(*SMALL, "seed=2", f"init_from={parent.run.folder}")
    assert all(torch.equal(state[name.removeprefix("model.")], tensor) for name, tensor in best.items())


def test_other_classes_get_a_fresh_head_and_the_pixels_are_normalised_as_before(home):
    parent = train(*SMALL)
    np.savez(home / "three.npz", images=pixels(90, 8, 8), labels=np.arange(90) % 3)
    job = train(
        *(*SMALL, "dataset=images", f"dataset.path={home / 'three.npz'}", "dataset.batch_size=16"),
        *(f"init_from={parent.run.folder}", "optimizer.lr=1e-12", "optimizer.weight_decay=0"),
    )
    before, after = weights(parent), weights(job)
    kept = [name for name in before if before[name].shape == after[name].shape]
    assert set(before) - set(kept) == {"head.4.weight", "head.4.bias"}
    best = torch.load(parent.run.best, weights_only=True)["state_dict"]
    for name in kept:
        torch.testing.assert_close(after[name], best[f"model.{name}"], atol=1e-6, rtol=0)
    assert torch.equal(job.data.mean, parent.data.mean)
    assert job.run.summary()["init_from"] == str(parent.run.folder)


@pytest.mark.parametrize(
    ("classes", "kept"),
    [(("cat", "dog"), True), (("dog", "hen"), False), (("ant", "cat"), False)],
    ids=["the same", "others", "one of them at another place"],
)
def test_a_head_is_kept_for_the_same_classes_alone(classes, kept, home):
    own, other = image_folder(home / "own"), image_folder(home / "other", classes=classes)
    network = ("model=cnn", "model.filters=[4]", "model.hidden=8", "dataset.batch_size=4", "duration=1steps")
    parent = train(*network, "dataset=images", f"dataset.path={own}", "logger=none")
    start, said = told(*network, *("dataset=images", f"dataset.path={other}", f"init_from={parent.run.folder}"))
    best = torch.load(parent.run.best, weights_only=True)["state_dict"]
    differing = {name for name, tensor in start.items() if not torch.equal(best[f"model.{name}"], tensor)}
    assert differing == (set() if kept else {"head.4.weight", "head.4.bias"})
    assert ("the head's too: task and classes are the same" if kept else "head.4 begins afresh") in said
    assert kept or "the classes are others" in said


def test_a_head_of_another_task_begins_afresh(home):
    parent = train(*VIT, "task=masked_patch", "duration=1steps")
    for task, says in (("next_patch", "begins afresh, as the task is another"), ("masked_patch", "the head's too")):
        start, said = told(*VIT, f"task={task}", f"init_from={parent.run.folder}")
        assert says in said
        best = torch.load(parent.run.best, weights_only=True)["state_dict"]
        weight = next(name for name in start if name.startswith("pixels.") and name.endswith("weight"))
        assert torch.equal(start[weight], best[f"model.{weight}"]) == (task == "masked_patch")


def test_a_task_means_its_newest_run_of_the_same_model_data_and_seed(home):
    parents = [train(*VIT, "task=masked_patch", "duration=2steps", f"seed={seed}") for seed in (1, 2, 2)]
    job = train(*VIT, "duration=1steps", "seed=2", "init_from=masked_patch")
    assert job.run.summary()["init_from"] == str(parents[2].run.folder)
    assert job.run.summary()["task"] == "classification"
    assert job.config.init_from == "masked_patch"


def test_a_run_goes_on_where_the_one_it_began_with_is_gone(home, command):
    parent = train(*SMALL)
    job = train(*SMALL, f"init_from={parent.run.folder}", "duration=4steps")
    file = job.run.folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "stopped"}))
    parent.run.folder.rename(home / "elsewhere")
    outcome = command("train", f"resume={job.run.folder}")
    assert outcome.status == 0, outcome.error
    assert json.loads(file.read_text())["init_from"] == str(parent.run.folder)


def test_an_evaluation_reads_the_pixels_as_the_run_did(home, command):
    parent = train(*SMALL, "dataset.train_size=100")
    job = train(*SMALL, f"init_from={parent.run.folder}", "duration=20steps")
    assert not torch.equal(job.data.mean, train(*SMALL).data.mean), "else nothing is tested"
    outcome = command("evaluate", f"run={job.run.folder}")
    assert outcome.status == 0, outcome.error
    metrics = json.loads((job.run.folder / "evaluation" / "digits" / "metrics.json").read_text())
    assert metrics["test/loss"] == pytest.approx(job.run.summary()["metrics"]["test/loss"])


def test_an_mlp_too_learns_other_classes(home):
    parent = train("model=mlp", "model.hidden=[8]", "dataset=digits", "duration=1steps", "logger=none")
    np.savez(home / "three.npz", images=pixels(90, 8, 8), labels=np.arange(90) % 3)
    data = ("dataset=images", f"dataset.path={home / 'three.npz'}", "dataset.batch_size=16")
    start = beginning("model=mlp", "model.hidden=[8]", *data, f"init_from={parent.run.folder}", "logger=none")
    assert torch.equal(start["layers.1.weight"], torch.load(parent.run.best)["state_dict"]["model.layers.1.weight"])
    assert start["layers.3.weight"].shape == (3, 8)


def test_a_grid_goes_on_with_the_vocabulary_of_the_run_it_begins_with(trained, command, home):
    """Of other text than the run's own, with other characters."""
    (home / "other.txt").write_text("THE QUICK BROWN FOX 99\n" * 99)
    sizes = ("model=gpt", "model.depth=1", "model.embed_dim=8", "model.num_heads=2", "task.sample_length=4")
    data = (
        "dataset=text",
        f"dataset.path={home / 'other.txt'}",
        "dataset.context_length=16",
        "dataset.tokenizer=character",
    )
    start = (f"init_from={trained['text']}", "duration=1steps", "logger=none", "task=language_modeling")
    outcome = command("train", "-m", *sizes, *data, *start, "seed=1,2")
    assert outcome.status == 0, outcome.error


def test_a_task_of_other_settings_is_no_beginning(home, refuse):
    train(*VIT, "task=masked_patch", "duration=1steps")
    refuse(
        *("train", *VIT, "model.embed_dim=16", "init_from=masked_patch"),
        says=("no finished run of it with this model=vit",),
    )


def test_a_run_of_before_init_from_can_still_be_resumed(copied, command):
    folder = copied("old")
    config = OmegaConf.load(folder / "config.yaml")
    del config["init_from"]
    OmegaConf.save(config, folder / "config.yaml")
    assert command("train", f"resume={folder}").status == 0


def test_weights_of_another_kind_of_data_are_refused(copied, refuse):
    folder = copied("text_run", "text", status="finished")
    refuse("train", *SMALL, f"init_from={folder}", says=("learned from tokens, but dataset=digits yields images",))


@pytest.mark.parametrize("grid", [(), ("-m", "seed=1,2")], ids=["alone", "in a grid"])
def test_weights_of_another_architecture_are_refused_with_their_names(grid, copied, refuse):
    folder = copied("mlp_run", status="finished")
    lines = 2 if grid else 1
    refuse(
        *("train", *grid, "model=cnn", "model.filters=[4]", "dataset=digits", f"init_from={folder}", "logger=none"),
        says=("holds weights of model=mlp", "this model=cnn", "features.0.weight is missing there"),
        lines=lines,
    )


def test_weights_of_another_size_are_refused_with_both_shapes(copied, refuse):
    folder = copied("mlp_run", status="finished")
    says = ("is (8, 64) there, (9, 64) here",)
    refuse("train", "model=mlp", "model.hidden=[9]", "dataset=digits", f"init_from={folder}", says=says)


@pytest.mark.parametrize(
    ("init_from", "says"),
    [
        ("nowhere", ("There is no run folder nowhere.",)),
        (".", ("is not a run folder",)),
        (
            "masked_patch",
            ("there is no finished run of it with this model=vit", "Train it first with task=masked_patch"),
        ),
    ],
)
def test_a_run_that_is_not_there_is_told(init_from, says, refuse):
    refuse("train", *VIT, f"init_from={init_from}", says=says)


def test_two_sources_of_weights_are_one_too_many(copied, refuse):
    folder = copied("mlp_run", status="finished")
    refuse("train", "model=resnet", "model.pretrained=true", f"init_from={folder}", says=("leave one out",))


def test_weights_travel_from_a_language_model_to_a_classifier_of_shorter_texts(home, refuse):
    """The tokenizer comes with them, learned positions are cut, and a longer context is refused."""
    lines = [f"{'a good' if n % 2 else 'a bad'} film number {n},{'yes' if n % 2 else 'no'}" for n in range(90)]
    (home / "films.csv").write_text("sentence,label\n" + "\n".join(lines))
    (home / "text.txt").write_text("\n".join(lines * 9))
    sizes = ("model=gpt", *TINY)
    text = ("dataset=text", f"dataset.path={home / 'text.txt'}", "dataset.context_length=24", "duration=2steps")
    parent = train(*sizes, *text)
    films = (*sizes, "dataset=sentences", f"dataset.path={home / 'films.csv'}", f"init_from={parent.run.folder}")
    state, said = told(*films, "dataset.max_length=16")
    best = torch.load(parent.run.best, weights_only=True)["state_dict"]
    assert torch.equal(state["embed.weight"], best["model.embed.weight"])
    assert torch.equal(state["position.weight"], best["model.position.weight"][:16])
    assert "head begins afresh, as the task is another" in said
    refuse("train", *films, "dataset.max_length=64", says=("reads 24 tokens at once", "model.context_length=24"))
    said = ("dataset.tokenizer=character", "with the tokenizer of init_from", "(byte)")
    refuse("train", *films, "dataset.max_length=16", "dataset.tokenizer=character", says=said)
    told(*films, "dataset.max_length=16", "dataset.tokenizer=byte")


def test_a_pooler_that_was_pretrained_is_kept_and_low_rank_additions_need_weights(home, refuse):
    lines = [f"film {n},{'is good' if n % 2 else 'is bad'},{'yes' if n % 2 else 'no'}" for n in range(90)]
    (home / "films.csv").write_text("sentence,then,label\n" + "\n".join(lines))
    bert = ("model=bert", *TINY)
    films = (*bert, "dataset=sentences", f"dataset.path={home / 'films.csv'}", "dataset.second_column=then")
    parent = train(*films, "task=masked_lm", "model.next_sentence=true", "duration=2steps")
    state, said = told(*films, f"init_from={parent.run.folder}", "finetune.lora.rank=2")
    best = torch.load(parent.run.best, weights_only=True)["state_dict"]
    assert torch.equal(state["pooler.weight"], best["model.pooler.weight"])
    assert "head begins afresh" in said and "pooler" not in said
    refuse("train", *films, "finetune.lora.rank=2", says=("at random", "init_from=<run>"))
    refuse("train", *films, "finetune.lora.targets=[qkv]", says=("finetune.lora.targets goes with finetune.lora.rank",))


def test_byte_pairs_are_kept_in_the_run_and_read_by_other_data(home):
    (home / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 90)
    sizes = ("model=gpt", *TINY)
    text = (*sizes, "dataset=text", f"dataset.path={home / 'text.txt'}", "dataset.context_length=8", "duration=2steps")
    learned = train(*text, "dataset.tokenizer=bpe", "dataset.vocab_size=290")
    again = train(*text, f"dataset.tokenizer={learned.run.folder}")
    first, second = learned.data.tokenizer, again.data.tokenizer
    assert second.kind == "huggingface" and len(first) == len(second) and first.ids == second.ids
    assert first.encode("a lazy fox\n").tolist() == second.encode("a lazy fox\n").tolist()


def test_rotary_positions_go_on_beyond_the_texts_that_were_learned_from(home):
    (home / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 90)
    sizes = (
        "model=llama",
        "model.depth=1",
        "model.embed_dim=8",
        "model.num_heads=2",
        "model.num_kv_heads=1",
        "logger=none",
    )
    text = (*sizes, "dataset=text", f"dataset.path={home / 'text.txt'}", "dataset.batch_size=4", "duration=2steps")
    short = train(*text, "dataset.context_length=8", "optimizer.lr=1e-12")
    longer = train(*text, "dataset.context_length=32", f"init_from={short.run.folder}", "optimizer.lr=1e-12")
    assert longer.task.model.context_length == 32
    tokens = torch.arange(8, 40)[None]
    with torch.no_grad():
        theirs, ours = short.task.model.eval()(tokens[:, :8]), longer.task.model.eval()(tokens)
    assert ours.shape[1] == 32 and torch.isfinite(ours).all()
    torch.testing.assert_close(ours[:, :8], theirs, rtol=0, atol=1e-5)
