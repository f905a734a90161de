"""The base class of all data sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from epochal.core.errors import ConfigError
from epochal.core.protocols import TARGETS
from epochal.core.specs import ImageRange, Inputs, Outputs
from epochal.data.batching import Batch, BatchOrder, Loader, to_device

SPLITS = ("train", "val", "test")
MEASURED = 200  # batches, drawn at random, whose lengths make the mean


class UnpreparedError(ConfigError, AttributeError):
    """Data was asked for something that it knows only after `prepare`."""


class Batches:
    """The batches of a loader. Of a DataLoader Lightning would replace the order before it predicts."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)


class DataModule(pl.LightningDataModule):
    """A data set. `prepare` reads or makes its arrays; after that it has specs and yields batches.

    A subclass names the options that are its own in `__init__`, and hands all others on to its base as `**options`.
    `inspect.signature` of the subclass lists them all. What the options default to in a run stands in conf/dataset.

    Args:
        name: The choice in conf/dataset, for messages and file names.
        batch_size: Rows in a training batch, summed over all devices.
        eval_batch_size: Rows in a validation or test batch, summed over all devices.
        seed: The run's seed. It decides the order of training rows and their augmentation, not which rows are held out.
    """

    targets: ClassVar[tuple[str, ...]] = ()  # what can be learned from it, see `core.protocols.TARGETS`; best first
    yields: ClassVar[type]  # the class of its input spec, one of core.specs.Inputs
    target_span: ClassVar[float] = 1.0  # width of the interval of its targets, if these are numbers
    unit: ClassVar[str]  # what its rows are, in the plural, for messages
    name: str
    asks_some_tokens: bool = False  # whether there are targets IGNORED where inputs are no padding
    asks_questions: ClassVar[bool] = False  # whether a language model's targets are answers, of which accuracy tells
    prompt: str | None = None  # the beginning of the samples of a language model; None: a text's own
    conversational: bool = (
        False  # whether its texts are conversations, from which a network learns to answer as the assistant
    )
    learns: str = ""  # one of `targets`, set before `prepare`

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Gives the class an explicit signature, in which the options of its bases stand for `**options`."""
        super().__init_subclass__(**kwargs)
        own: list[inspect.Parameter] = []
        if "__init__" in vars(cls):
            own = list(inspect.signature(cls.__init__).parameters.values())[1:]  # without self
        named = {p.name: p for p in own if p.kind is not p.VAR_KEYWORD}
        if len(named) < len(own) or not own:
            kinds = [base for base in reversed(cls.__bases__) if issubclass(base, pl.LightningDataModule)]
            named = {name: p for base in kinds for name, p in inspect.signature(base).parameters.items()} | named
        cls.__signature__ = inspect.Signature(list(named.values()))

    def __init__(self, *, name: str, batch_size: int = 64, eval_batch_size: int = 256, seed: int = 1) -> None:
        super().__init__()
        self.name, self.batch_size, self.eval_batch_size, self.seed = name, batch_size, eval_batch_size, seed
        self.fingerprint = ""  # hash of the arrays, or of the options that they are made from; set by `prepare`

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there: the message of data that is not prepared says so."""
        if name.startswith("__") or vars(self).get("fingerprint", "-"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        raise UnpreparedError(f"{type(self).__name__} has read nothing yet; call prepare() first.")

    def check_typed(self, typed: Set[str]) -> None:
        """Raises ConfigError if one of these options was typed and its source has no use for it."""

    def prepare(self) -> None:
        """Reads or makes the arrays, or opens those of the cache.

        Raises:
            ConfigError: If the source is missing or not what the config says it is.
        """
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Lightning's hook before a training, validation, test or prediction: prepares the data where nobody has.

        Raises:
            ConfigError: If it does not go with the trainer, or has not what its task learns.
        """
        assert self.trainer is not None
        connector = self.trainer._accelerator_connector
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit or (self.trainer.world_size > 1 and connector.use_distributed_sampler):
            raise ConfigError(
                f"{type(self).__name__} orders its batches itself; give pl.Trainer use_distributed_sampler=False, and no "
                "overfit_batches: a train_size of one batch does that."
            )
        task: Any = self.trainer.lightning_module
        if not self.learns and hasattr(task, "target"):  # a task of ours that no config chose
            if task.target not in self.targets:
                raise ConfigError(
                    f"{type(task).__name__} learns {TARGETS[task.target]}, and {type(self).__name__} has "
                    f"{' and '.join(TARGETS[target] for target in self.targets)}."
                )
            self.learns = task.target
            self.use_image_range(task.image_range)
        if not self.fingerprint:
            self.prepare()

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        """Plausible specs, known before anything is read: a model that fits none of them is refused at once.

        Args:
            config: The group `dataset` of a config.
            target: One of `targets`.
        """
        raise NotImplementedError

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        """What a model reads, and what it must return to learn this target."""
        raise NotImplementedError

    def use_image_range(self, image_range: ImageRange) -> None:
        """Sets the range of the pixels that a model reads; see `core.specs.ImageRange`.

        Raises:
            ConfigError: If the data cannot be had in this range.
        """
        if image_range != "normalised":
            raise ConfigError(f"dataset={self.name} has no {image_range} images.")

    @property
    def note(self) -> str:
        """What the user should know about the rows before a run, e.g. that some are left out; may be empty."""
        return ""

    def lengths(self, split: str) -> Tensor | None:
        """(N,) numbers by which rows are sorted into batches of similar length; None if all rows have one length."""
        return None

    def mean_lengths(self) -> tuple[float | None, float | None]:
        """Mean length in tokens of inputs and of outputs in training batches, each as long as the longest of its batch.

        None where all have the length of the spec. It does not depend on the run's seed.
        """
        return None, None

    def padded_mean(self, lengths: Tensor) -> float:
        """The mean length of training rows whose own lengths are given (N,), when padded to the longest of a batch."""
        order = BatchOrder(
            count=len(lengths), batch_size=self.batch_size, seed=0, shuffle=True, lengths=self.lengths("train")
        )
        longest = [int(lengths[batch.rows].max()) for batch in islice(order, MEASURED)]
        return sum(longest) / len(longest)

    def state(self) -> dict[str, Any]:
        """What other data needs to be read in the same way (vocabulary, mean ...), as plain containers."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Makes the next `prepare` use the `state` of another run's data instead of the data's own."""

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        """Makes it ready to `encode` single examples as in training, from `load_state` alone where a state is kept.

        Args:
            inputs, outputs: The specs of the run whose state was loaded.
        """
        self.prepare()

    def encode(self, examples: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
        """Examples as the user has them -> inputs of the model (B, ...), and their lengths (B,) where these differ.

        Raises:
            ConfigError: If one cannot be read.
        """
        raise ConfigError(f"dataset={self.name} is not made of examples that can be given one by one.")

    def segments(self, inputs: Tensor, lengths: Tensor) -> Tensor | None:
        """Which text of a pair each token (B, T) of `encode` is of, 0 or 1; None where there are no pairs."""
        return None

    def rows(self, split: str) -> tuple[Dataset[Batch], int]:
        """The dataset of a split ("train", "val" or "test"), indexed by `BatchIndices`, and its number of rows."""
        raise NotImplementedError

    def sizes(self) -> dict[str, int]:
        """Number of rows by split."""
        return {split: self.rows(split)[1] for split in SPLITS}

    @property
    def dtype(self) -> torch.dtype:
        """Of the floats that the model reads: that of its weights, which `trainer.precision` decides."""
        module = self.trainer.lightning_module if self.trainer else None
        return torch.float32 if module is None else module.dtype  # type: ignore[return-value]

    def batches_per_epoch(self) -> int:
        """Training batches; the last, incomplete one is left out."""
        return self.rows("train")[1] // self.batch_size

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if batch.inputs.device == device:  # Lightning's own implementation walks through every field
            return batch
        return to_device(batch, device)

    def train_dataloader(self) -> DataLoader:
        progress = self.trainer.fit_loop.epoch_loop.batch_progress if self.trainer else None
        # above 0 where a run is resumed in the middle of an epoch
        return self._loader("train", shuffle=True, first=lambda: progress.current.ready if progress else 0)

    def val_dataloader(self) -> DataLoader:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._loader("test")

    def predict_dataloader(self) -> Batches:
        """The test rows in their own order, also where texts of a test are sorted by length."""
        return Batches(self._loader("test", by_length=False))

    def _loader(
        self, split: str, shuffle: bool = False, first: Callable[[], int] = lambda: 0, by_length: bool = True
    ) -> DataLoader:
        rows, count = self.rows(split)
        order = BatchOrder(
            count=count,
            batch_size=self.batch_size if shuffle else self.eval_batch_size,
            seed=self.seed,
            shuffle=shuffle,
            first=first,
            rank=self.trainer.global_rank if self.trainer else 0,
            world=self.trainer.world_size if self.trainer else 1,
            lengths=self.lengths(split) if by_length else None,
            once=split == "test",
        )
        return Loader(rows, order)

    def check_batch_size(self, count: int) -> None:
        """Raises ConfigError if count training rows do not fill one batch."""
        if self.batch_size > count:
            raise ConfigError(
                f"dataset.batch_size={self.batch_size} is larger than the {count:,} training rows of "
                f"dataset={self.name}."
            )


def check_count(option: str, value: Any, least: int = 1) -> None:
    """Raises ConfigError unless dataset.<option> is a whole number of at least least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"dataset.{option}={value} must be a whole number, {least:,} or more.")
