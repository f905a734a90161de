"""What every data set shares: the batch, its order, and where a resumed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from epochal.errors import ConfigError
from epochal.facts import Inputs, Outputs

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


class Rows(NamedTuple):
    """Which rows make the next batch."""

    numbers: Tensor
    seed: int


def mix(*numbers: int) -> int:
    """One seed out of several numbers, by SplitMix64: near numbers give unlike seeds."""
    state = 0
    for number in numbers:
        state = (state + number * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 1  # torch takes seeds below 2**63


class BatchOrder(Sampler[Rows]):
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

    def __iter__(self) -> Iterator[Rows]:
        # A generator's body runs at the first next(), when Lightning has restored its counters and set the epoch.
        chance = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=chance) if self.shuffle else torch.arange(self.count)
        if self.lengths is not None:
            order = self._bucketed(order, chance)
        for step in range(self.first(), len(self)):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield Rows(index[self.rank :: self.world], mix(self.seed, self.epoch, step))

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


class Data(pl.LightningDataModule):
    """A data set: `prepare()` makes the arrays, then it tells its facts and yields batches.

    Args:
        name: The choice of the group, for messages and file names.
        batch_size: Rows in a training batch, all devices together.
        eval_batch_size: Rows in a validation or test batch.
        seed: Order and augmentation follow from it; which rows are held out does not.
    """

    tasks: ClassVar[tuple[str, ...]] = ()  # what it can teach, best first
    yields: ClassVar[type]  # the kind of its inputs, see facts.py
    name: str
    task: str = ""  # the objective that the rows are for; set before `prepare`

    def __init__(self, *, name: str, batch_size: int, eval_batch_size: int, seed: int) -> None:
        super().__init__()
        self.name, self.batch_size, self.eval_batch_size, self.seed = name, batch_size, eval_batch_size, seed
        self.fingerprint = ""

    def prepare(self) -> None:
        """Finds or makes the arrays and reads their facts; cheap if they are in the cache.

        Raises:
            ConfigError: If the source is missing or not what the config says it is.
        """
        raise NotImplementedError  # each kind of data does

    @classmethod
    def likely(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        """Facts that it may have once prepared, to try a model on before: what fails on all of them is the model's fault."""
        raise NotImplementedError  # each kind of data does

    def facts(self, task: str) -> tuple[Inputs, Outputs]:
        """What a model for this task reads, and what it gives."""
        raise NotImplementedError  # each kind of data does

    def lengths(self, split: str) -> Tensor | None:
        """By what rows are sorted into batches of like length; None where all are alike."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must remember to read other data the same way, as plain containers."""
        return {}

    def adopt(self, state: dict[str, Any]) -> None:
        """Takes over what another run's data remembered (see `state`), before `prepare`."""

    def rows(self, split: str) -> tuple[Dataset[Batch], int]:
        """The set of a split, and how many rows it has in this epoch."""
        raise NotImplementedError  # each kind of data does

    def sizes(self) -> dict[str, int]:
        """Rows by split."""
        return {split: self.rows(split)[1] for split in ("train", "val", "test")}

    def batches_per_epoch(self) -> int:
        return self.rows("train")[1] // self.batch_size

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if batch.inputs.device == device:  # Lightning's own way looks at every field
            return batch
        inputs, targets = (tensor.to(device, non_blocking=True) for tensor in (batch.inputs, batch.targets))
        lengths = None if batch.lengths is None else batch.lengths.to(device, non_blocking=True)
        return Batch(inputs, targets, batch.seed, lengths)

    def train_dataloader(self) -> DataLoader:
        progress = self.trainer.fit_loop.epoch_loop.batch_progress if self.trainer else None
        # 0, or the batches done before a kill
        return self._loader("train", shuffle=True, first=lambda: progress.current.ready if progress else 0)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def _loader(self, split: str, shuffle: bool = False, first: Callable[[], int] = lambda: 0) -> DataLoader:
        rows, count = self.rows(split)
        order = BatchOrder(
            count=count,
            batch_size=self.batch_size if shuffle else self.eval_batch_size,
            seed=self.seed,
            shuffle=shuffle,
            first=first,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
            lengths=self.lengths(split),
        )
        return Loader(rows, order)

    def check_batch_size(self, count: int) -> None:
        """Raises ConfigError if not one training batch can be filled."""
        if self.batch_size > count:
            raise ConfigError(
                f"dataset.batch_size={self.batch_size} is larger than the {count:,} training rows of dataset={self.name}."
            )


def count_of(share: int | float | None, total: int, option: str) -> int:
    """A count, or a fraction of the total, as a number of rows; None is all of them.

    Raises:
        ConfigError: If that is none of them or more than there are.
    """
    if share is None:
        return total
    count = round(share * total) if isinstance(share, float) and share <= 1 else int(share)
    if not 1 <= count <= total:
        raise ConfigError(
            f"{option}={share} makes {count:,} of {total:,} rows; give a count up to {total:,} or a fraction."
        )
    return count


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A shuffled order of the rows in which every beginning holds the classes in their proportions."""
    random = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[random.permutation(rows)] = (np.arange(len(rows)) + random.random(len(rows))) / len(rows)
    return np.argsort(place, kind="stable")
