"""Copy, reverse and adding: the answers can be inferred, and rows depend on seed, split and row number alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, IGNORED, PAD, Numbers, Series, StepLabels, Tokens
from epochal.data import Adding, Batch, Copy, Reverse
from epochal.data.batching import BatchIndices
from epochal.data.counter_rng import uniform
from epochal.data.synthetic import Synthetic

EACH = [
    (Copy, "step_classes"),
    (Copy, "target_text"),
    (Reverse, "step_classes"),
    (Reverse, "target_text"),
    (Adding, "numbers"),
]


def prepared(kind: type[Synthetic], target: str, **options: Any) -> Any:
    data = kind(name="made", **{"length": 6, "test": 40, "validation": 40, **options})
    data.learns = target
    data.prepare()
    return data


def batch(data: Any, split: str, *numbers: int, seed: int = 7) -> Batch:
    return data.rows(split)[0][BatchIndices(torch.tensor(numbers, dtype=torch.int64), seed)]


def test_numbers_are_uniform_and_each_row_has_its_own():
    drawn = uniform(3, torch.arange(500), 200)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts = torch.histc(drawn.float(), 10, 0, 1)
    assert (counts / drawn.numel() - 0.1).abs().max() < 0.005
    assert len(drawn.unique()) == drawn.numel()
    assert abs(torch.corrcoef(torch.stack((drawn[:-1].flatten(), drawn[1:].flatten())))[0, 1]) < 0.01
    assert torch.equal(uniform(3, torch.tensor([7, 2]), 5), drawn[[7, 2], :5])
    assert not (uniform(4, torch.arange(500), 200) == drawn).any()


@pytest.mark.parametrize(("kind", "target"), EACH)
def test_a_row_does_not_depend_on_its_batch(kind, target):
    data = prepared(kind, target, **({"fixed": True} if kind is Reverse else {}))
    for split in ("train", "val"):
        whole, part = batch(data, split, *range(12)), batch(data, split, 9, 4)
        assert torch.equal(whole.inputs[[9, 4]], part.inputs) and torch.equal(whole.targets[[9, 4]], part.targets)


@pytest.mark.parametrize(("kind", "target"), EACH)
def test_training_rows_are_fresh_and_test_rows_fixed(kind, target):
    one, two = prepared(kind, target, seed=1), prepared(kind, target, seed=2)
    assert torch.equal(batch(one, "test", 3, 5, seed=7).inputs, batch(two, "test", 3, 5, seed=8).inputs)
    assert not torch.equal(batch(one, "test", 3, 5).inputs, batch(one, "val", 3, 5).inputs)
    assert not torch.equal(batch(one, "train", 3, 5, seed=7).inputs, batch(one, "train", 3, 5, seed=8).inputs)
    other = prepared(kind, target, split_seed=1)
    assert not torch.equal(batch(one, "test", *range(9)).inputs, batch(other, "test", *range(9)).inputs)
    assert one.fingerprint == two.fingerprint != other.fingerprint


@pytest.mark.parametrize(("kind", "target"), EACH)
def test_rows_that_are_not_fresh_are_the_same_in_each_epoch(kind, target):
    data = prepared(kind, target, fresh=False)
    assert torch.equal(batch(data, "train", 3, 5, seed=7).inputs, batch(data, "train", 3, 5, seed=8).inputs)
    assert not torch.equal(batch(data, "train", 3, 5).inputs, batch(data, "val", 3, 5).inputs)


@pytest.mark.parametrize(("kind", "target"), EACH)
def test_specs_hold_and_are_known_before_anything_is_made(kind, target):
    data = prepared(kind, target)
    inputs, outputs = data.specs(target)
    made = batch(data, "val", *range(40))
    assert made.inputs.shape[1] == inputs.length
    if isinstance(inputs, Tokens):
        assert made.inputs.max() < inputs.vocab_size
    if isinstance(outputs, Tokens):
        assert made.targets.shape[1] == outputs.length and made.targets.max() < outputs.vocab_size
    if isinstance(outputs, StepLabels):
        assert made.targets.max() == outputs.count - 1 and made.targets.shape == made.inputs.shape
    config = {"name": "made", "length": 6, "_target_": "epochal.data.Copy", "batch_size": 64, "split_seed": 0}
    assert kind.example_specs(config, target) == [(inputs, outputs)]


def test_copy_labels_the_symbols_in_order_after_the_blanks():
    data = prepared(Copy, "step_classes", length=5, symbols=3)
    made = batch(data, "train", *range(20))
    symbols, tokens = made.inputs[:, :3], data.source_tokenizer
    assert made.lengths is None and data.lengths("train") is None
    assert (symbols >= 4).all() and (symbols < 12).all()
    assert (made.inputs[:, 3:8] == tokens.blank).all() and (made.inputs[:, 8] == tokens.signal).all()
    assert (made.inputs[:, 9:] == tokens.blank).all() and made.inputs.shape[1] == 3 + 5 + 3
    assert (made.targets[:, :8] == IGNORED).all() and torch.equal(made.targets[:, 8:], symbols - 4)


def test_copy_as_a_translation():
    data = prepared(Copy, "target_text", length=5, symbols=3)
    made = batch(data, "val", 0, 1)
    assert data.specs("target_text") == (Tokens(14, 9), Tokens(14, 5))
    assert torch.equal(made.targets[:, 1:-1], made.inputs[:, :3])
    assert (
        (made.targets[:, 0] == BEGIN).all() and (made.targets[:, -1] == END).all() and (made.inputs[:, -1] == END).all()
    )
    words = data.references("val")[0]
    assert data.sources("val")[0] == words + " _" * 5 and len(words.split()) == 3
    assert data.target_tokenizer.decode(made.targets[0].tolist()) == words


@pytest.mark.parametrize("target", ["target_text", "step_classes"])
def test_reverse_labels_the_last_symbol_first_and_pads_on_the_right(target):
    data = prepared(Reverse, target, length=6, validation=200)
    counts = set()
    for number, (source, answer) in enumerate(zip(data.sources("val"), data.references("val"), strict=True)):
        assert answer.split() == source.split()[::-1]
        counts.add(len(answer.split()))
        made = batch(data, "val", number)
        assert made.lengths.tolist() == [made.inputs.shape[1]] == [int(data.lengths("val")[number])]
        assert (made.inputs != PAD).all()
        if target == "step_classes":
            labels = made.targets[0, made.targets[0] != IGNORED]
            assert " ".join(data.specs(target)[1].names[label] for label in labels) == answer
        else:
            assert data.target_tokenizer.decode(made.targets[0].tolist()) == answer
    assert counts == set(range(1, 7))
    many = batch(data, "val", *range(40))
    assert many.inputs.shape[1] == int(many.lengths.max())
    for row, length in zip(many.inputs, many.lengths, strict=True):
        assert (row[length:] == PAD).all() and (row[:length] != PAD).all()
    assert many.targets.min() == (IGNORED if target == "step_classes" else PAD)


def test_the_length_of_a_row_stays_when_its_symbols_are_fresh():
    data = prepared(Reverse, "target_text", train_size=100, batch_size=10)
    lengths = data.lengths("train")
    for seed in (1, 2):
        made = batch(data, "train", *range(100), seed=seed)
        assert torch.equal(made.lengths, lengths)
    data.seed = 3
    batches = list(data.train_dataloader())
    assert len(batches) == 10 and sum((b.inputs == PAD).sum() for b in batches) < 0.1 * sum(
        b.inputs.numel() for b in batches
    )


def test_the_sum_is_that_of_the_two_marked_numbers_one_in_each_half():
    data = prepared(Adding, "numbers", length=9)
    made = batch(data, "train", *range(300))
    assert data.specs("numbers") == (Series(9, 2), Numbers(1))
    values, marks = made.inputs.unbind(2)
    assert torch.equal((values * marks).sum(1, keepdim=True), made.targets)
    assert set(marks.unique().tolist()) == {0, 1}
    assert (marks[:, :4].sum(1) == 1).all() and (marks[:, 4:].sum(1) == 1).all()
    assert (marks.sum(0) > 0).all()
    assert (made.targets - 1).square().mean() == pytest.approx(1 / 6, abs=0.03)


@pytest.mark.parametrize(("kind", "target"), EACH)
def test_a_batch_of_no_rows_is_made(kind, target):
    """A rank's part of a last, small batch may be empty."""
    assert len(batch(prepared(kind, target), "val").targets) == 0


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (Copy, {"length": 0}, "dataset.length=0 must be a whole number, 1 or more."),
        (Copy, {"length": "long"}, "dataset.length=long must be a whole number, 1 or more."),
        (Copy, {"symbols": 0}, "dataset.symbols=0 must be a whole number, 1 or more."),
        (Copy, {"kinds": 1}, "dataset.kinds=1 must be a whole number, 2 or more."),
        (Reverse, {"length": 2.5}, "dataset.length=2.5 must be a whole number, 1 or more."),
        (Adding, {"length": 1}, "dataset.length=1 must be a whole number, 2 or more."),
        (Adding, {"train_size": 0.5}, "dataset.train_size=0.5 must be a whole number, 1 or more."),
        (Adding, {"batch_size": 99, "train_size": 9}, "dataset.batch_size=99 is larger than the 9 training rows"),
    ],
)
def test_what_cannot_be_made_is_refused(kind, options, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        prepared(kind, EACH[-1][1], **options)


def test_more_kinds_than_letters_are_numbers():
    data = prepared(Copy, "target_text", kinds=30)
    assert data.specs("step_classes")[1].names == tuple(map(str, range(30)))
    assert data.target_tokenizer.decode([BEGIN, 4, 33, END, 5]) == "0 29"


def test_symbols_can_be_typed():
    tokenizer = prepared(Reverse, "target_text").source_tokenizer
    ids = tokenizer.encode("b a c")
    assert tokenizer.decode(ids) == "b a c" and tokenizer.missing("b a c") == ""
    assert tokenizer.missing("b word a !") == "word!"
