"""Rules that are new in each sequence: what is asked for, what can be known, and rows that depend on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochal.config.compose import compose
from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED, RESERVED, Numbers, Series, Tokens
from epochal.data import InContextLinear, InContextSymbols
from epochal.data.batching import Batch, BatchIndices


def batch_of(data: Any, split: str = "val", seed: int = 0) -> Batch:
    rows, count = data.rows(split)
    return rows[BatchIndices(torch.arange(count), seed)]


def symbols(**options: Any) -> InContextSymbols:
    data = InContextSymbols(name="in_context_symbols", **{"validation": 4000, "batch_size": 8, **options})
    data.prepare()
    return data


def linear(**options: Any) -> InContextLinear:
    data = InContextLinear(name="in_context_linear", **{"validation": 900, "batch_size": 8, **options})
    data.prepare()
    return data


def test_each_key_keeps_its_value_within_a_sequence_alone():
    data = symbols(length=6, kinds=3, values=5)
    batch = batch_of(data)
    assert data.specs("text") == (Tokens(RESERVED + 8, 11), Tokens(RESERVED + 8, 11)) and batch.inputs.shape == (
        4000,
        11,
    )
    mappings = set()
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        keys, values = inputs[0::2], targets[0::2]
        assert values[:-1] == inputs[1::2] and set(targets[1::2]) == {IGNORED}
        assert set(keys) <= {8, 9, 10} and set(values) <= set(range(11, 16))
        mapping = dict(zip(keys, values))
        assert [mapping[key] for key in keys] == values
        mappings.add(tuple(mapping.get(key) for key in (8, 9, 10)))
    assert len(mappings) > 100
    counts = torch.bincount(batch.targets[:, 0])[11:] / 4000
    assert counts == pytest.approx(torch.full((5,), 0.2), abs=0.03)


def test_the_best_accuracy_is_that_of_who_remembers():
    data = symbols(length=9)
    batch = batch_of(data)
    keys, values, shots = batch.inputs[:, 0::2], batch.targets[:, 0::2], data.shots(batch)
    assert shots[0].tolist() == [0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8]
    assert torch.equal(shots < 0, batch.targets == IGNORED)
    best = data.best_by_shots()
    assert best[0] == 0.25 and best[1] == pytest.approx(0.4375) and best[8] == pytest.approx(0.925, abs=1e-3)
    for shot in (0, 1, 2, 4, 8):
        seen = (keys[:, :shot] == keys[:, shot : shot + 1]).any(1)
        guess = torch.where(seen, values[:, shot], RESERVED + 4)  # remembered, or the first value
        assert (guess == values[:, shot]).float().mean().item() == pytest.approx(best[shot], abs=0.03)


def test_the_claim_names_what_is_possible_at_eight_examples():
    config = compose(["experiment=in_context", "budget=cpu"])
    data = symbols(**{name: config.dataset[name] for name in ("length", "kinds", "values")})
    (number,) = [test.than for test in config.claim.tests if isinstance(test.than, float)]
    assert number == pytest.approx(data.best_by_shots()[8], abs=5e-4)


def test_symbols_are_written_and_read():
    data = symbols(kinds=2, values=3)
    ids = data.tokenizer.encode("a C b A").tolist()
    assert ids == [8, 12, 9, 10] and data.tokenizer.decode([0, *ids, 3]) == "a C b A"
    assert data.tokenizer.missing("a x A") == "x" and len(data.tokenizer) == 13 and data.prompt == "a"
    assert symbols(kinds=40, values=3).tokenizer.decode([8 + 39, 8 + 40]) == "k39 v0"


def test_a_question_follows_its_examples():
    data = linear(length=4, dimensions=3)
    batch = batch_of(data)
    assert data.specs("numbers") == (Series(5, 5), Numbers(1)) and batch.inputs.shape == (900, 5, 5)
    assert torch.equal(batch.lengths, data.lengths("val")) and batch.lengths[:6].tolist() == [1, 2, 3, 4, 5, 1]
    assert torch.bincount(data.shots(batch)[:, 0]).tolist() == [180] * 5
    for inputs, target, length in zip(batch.inputs[:50], batch.targets, batch.lengths.tolist()):
        assert (inputs[length:] == 0).all() and inputs[:, 4].nonzero().flatten().tolist() == [length - 1]
        assert inputs[length - 1, 3] == 0
        if length == 5:  # more examples than dimensions
            w = torch.linalg.lstsq(inputs[:4, :3], inputs[:4, 3:4]).solution
            assert inputs[4, :3] @ w == pytest.approx(target, abs=1e-3)
    assert batch.targets.var().item() == pytest.approx(1, abs=0.2) and batch.targets.shape == (900, 1)


def test_the_best_error_is_that_of_least_squares():
    data = linear(length=3, dimensions=2, validation=8000)
    batch = batch_of(data)
    assert data.best_by_shots() == [1, 0.5, 0, 0]
    for shot, best in enumerate(data.best_by_shots()[:2]):
        rows = data.shots(batch)[:, 0] == shot
        inputs, targets = batch.inputs[rows].double(), batch.targets[rows]
        x, y, question = inputs[:, :shot, :2], inputs[:, :shot, 2:3], inputs[:, shot, :2]
        guess = torch.einsum("bd,bdo->bo", question, torch.linalg.pinv(x) @ y) if shot else torch.zeros_like(targets)
        assert (guess - targets).square().mean().item() == pytest.approx(best, abs=0.12)


@pytest.mark.parametrize("make", [symbols, linear])
def test_rows_do_not_depend_on_their_batch(make):
    data = make(length=5)
    whole, some = batch_of(data), torch.tensor([7, 3, 29])
    few = data.rows("val")[0][BatchIndices(some, 5)]
    assert torch.equal(few.targets, whole.targets[some])
    assert torch.equal(few.inputs, whole.inputs[some][:, : few.inputs.shape[1]])
    train = [batch_of(data, "train", seed).targets for seed in (1, 2)]
    assert not torch.equal(*train)
    fixed = [batch_of(make(length=5, fresh=False), "train", seed).targets for seed in (1, 2)]
    assert torch.equal(*fixed)


@pytest.mark.parametrize(
    "make, options, words",
    [
        (symbols, {"kinds": 0}, "dataset.kinds=0"),
        (symbols, {"values": 1}, "dataset.values=1"),
        (linear, {"dimensions": 0}, "dataset.dimensions=0"),
        (linear, {"length": 0}, "dataset.length=0"),
    ],
)
def test_wrong_sizes_are_refused(make, options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options)
