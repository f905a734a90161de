"""Options of data sets are listed in full; the order of batches depends on (seed, epoch, step) alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import epochal.data
from epochal.config.compose import choices, compose, plain
from epochal.config.instantiate import target_class
from epochal.core.errors import ConfigError
from epochal.core.protocols import TARGETS
from epochal.core.seeds import mix
from epochal.data import DataModule
from epochal.data.batching import READ_AHEAD_BYTES, Batch, BatchOrder, Loader

KINDS = [
    kind for kind in vars(epochal.data).values() if inspect.isclass(kind) and issubclass(kind, DataModule)
]  # all data sets and their base


@pytest.mark.parametrize("name", choices()["dataset"])
def test_the_signature_of_a_data_set_lists_every_option_of_its_yaml(name):
    config = plain(compose([f"dataset={name}"]).dataset)
    listed = inspect.signature(target_class(config.pop("_target_"))).parameters
    assert {p.kind for p in listed.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert {*listed} == {*config, "seed"}


def test_an_option_that_no_base_takes_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'flip'"):
        epochal.data.Copy(name="copy", flip=True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not DataModule])
def test_every_data_set_says_what_its_rows_are(kind):
    assert (
        kind.unit in ("images", "videos", "series", "points", "texts", "windows", "conversations", "pairs")
        and kind.yields
        and {*kind.targets} <= {*TARGETS}
    )


def test_only_images_can_be_had_in_another_range():
    data = epochal.data.Adding(name="adding", length=5)
    data.use_image_range("normalised")
    with pytest.raises(ConfigError, match=r"dataset=adding has no symmetric images\."):
        data.use_image_range("symmetric")


def order(**changes: object) -> BatchOrder:
    options = {"count": 103, "batch_size": 10, "seed": 1, "shuffle": True, **changes}
    epoch = options.pop("epoch", 0)
    made = BatchOrder(**options)  # type: ignore[arg-type]
    made.set_epoch(epoch)
    return made


def listed(made: BatchOrder) -> list[tuple[list[int], int]]:
    return [(rows.rows.tolist(), rows.seed) for rows in made]


def test_the_same_seed_and_epoch_give_the_same_batches_and_nothing_else_matters():
    expected = listed(order(epoch=3))
    torch.manual_seed(99)
    torch.rand(5)
    again = order(epoch=3)
    assert listed(again) == expected and listed(again) == expected
    assert listed(order(epoch=4)) != expected
    assert listed(order(epoch=3, seed=2)) != expected


def test_an_epoch_has_each_row_at_most_once_and_only_whole_batches():
    batches = listed(order())
    assert len(batches) == len(order()) == 10
    rows = [row for index, _ in batches for row in index]
    assert len(rows) == len(set(rows)) == 100 and set(rows) < set(range(103))


def test_other_rows_are_left_out_in_the_next_epoch():
    left = [set(range(103)) - {row for index, _ in listed(order(epoch=epoch)) for row in index} for epoch in (0, 1)]
    assert left[0] != left[1]


def test_without_shuffling_all_rows_come_in_order():
    batches = listed(order(shuffle=False))
    assert len(batches) == len(order(shuffle=False)) == 11
    assert [row for index, _ in batches for row in index] == list(range(103))


def test_every_batch_has_a_seed_of_its_own():
    seeds = {seed for epoch in range(5) for run in range(3) for _, seed in listed(order(epoch=epoch, seed=run))}
    assert len(seeds) == 5 * 3 * 10
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("done", [0, 1, 7, 10])
def test_a_resumed_epoch_starts_in_the_middle(done):
    assert listed(order(epoch=2, first=lambda: done)) == listed(order(epoch=2))[done:]


def test_the_number_of_done_batches_is_read_when_the_first_batch_is_requested():
    done = 0
    batches = iter(order(first=lambda: done))
    done = 4  # Lightning restores its counters after it has called iter()
    assert next(batches).seed == listed(order())[4][1]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_divide_the_same_batches(world, shuffle):
    whole = listed(order(shuffle=shuffle))
    parts = [listed(order(shuffle=shuffle, rank=rank, world=world)) for rank in range(world)]
    for step, (index, seed) in enumerate(whole):
        assert [part[step][1] for part in parts] == [seed] * world
        assert sorted(row for part in parts for row in part[step][0]) == sorted(index)
        assert parts[0][step][0] == index[::world]


def test_mix_spreads_near_numbers():
    near = [mix(a, b) for a in range(20) for b in range(20)]
    assert len(set(near)) == 400
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in near])
    assert np.abs(bits.mean(0) - 0.5).max() < 0.1  # five standard deviations are 0.125
    assert mix(1, 2) != mix(2, 1) and mix(1) != mix(1, 0)


class Wide:
    """Rows of a given number of bytes, which count how often they are gathered."""

    def __init__(self, width: int) -> None:
        self.width, self.gathered = width, 0

    def __getitem__(self, rows):
        self.gathered += 1
        return Batch(rows.rows[:, None].expand(-1, self.width).to(torch.uint8), rows.rows, rows.seed)


@pytest.mark.parametrize("done", [0, 4, 10])
@pytest.mark.parametrize("width", [1, 1000, READ_AHEAD_BYTES])
def test_a_loader_gives_each_batch_of_its_order_once(width, done):
    batches = [(batch.targets.tolist(), batch.seed) for batch in Loader(Wide(width), order(first=lambda: done))]
    assert batches == listed(order())[done:]


def test_large_batches_are_gathered_one_at_a_time():
    rows = Wide(READ_AHEAD_BYTES)
    for number, _ in enumerate(Loader(rows, order())):
        assert rows.gathered == number + 1
