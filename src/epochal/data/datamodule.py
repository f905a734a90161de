"""What every data set shares: the batch, its order, and where a resumed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import Inputs, Outputs
from epochal.data.batching import Batch, BatchOrder, Loader


class DataModule(pl.LightningDataModule):
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
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        """Facts that it may have once prepared, to try a model on before: what fails on all of them is the model's fault."""
        raise NotImplementedError  # each kind of data does

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        """What a model for this task reads, and what it gives."""
        raise NotImplementedError  # each kind of data does

    def lengths(self, split: str) -> Tensor | None:
        """By what rows are sorted into batches of like length; None where all are alike."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must remember to read other data the same way, as plain containers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
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
