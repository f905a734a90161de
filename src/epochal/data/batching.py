"""The batch, its order, and the loader that yields it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from epochal.core.seeds import mix

POOL = 50  # batches whose rows are sorted by length together


IN_A_ROW = 2**18  # bytes of batches that are gathered together


class Batch(NamedTuple):
    """One gather. `seed` is a function of (run's seed, epoch, step): augmentation, dropout and noise draw from it.

    `lengths` (B) are those of the inputs, where they are unlike and the rest of each row is padding; else None.
    """

    inputs: Tensor
    targets: Tensor
    seed: int
    lengths: Tensor | None = None


class BatchIndices(NamedTuple):
    """Which rows make the next batch."""

    numbers: Tensor
    seed: int


class BatchOrder(Sampler[BatchIndices]):
    """Row numbers batch by batch: nothing but a function of (seed, epoch, step).

    With several ranks each takes every world-th row of the same global batch.

    Args:
        count: Rows in the set.
        batch_size: Rows in a batch, all ranks together.
        seed: The run's.
        shuffle: A new order each epoch, leaving out what does not fill a batch; else in order, all rows.
        first: Tells, when an epoch's first batch is asked for, how many batches of it are done already.
        rank, world: This process and how many there are.
        lengths: Of the rows, where they are unlike: rows of like length share a batch, so that little is padded. Where
            rows are shuffled, only within pools of some batches, so that batches stay unlike from epoch to epoch.
    """

    def __init__(
        self,
        *,
        count: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        first: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        lengths: Tensor | None = None,
    ) -> None:
        self.lengths = lengths
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.first, self.rank, self.world = first, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size if self.shuffle else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[BatchIndices]:
        # A generator's body runs at the first next(), when Lightning has restored its counters and set the epoch.
        chance = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=chance) if self.shuffle else torch.arange(self.count)
        if self.lengths is not None:
            order = self._bucketed(order, chance)
        for step in range(self.first(), len(self)):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield BatchIndices(index[self.rank :: self.world], mix(self.seed, self.epoch, step))

    def _bucketed(self, order: Tensor, chance: torch.Generator) -> Tensor:
        assert self.lengths is not None
        if not self.shuffle:
            return self.lengths.argsort(stable=True)
        pools = order[: len(self) * self.batch_size].split(POOL * self.batch_size)
        order = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = order.view(len(self), self.batch_size)
        return batches[torch.randperm(len(self), generator=chance)].flatten()


class Loader(DataLoader):
    """The batches of an order, each one gather, with nothing of the work that workers and collation need.

    Small ones are gathered several in a row: what that needs is still in the processor's cache then, and is not after a
    training step.
    """

    def __init__(self, rows: Dataset[Batch], order: BatchOrder) -> None:
        super().__init__(rows, sampler=order, batch_size=None)  # None: the sampler yields whole batches

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # it needs no worker and no state
        order, count = iter(self.sampler), 1
        while numbers := list(islice(order, count)):
            batches = [self.dataset[rows] for rows in numbers]
            count = min(POOL, max(1, IN_A_ROW // (batches[0].inputs.nbytes + 1)))
            yield from batches
