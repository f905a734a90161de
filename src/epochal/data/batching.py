"""The batch, the order of the batches, and the loader that yields them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from epochal.core.seeds import mix

POOL = 50  # batches in a pool, within which shuffled rows are sorted by length
READ_AHEAD = 50  # batches gathered in one go, at most
READ_AHEAD_BYTES = 2**18  # inputs gathered in one go, at most


class Batch(NamedTuple):
    """A batch of B rows.

    Attributes:
        inputs: (B, ...), as the data's input spec says, or uint8 pixels that are not normalised yet.
        targets: (B, ...), as the data's output spec says.
        seed: Mixed from (run's seed, epoch, step). Augmentation, dropout and noise draw from it.
        lengths: (B,) lengths of inputs that are padded on the right; None if no row is padded.
        segments: (B, T) which text of a pair each token is of, 0 or 1; None where there are no pairs.
    """

    inputs: Tensor
    targets: Tensor
    seed: int
    lengths: Tensor | None = None
    segments: Tensor | None = None


def to_device(value: Any, device: torch.device) -> Any:
    """A batch, or any nest of tuples, mappings and tensors in one, with its tensors on a device; all else as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(part, device) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [to_device(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class BatchIndices(NamedTuple):
    """Which rows make up a batch."""

    rows: Tensor  # (B,) int64
    seed: int  # see `Batch`


class BatchOrder(Sampler[BatchIndices]):
    """A batch sampler whose order depends on (seed, epoch, step) alone, so that there is no state to save.

    With several ranks, rank r takes the rows r, r + world, r + 2 world ... of each global batch.

    Args:
        count: Rows in the split.
        batch_size: Rows in a batch, summed over all ranks.
        seed: The run's seed.
        shuffle: True: a new order in each epoch, without the last, incomplete batch. False: all rows in order.
        first: Returns how many batches of the epoch are done already; called when its first batch is asked for.
        rank: Of this process.
        world: Number of processes.
        lengths: (count,) lengths of the rows. If given, rows of similar length share a batch, which keeps padding
            small: all rows are sorted if shuffle is False, else those within pools of `POOL` batches, so that epochs
            have different batches.
        once: The epoch counts nowhere: a test comes after any number of epochs, or after none where a run is evaluated.
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
        once: bool = False,
    ) -> None:
        self.lengths = lengths
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.first, self.rank, self.world = first, rank, world
        self.epoch, self.once = 0, once

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = 0 if self.once else epoch

    def __len__(self) -> int:
        return self.count // self.batch_size if self.shuffle else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[BatchIndices]:
        # A generator's body starts at the first next(): by then Lightning has restored its counters and set the epoch.
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator) if self.shuffle else torch.arange(self.count)
        if self.lengths is not None:
            order = self._bucketed(order, generator)
        for step in range(self.first(), len(self)):
            rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield BatchIndices(rows[self.rank :: self.world], mix(self.seed, self.epoch, step))

    def _bucketed(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """The order with rows of similar length in the same batch; see the argument `lengths`."""
        assert self.lengths is not None
        if not self.shuffle:
            return self.lengths.argsort(stable=True)
        pools = order[: len(self) * self.batch_size].split(POOL * self.batch_size)
        order = torch.cat([pool[self.lengths[pool].argsort(stable=True)] for pool in pools])
        batches = order.view(len(self), self.batch_size)
        return batches[torch.randperm(len(self), generator=generator)].flatten()


class Loader(DataLoader):
    """Yields the batches of an order, each gathered by one indexing operation, without workers and without collation.

    Small batches are gathered several at a time: the first leaves the rows' memory in the processor's cache, which a
    training step would evict before the next.
    """

    def __init__(self, rows: Dataset[Batch], order: BatchOrder) -> None:
        super().__init__(rows, sampler=order, batch_size=None)  # None: the sampler yields whole batches

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # DataLoader's iterators keep workers and state
        order, count = iter(self.sampler), 1
        while indices := list(islice(order, count)):
            batches = [self.dataset[index] for index in indices]
            count = min(READ_AHEAD, max(1, READ_AHEAD_BYTES // (batches[0].inputs.nbytes + 1)))
            yield from batches
