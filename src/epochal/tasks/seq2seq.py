"""What translation and captioning share: a sequence written token by token, about something that is read first."""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_number, check_whole
from epochal.core.specs import BEGIN, END, PAD, UNKNOWN
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task
from epochal.tasks.sequences import gather
from epochal.tasks.text_metrics import scores

FEW = 10  # texts at a validation


class Seq2SeqTask(Task):
    """Cross-entropy, in nats a token, of the logits (B, T, vocabulary) against the tokens that follow.

    Logs loss, in training with the smoothing and else without it; the share of tokens that are guessed right, each
    from the true ones before it, as accuracy; perplexity; tokens per second, read and written, without padding; and of
    texts that are written freely BLEU and chrF by sacrebleu, whose signatures stand above the texts, and the share
    that equals the reference to the letter, as exact.

    Args:
        label_smoothing: Share of each target that is spread evenly over all tokens, in training alone.
        teacher_forcing: Share of steps that read the true token before them, and not the one just guessed, at the
            end of the training; it falls evenly from 1.
        generated: Rows written at a validation, greedily, for its BLEU; 0 for none.
        beam_size: Beginnings that are kept in writing the test; 1 is greedy.
        length_penalty: 0 favours short texts; see `epochal.models.common.beam_search.generate`.
        max_length: Most tokens to write; None is the longest of the data.

    Raises:
        ValueError: If a number is out of range, or the network knows no teacher forcing below 1.
    """

    reports: ClassVar = ("val/loss", "min")
    example_metric: ClassVar = "accuracy"

    def __init__(
        self,
        *,
        model: nn.Module,
        label_smoothing: float = 0.0,
        teacher_forcing: float = 1.0,
        generated: int = 200,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(model=model, **rest)
        check_number("label_smoothing", label_smoothing, 0, below=1)
        check_number("teacher_forcing", teacher_forcing, 0, most=1)
        check_whole("generated", generated, 0)
        check_whole("beam_size", beam_size, 1)
        check_number("length_penalty", length_penalty, 0)
        if max_length is not None:
            check_whole("max_length", max_length, 1)
        if teacher_forcing < 1 and hasattr(model, "decode") and not feeds_itself(model):
            raise ValueError(f"teacher_forcing={teacher_forcing} needs a network that reads its own guesses: seq2seq.")
        self.label_smoothing, self.teacher_forcing, self.generated = label_smoothing, teacher_forcing, generated
        self.beam_size, self.length_penalty, self.max_length = beam_size, length_penalty, max_length

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        read, wanted = batch.targets[:, :-1], batch.targets[:, 1:].flatten()
        fed = {}
        if self.training and self.teacher_forcing < 1:
            fed["teacher_forcing"] = 1 - (1 - self.teacher_forcing) * self.global_step / self.total_steps
        logits = self.model(batch.inputs, read, lengths=batch.lengths, **fed).flatten(0, 1)  # (B * T, V)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, wanted, ignore_index=PAD, label_smoothing=smoothing)
        found, count = logits.detach(), self._count(batch)
        # argmax would take a tenth of the time of the loss
        right = found.gather(1, wanted[:, None])[:, 0] >= found.amax(1)
        accuracy = (right & (wanted != PAD)).sum() / count
        return loss, {
            "loss": loss.detach(),
            "accuracy": accuracy,
            "tokens": (count + self.read(batch)) / len(batch.targets),
        }

    def _count(self, batch: Batch) -> Tensor:
        return (batch.targets[:, 1:] != PAD).sum()

    def weight(self, batch: Batch) -> int:
        return int(self._count(batch))

    def read(self, batch: Batch) -> int | Tensor:
        """How many tokens of the source a batch has."""
        return 0

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return {**means, "perplexity": math.exp(min(means["loss"], 700))}

    # -- what it writes ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def write(self, split: str, numbers: Tensor, *, beam_size: int, length_penalty: float) -> list[list[int]]:
        """Token ids for these rows, without padding; rows of like length are written together."""
        lengths = self.data.lengths(split)
        order = torch.arange(len(numbers)) if lengths is None else lengths[numbers].argsort(stable=True)
        written: list[list[int]] = [[] for _ in numbers]
        for places in order.split(self.data.eval_batch_size):
            batch = gather(self, split, numbers[places])
            ids = self.model.generate(
                batch.inputs,
                batch.lengths,
                max_length=self.longest,
                beam_size=beam_size,
                length_penalty=length_penalty,
            )
            for place, row in zip(places.tolist(), ids.tolist(), strict=True):
                written[place] = [token for token in row if token != PAD]
        return written

    @property
    def longest(self) -> int:
        """Tokens that it writes at most."""
        return self.max_length or self.data.specs(self.data.task)[1].length

    def show(self) -> Artifacts:
        numbers = self.to_write("val")[: self.generated]
        if not len(numbers):
            return Artifacts()
        written = self.write("val", numbers, beam_size=1, length_penalty=0.0)
        return self._shown("val", numbers, written, listed=FEW)

    def test_artifacts(self) -> Artifacts:
        numbers = self.to_write("test")
        written = self.write("test", numbers, beam_size=self.beam_size, length_penalty=self.length_penalty)
        artifacts = self._shown("test", numbers, written, listed=len(numbers))
        self.measured |= {f"test/{name}": value for name, value in artifacts.metrics.items()}
        self.record("test", artifacts.metrics)
        return artifacts

    def _shown(self, split: str, numbers: Tensor, written: list[list[int]], listed: int) -> Artifacts:
        """Scores, texts and pictures of what was written for these rows; so many texts are listed."""
        texts = [self.data.target_tokenizer.decode(ids) for ids in written]
        references = self.references(split, numbers)
        metrics, head = scores(texts, references)
        artifacts = Artifacts(metrics=metrics)
        columns = {
            **self.sources(split, numbers),
            "reference": [those[0] for those in references],
            self.writes: texts,
        }
        listed_rows = records({name: column[:listed] for name, column in columns.items()})
        artifacts.texts[f"{self.writes}s"] = f"{head}\n\n{listed_rows}"
        self.look(artifacts, split, numbers, written, texts, references)
        return artifacts

    # -- what a subclass defines ------------------------------------------------------------------------------------

    writes: ClassVar[str]  # what, in a word

    def to_write(self, split: str) -> Tensor:
        """Numbers of the rows that something is to be written about."""
        return torch.arange(self.data.rows(split)[1])

    def sources(self, split: str, numbers: Tensor) -> dict[str, list[str]]:
        """What was read in these rows, as text, under its name; nothing where it is no text."""
        return {}

    def references(self, split: str, numbers: Tensor) -> list[list[str]]:
        """What would be right for each of these rows, one text or several."""
        references = self.data.references(split)
        return [[references[number]] for number in numbers.tolist()]

    def look(
        self,
        artifacts: Artifacts,
        split: str,
        numbers: Tensor,
        written: list[list[int]],
        texts: list[str],
        references: list[list[str]],
    ) -> None:
        """Adds pictures and further metrics of what was written."""
        raise NotImplementedError  # each objective does


def records(columns: dict[str, list[str]]) -> str:
    """A table that stands on its side, for texts too long for columns."""
    width = max(map(len, columns))
    rows = zip(*columns.values(), strict=True)
    return "\n\n".join(
        "\n".join(f"{name:<{width}}  {cell}" for name, cell in zip(columns, row, strict=True)) for row in rows
    )


def padded(rows: list[list[int]], device: torch.device) -> Tensor:
    """What a network reads to write these rows: BEGIN before each, its last token not (N, T)."""
    width = max(map(len, rows))
    return torch.tensor([[BEGIN, *row[:-1], *[PAD] * (width - len(row))] for row in rows], device=device)


def names(tokenizer: Any, ids: list[int]) -> list[str]:
    """One label a token, for axes."""
    special = {PAD: "<pad>", UNKNOWN: "<unknown>", BEGIN: "<begin>", END: "<end>"}
    return [special.get(token) or tokenizer.decode([token]).strip() or "_" for token in ids]


def feeds_itself(model: nn.Module) -> bool:
    return "teacher_forcing" in inspect.signature(model.forward).parameters
