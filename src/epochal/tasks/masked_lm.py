"""Masked words: some tokens of a text, from all the others."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import check_number
from epochal.core.errors import ConfigError
from epochal.core.seeds import mix
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Metrics, Task, at_least_single, model_inputs
from epochal.tasks.sequences import gather, token_counts

GAP = " ▁▁ "  # a masked token in a text
SHOWN = 8  # texts at each validation
TAG = 6  # mixed into the seed of a batch, so that masks do not repeat what dropout draws


class MaskedLM(Task):
    """Cross-entropy, in nats, of the logits (B, T, vocabulary) of the tokens that were chosen (Devlin et al. 2018, BERT,
    arXiv 1810.04805, section 3.1).

    Of the tokens of each text that are not reserved, `mask_ratio` are chosen, and at least one. Of these 80 % are read
    as the mask, 10 % as a random token and 10 % as they are. Every validation chooses the same, and the training anew in each
    epoch.

    Logs loss, accuracy and perplexity of the chosen tokens, and tokens per second; each validation shows a few texts. With
    a network that has `next_sentence`, pairs of texts are read of which half have got another second text, and the loss of
    telling these apart is added (section 3.1, task 2). Over several batches both are weighed by their chosen tokens.

    Args:
        mask_ratio: Fraction of the tokens that is chosen, in (0, 1).
        whole_words: Choose all tokens of a word or none (Devlin's later code).

    Raises:
        ValueError: If mask_ratio is out of range.
    """

    head: ClassVar = "masked_token"
    target: ClassVar = "text"
    reports: ClassVar = ("val/loss", "min")
    progress_metric: ClassVar = "accuracy"
    response_name: ClassVar = "for each <mask>"

    def __init__(self, *, mask_ratio: float = 0.15, whole_words: bool = False, **rest: Any) -> None:
        super().__init__(**rest)
        check_number("mask_ratio", mask_ratio, 0, below=1)
        if mask_ratio == 0:
            raise ValueError("mask_ratio=0 would leave nothing to learn; BERT chooses 0.15.")
        self.mask_ratio, self.whole_words = mask_ratio, whole_words
        self._ordinary: Tensor | None = None  # ids (N,) that stand for text
        self._starts: Tensor | None = None  # see `_words`
        self._exchanged: tuple[Batch, tuple[Batch, Tensor]] | None = None  # the last batch and what was made of it
        self._newest: tuple[Batch, Tensor] | None = None  # the last batch and what was chosen of it

    def weight(self, batch: Batch) -> int | Tensor:
        return self.chosen(self._pairs(batch)[0] if self._tells_pairs else batch).sum()

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        if self._tells_pairs:
            return self._step_of_pairs(batch)
        chosen = self.chosen(batch)
        read = model_inputs(batch._replace(inputs=self.corrupted(batch, chosen)), self.model)
        logits = at_least_single(self.model(*read, at=chosen))  # (N, V)
        targets = batch.inputs[chosen]
        loss = F.cross_entropy(logits, targets)
        return loss, {
            "loss": loss.detach(),
            "accuracy": (logits.argmax(1) == targets).float().mean(),
            **token_counts(batch),
        }

    def _step_of_pairs(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The loss of masked tokens and of whether the second text follows the first, added as published.

        Raises:
            ConfigError: If the data has no pairs.
        """
        batch, follows = self._pairs(batch)
        chosen = self.chosen(batch)
        inputs = self.corrupted(batch, chosen)
        logits, next_logits = self.model(inputs, batch.lengths, batch.segments, at=chosen)
        targets = batch.inputs[chosen]
        loss = F.cross_entropy(at_least_single(logits), targets)
        total = loss + F.cross_entropy(at_least_single(next_logits), 1 - follows.long())  # class 0: it follows
        right = (logits.argmax(1) == targets).float().mean()
        told = (next_logits.argmax(1) == 1 - follows.long()).float().mean()
        metrics = {"loss": total.detach(), "masked_loss": loss.detach(), "accuracy": right, "next_accuracy": told}
        return total, {**metrics, **token_counts(batch)}

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return {**means, "perplexity": math.exp(min(means.get("masked_loss", means["loss"]), 700))}

    def validation_artifacts(self) -> Artifacts:
        return Artifacts(texts={"masked": self._texts("val")})

    def test_artifacts(self) -> Artifacts:
        return Artifacts(texts={"masked": self._texts("test")})

    def chosen(self, batch: Batch) -> Tensor:
        """Which tokens are to be predicted, bool (B, T)."""
        if self._newest is not None and self._newest[0] is batch:
            return self._newest[1]
        tokens = batch.inputs.cpu()
        free = ~torch.isin(tokens, torch.tensor(self.data.tokenizer.ids.known()))
        if batch.lengths is not None:
            free &= torch.arange(tokens.shape[1]) < batch.lengths.cpu()[:, None]
        scores = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(mix(self._seed(batch), TAG)))
        wanted = (free.sum(1, keepdim=True) * self.mask_ratio).round().clamp(min=1)  # (B, 1)
        if self.whole_words:
            words = self._words(tokens)
            scores = scores.gather(1, words)
        rank = scores.masked_fill(~free, math.inf).argsort(dim=1, stable=True).argsort(dim=1)  # (B, T)
        if self.whole_words:  # of a word that of its first token, so that all are chosen or none
            rank = torch.full_like(rank, rank.shape[1]).scatter_reduce(1, words, rank, "amin").gather(1, words)
        chosen = (rank < wanted) & free
        if len(chosen) and not chosen.any():  # nothing but reserved tokens: the mean over none is no number
            chosen[0, 0] = True
        self._newest = batch, chosen.to(batch.inputs.device)
        return self._newest[1]

    def _seed(self, batch: Batch) -> int:
        """Of what is drawn for a batch: new in each epoch of the training, and the same in each validation."""
        if not self.training:
            return int(batch.inputs.sum())
        return (
            mix(batch.seed, self.global_rank) if self.global_rank else batch.seed
        )  # else all ranks mask the same places

    def corrupted(self, batch: Batch, chosen: Tensor) -> Tensor:
        """The tokens as the network reads them, (B, T)."""
        generator = torch.Generator().manual_seed(mix(self._seed(batch), TAG + 1))
        fate = torch.rand(chosen.shape, generator=generator).to(chosen.device)
        if self._ordinary is None:  # of a large vocabulary that takes longer than a step of a small network
            reserved = {*self.data.tokenizer.ids.known()}
            self._ordinary = torch.tensor([token for token in range(len(self.data.tokenizer)) if token not in reserved])
        places = torch.randint(len(self._ordinary), chosen.shape, generator=generator)
        others = self._ordinary[places].to(chosen.device)
        inputs = batch.inputs.masked_fill(chosen & (fate < 0.8), self._mask_id)
        return torch.where(chosen & (fate >= 0.9), others, inputs)

    def respond(self, prompt: str) -> list[str]:
        """The most probable tokens for each <mask> in a prompt.

        Raises:
            ValueError: If there is none, or the text has more tokens than the network reads.
        """
        parts = prompt.split("<mask>")
        if len(parts) == 1:
            raise ValueError('The prompt has no <mask>; write one, as in "the film is <mask>".')
        ids: list[int] = []
        for part in parts:
            ids += [
                *([self._mask_id] if ids or part is not parts[0] else []),
                *self.data.tokenizer.encode(part).tolist(),
            ]
        begin, end = self.data.tokenizer.ids.begin, self.data.tokenizer.ids.end
        ids = [*([] if begin is None else [begin]), *ids, *([] if end is None else [end])]
        longest = self.model.context_length
        if longest is not None and len(ids) > longest:
            raise ValueError(f"The prompt has {len(ids):,} tokens, but {longest:,} are the most that the model reads.")
        tokens = torch.tensor([ids], device=self.device)
        logits = self._logits(tokens)[0, [place for place, token in enumerate(ids) if token == self._mask_id]]
        return [self._candidates(row, 5) for row in logits.softmax(1)]

    @property
    def _tells_pairs(self) -> bool:
        """Whether the network also tells if the second text follows the first."""
        return getattr(getattr(self.model, "head", None), "next_sentence", None) is not None

    def _pairs(self, batch: Batch) -> tuple[Batch, Tensor]:
        """See `exchanged`.

        Raises:
            ConfigError: If the data has no pairs.
        """
        if batch.segments is None:
            raise ConfigError(
                "model.next_sentence=true needs pairs of texts: a data set with dataset.second_column, or dataset=glue."
            )
        if self._exchanged is None or self._exchanged[0] is not batch:
            self._exchanged = batch, exchanged(batch, self._seed(batch), pad=self.data.tokenizer.ids.filler)
        return self._exchanged[1]

    def _logits(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, vocabulary), whatever else the network tells."""
        found = self.model(tokens, lengths) if segments is None else self.model(tokens, lengths, segments)
        return found[0] if isinstance(found, tuple) else found

    @property
    def _mask_id(self) -> int:
        """Raises ConfigError if the vocabulary has no token for masked ones."""
        if (mask := self.data.tokenizer.ids.mask) is None:
            raise ConfigError("This vocabulary has no token for masked ones; task=masked_lm needs one that has.")
        return mask

    def _words(self, tokens: Tensor) -> Tensor:
        """The number of the word that each token belongs to, (B, T)."""
        if self._starts is None:
            self._starts = torch.from_numpy(self.data.tokenizer.word_starts())
        starts = self._starts[tokens]
        starts[:, 0] = True
        return starts.cumsum(1) - 1

    @torch.no_grad()
    def _texts(self, split: str) -> str:
        """What the network reads of the first texts, and what it says for each chosen token."""
        rows = torch.arange(min(SHOWN, self.data.rows(split)[1]))
        batch = gather(self, split, rows)
        chosen = self.chosen(batch)
        inputs = batch.inputs.masked_fill(chosen, self._mask_id)
        logits = self._logits(inputs, batch.lengths, batch.segments)
        shown = []
        for row in range(len(rows)):
            length = batch.inputs.shape[1] if batch.lengths is None else int(batch.lengths[row])
            lines = [self._with_gaps(inputs[row, :length].tolist())]
            for place in chosen[row].nonzero().flatten().tolist():
                truth = self._token(int(batch.inputs[row, place]))
                lines.append(f"    {truth}: {self._candidates(logits[row, place].float().softmax(0), 3)}")
            shown.append("\n".join(lines))
        return "\n\n".join(shown)

    def _with_gaps(self, ids: list[int]) -> str:
        """The text of the ids, with a mark in place of each masked token."""
        parts: list[list[int]] = [[]]
        for token in ids:
            parts.append([]) if token == self._mask_id else parts[-1].append(token)
        return GAP.join(self.data.tokenizer.decode(part) for part in parts).strip()

    def _candidates(self, probabilities: Tensor, count: int) -> str:
        """The most probable tokens of a distribution (V,)."""
        values, ids = probabilities.topk(count)
        found = zip(ids.tolist(), values.tolist())
        return " | ".join(f"{self._token(token)} {value:{'.0%' if value >= 0.1 else '.1%'}}" for token, value in found)

    def _token(self, token: int) -> str:
        return self.data.tokenizer.decode([token]).strip() or repr(self.data.tokenizer.decode([token]))


def exchanged(batch: Batch, seed: int, pad: int) -> tuple[Batch, Tensor]:
    """The pairs with another second text in about half of the rows, and which follow, bool (B,).

    Args:
        batch: With lengths and segments.
        seed: Decides which rows.
        pad: Id behind a row's last token.
    """
    assert batch.lengths is not None and batch.segments is not None
    count = len(batch.inputs)
    if not count:  # a rank's part of a last, small batch
        return batch, torch.ones(0, dtype=torch.bool, device=batch.inputs.device)
    generator = torch.Generator().manual_seed(mix(seed, TAG + 2))
    moved = torch.nonzero(torch.rand(count, generator=generator) < 0.5).flatten()
    others = torch.arange(count)
    others[moved] = moved.roll(1)  # each gets that of another row, unless there is one alone
    firsts, seconds = [], []
    for row, segment, length in zip(batch.inputs.cpu(), batch.segments.cpu(), batch.lengths.tolist(), strict=True):
        firsts.append(row[:length][segment[:length] == 0])
        seconds.append(row[:length][segment[:length] == 1])
    width = batch.inputs.shape[1]
    pairs = [torch.cat((firsts[row], seconds[other]))[:width] for row, other in enumerate(others.tolist())]
    inputs = nn.utils.rnn.pad_sequence(pairs, batch_first=True, padding_value=pad)
    segments = torch.zeros_like(inputs)
    for row, (first, pair) in enumerate(zip(firsts, pairs, strict=True)):
        segments[row, len(first) : len(pair)] = 1
    lengths = torch.tensor([len(pair) for pair in pairs])
    device = batch.inputs.device
    exchanged = Batch(inputs.to(device), inputs.to(device), batch.seed, lengths.to(device), segments.to(device))
    return exchanged, (others == torch.arange(count)).to(device)
