"""A trained network in a notebook: `epochal.load(folder)`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from epochal.core.errors import ConfigError
from epochal.core.format import number_text
from epochal.core.specs import Classes, Inputs, Outputs, describe
from epochal.data.batching import Batch
from epochal.inference.generate import alone, respond, set_options
from epochal.inference.load import SavedRun, open_run
from epochal.tasks.base import model_inputs
from epochal.training.factories import make_task, new_data
from epochal.training.run_folder import Run
from epochal.training.trainer import make_trainer

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N examples.

    Attributes:
        probabilities: Of each class, float (N, K), rows sum to 1.
        names: Of the K classes.
    """

    probabilities: np.ndarray
    names: tuple[str, ...]

    @property
    def indices(self) -> np.ndarray:
        """The number of the most probable class, int (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each example."""
        return [self.names[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        best = zip(self.labels, self.probabilities.max(axis=1))
        return ", ".join(f"{label} ({probability:.0%})" for label, probability in best)


class LoadedRun:
    """A run's network with its best weights, in eval mode, and what it needs to read examples as in training.

    Attributes:
        folder: Of the run.
        config: Resolved.
        specs: Of the network's inputs and outputs.
        model: The network, a `torch.nn.Module`.
        data: The data module, without its rows: normalisation or tokenizer.
    """

    def __init__(self, saved: SavedRun) -> None:
        self._saved = saved
        self.folder: Path = saved.folder
        self.config: DictConfig = saved.config
        self.specs: tuple[Inputs, Outputs] = (saved.inputs, saved.outputs)
        self.model = saved.task().model.eval()
        self.data = new_data(saved.config, saved.data)
        self.data.restore(*self.specs)

    @property
    def tokenizer(self) -> Any:
        """Of what the network writes, or reads; None where there is no text."""
        names = ("target_tokenizer", "tokenizer", "source_tokenizer")
        return next((found for name in names if (found := getattr(self.data, name, None)) is not None), None)

    @property
    def data_state(self) -> dict[str, Any]:
        """What its data needs to be read as in training, as plain containers: normalisation, vocabulary."""
        return self._saved.data

    @property
    def step(self) -> int:
        """Of the training, when the weights were saved; 0 of an export."""
        return int(self._saved.checkpoint.get("global_step", 0))

    @property
    def metrics(self) -> pd.DataFrame:
        """`metrics.csv`: a row for each logged step."""
        import pandas as pd

        return pd.read_csv(self.folder / "metrics.csv")

    @property
    def summary(self) -> dict[str, Any]:
        """`summary.json`: status, last and best metrics, parameters, FLOPs, speed, versions."""
        return Run(self.folder).summary()

    @torch.no_grad()
    def predict(self, examples: Any) -> Predictions:
        """The classes of images or texts.

        Args:
            examples: One, or several in a list or array: images as file paths, PIL images or uint8 pixels (H, W),
                (H, W, 3) or (C, H, W); or texts; or pairs of texts, as tuples or with a tab between.

        Raises:
            ConfigError: If the network tells no classes apart, or an example cannot be read.
        """
        names = self.specs[1]
        if not isinstance(names, Classes):
            raise ConfigError(f"predict goes with a network that classifies; this run learned {self.config.task.name}.")
        inputs, lengths = self.data.encode(_listed(examples))
        if lengths is not None and (lengths == 0).any():
            number = int((lengths == 0).nonzero()[0])
            raise ConfigError(f"Example {number + 1} has no word that the network knows; give at least one.")
        segments = None if lengths is None else self.data.segments(inputs, lengths)
        logits = self.model(*model_inputs(Batch(inputs, inputs, 0, lengths, segments), self.model))
        return Predictions(logits.softmax(dim=1).numpy(), names.names)

    def generate(self, prompt: str, *, samples: int = 1, **options: Any) -> str | list[str]:
        """How the text of a prompt goes on, or its translation.

        Args:
            prompt: What to go on from, or to translate.
            samples: How many texts; with 1 the text itself is returned.
            options: temperature, top_k, top_p, sample_length (in tokens) of a language model; beam_size, of one too, with which
                there is one text.

        Raises:
            ConfigError: If the network writes no text for another, an option is wrong, or it cannot read the prompt.
        """
        config = alone(self.config)
        set_options(config, OmegaConf.create({**options, **({"samples": samples} if samples != 1 else {})}))
        if "samples" in config.task:
            config.task.samples = samples
        task = make_task(config, self.model, total_steps=1)
        task.trainer = make_trainer(config, task, logger=False, enable_checkpointing=False)
        task.trainer.datamodule = self.data  # type: ignore[attr-defined]  # as in a test
        texts = respond(task.eval(), prompt)
        return texts[0] if len(texts) == 1 else texts

    def __repr__(self) -> str:
        names = f"{self.config.model.name} on {self.config.dataset.name}, {self.config.task.name.replace('_', ' ')}"
        return f"{names}: {self._tested()}" if self._tested() else names

    def _repr_html_(self) -> str:
        reads, gives = (describe(spec) for spec in self.specs)
        parameters = f"{sum(p.numel() for p in self.model.parameters()):,} parameters"
        lines = (repr(self), f"{reads} → {gives}", f"{parameters}; {self.folder}")
        return "<br>".join(html.escape(line) for line in lines)

    def _tested(self) -> str:
        metrics = self.summary.get("metrics") or {}
        tested = {name: value for name, value in metrics.items() if name.startswith("test/") and value is not None}
        return ", ".join(f"{name} {number_text(name, value)}" for name, value in list(tested.items())[:3])


def _listed(examples: Any) -> Sequence[Any]:
    """A list of examples, also where there is one."""
    if isinstance(examples, list | tuple):
        return examples
    if isinstance(examples, np.ndarray | torch.Tensor):
        array = np.asarray(examples)
        single = array.ndim == 2 or (array.ndim == 3 and (array.shape[2] in (3,) or array.shape[0] in (1, 3)))
        return [array] if single else list(array)
    return [examples]


def load(run: str | Path) -> LoadedRun:
    """The network of a run's folder, or of one that `epochal export to=safetensors` wrote; "latest" is the newest run in
    `outputs`.

    Raises:
        ConfigError: If the folder is no run's, or it holds no checkpoint.
    """
    return LoadedRun(open_run(run))
