"""What tasks share that train a language model to answer: prompts, answers, and frozen networks beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.seeds import mix
from epochal.core.specs import IGNORED
from epochal.data.batching import Batch
from epochal.models.common.layers import evaluating
from epochal.models.common.sampling import without
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Task, at_least_single
from epochal.tasks.language_modeling import LanguageModeling
from epochal.tasks.post_training.losses import distinct, entropy, k3, log_probabilities
from epochal.tasks.sequences import gather

JUDGED = 256  # prompts of the test whose answers the judge reads
TAG = 11  # mixed into a seed, so that answers do not repeat what else is drawn from it


@dataclass
class Answers:
    """Answers of a language model to N prompts.

    Attributes:
        tokens: Prompts and answers (N, T), padded on the right.
        mask: Which tokens are the answers', the END included, bool (N, T).
        lengths: Tokens of each row that are not padding (N,).
        ended: Whether each answer has its END, bool (N,).
    """

    tokens: Tensor
    mask: Tensor
    lengths: Tensor
    ended: Tensor

    @property
    def targets(self) -> Tensor:
        """The token after each but the last (N, T - 1), IGNORED where that is no answer's."""
        return self.tokens[:, 1:].masked_fill(~self.mask[:, 1:], IGNORED)

    def rows(self, chosen: Tensor) -> Answers:
        """The answers of some rows."""
        return Answers(self.tokens[chosen], self.mask[chosen], self.lengths[chosen], self.ended[chosen])

    def told(self) -> dict[str, Tensor]:
        """Metrics: tokens of an answer, the share without an END, and how many of the word pairs differ."""
        return {
            "length": self.mask.sum(1).float().mean(),
            "unended": 1 - self.ended.float().mean(),
            "distinct_2": distinct(self.tokens, self.mask, 2),
        }


class Judge(Protocol):
    """Reads answers and says how good they are: another network than the reward model, that learned from other data."""

    run: str
    fingerprint: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N texts -> the probability that each is good (N,)."""
        ...


class Policy(LanguageModeling):
    """A language model that learns to answer; see `LanguageModeling` for how answers are drawn.

    With a judge the test draws one answer to each of the first 256 prompts and logs how many of them it takes for good
    (`judged`), how many of their pairs of neighbouring tokens differ, how long they are, and beside a reference the KL
    divergence from it in nats an answer, unless top_k, top_p or a
    temperature of 0 draw them from another distribution than the one that is compared: the same numbers for every way to train a policy.

    Args:
        sample_length: Most tokens of an answer.
        samples: Prompts that are answered at each validation.
        judge: Of answers; None: none.
        **rest: See `LanguageModeling`.
    """

    target: ClassVar = "answers"
    response_name: ClassVar = "answer"

    def __init__(self, *, sample_length: int = 64, samples: int = 8, judge: Any = None, **rest: Any) -> None:
        super().__init__(sample_length=sample_length, samples=samples, **rest)
        self._judge: Judge | None = judge if callable(judge) else None  # a path where options are only checked

    def known(self, data: Any) -> dict[str, Any]:
        """Which judge it is, for the summary of the run."""
        found = super().known(data)
        return (
            found
            if self._judge is None
            else found | {"judge": {"run": self._judge.run, "fingerprint": self._judge.fingerprint}}
        )

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return means | (self.judged() if split == "test" and self._judge is not None else {})

    @torch.no_grad()
    def judged(self) -> dict[str, float]:
        """What the judge says of answers to the first prompts of the test, and what else is known of these."""
        assert self._judge is not None
        batch = gather(self, "test", torch.arange(min(JUDGED, self.data.rows("test")[1])))
        answers = self._sampled(*self.prompts_of(batch))
        told = answers.told()
        found = {
            "judged": (self._judge(self._texts(answers)) > 0.5).float().mean().item(),
            "judged_distinct_2": told["distinct_2"].item(),
            "judged_length": told["length"].item(),
        }
        as_scored = (
            self.temperature > 0 and self.top_k is None and self.top_p is None
        )  # else drawn from another distribution
        if isinstance(self, UsesFrozen) and "reference" in self.needs and as_scored:
            policy, reference = (self.token_scores(each, answers)[0] for each in (self.model, self.frozen("reference")))
            found["judged_kl"] = self.divergence(policy, reference, answers.mask[:, 1:])
        return found

    def divergence(self, policy: Tensor, reference: Tensor, mask: Tensor) -> float:
        """KL divergence from the reference in nats an answer, of log-probabilities (N, T - 1) of drawn answers."""
        return (k3(policy, reference) * mask).sum(1).mean().item()

    def token_scores(self, model: nn.Module, answers: Answers) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the answers' tokens, and the entropy at each, both (N, T - 1), as they are drawn."""
        with evaluating(model):
            logits = at_least_single(model(answers.tokens[:, :-1])) / (self.temperature or 1.0)
        logits = without(logits, self.forbidden)
        return log_probabilities(logits, answers.targets), entropy(logits.detach())

    @property
    def forbidden(self) -> list[int]:
        """Ids that are never drawn: reserved ones other than END."""
        ids = self.data.tokenizer.ids
        return [token for token in ids.known() if token != ids.end]

    def answer(
        self, prompts: Tensor, lengths: Tensor, *, seed: int, temperature: float, top_k: int | None, top_p: float | None
    ) -> Answers:
        """Draws an answer to each prompt (N, T) with lengths (N,); the seed decides which."""
        ids = self.data.tokenizer.ids
        tokens = self.model.generate(
            prompts,
            length=self.sample_length,
            lengths=lengths,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop=ids.end,
            forbidden=self.forbidden,
            pad=ids.filler,
            generator=torch.Generator(self.device).manual_seed(mix(seed, TAG)),
        )
        return answered(tokens, lengths.to(tokens.device), self.sample_length, ids.end)

    def respond(self, prompt: str) -> list[str]:
        """Answers to a prompt, the same ones for the same weights and seed.

        Raises:
            ValueError: If it is empty, or leaves no room for an answer.
        """
        ids, _ = self.data.encoded([{"role": "user", "content": prompt}], prompt=True)
        if len(ids) >= (self.model.context_length or len(ids) + 1):
            raise ValueError(
                f"The prompt has {len(ids):,} tokens and fills the context of {self.model.context_length:,}: there is no room "
                "for an answer."
            )
        prompts = torch.as_tensor(ids, dtype=torch.long, device=self.device)[None]
        lengths = torch.full((self.samples,), len(ids))
        if self.beam_size == 1:
            return self._texts(self._sampled(prompts.expand(self.samples, -1), lengths))
        end, pad = self.data.tokenizer.ids.end, self.data.tokenizer.ids.filler
        options = {"length": self.sample_length, "stop": end, "forbidden": self.forbidden, "pad": pad}
        tokens = self.model.most_probable(prompts, beam_size=self.beam_size, **options)
        return self._texts(answered(tokens, lengths[:1].to(tokens.device), self.sample_length, end))

    def _sampled(self, prompts: Tensor, lengths: Tensor) -> Answers:
        """Answers drawn as the options say, always from the run's seed."""
        options: dict[str, Any] = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return self.answer(prompts, lengths, seed=self.data.seed, **options)

    def _texts(self, answers: Answers) -> list[str]:
        """What was answered; where a prompt is a text that goes on, with the prompt."""
        shown = answers.mask if self.data.conversational else torch.ones_like(answers.mask)
        return [self.data.tokenizer.decode(row[kept].tolist()) for row, kept in zip(answers.tokens, shown)]

    def prompts(self, split: str) -> tuple[Tensor, Tensor]:
        """The first prompts of a split (N, T) and their lengths (N,), N being `samples`."""
        batch = gather(self, split, torch.arange(min(self.samples, self.data.rows(split)[1])))
        return self.prompts_of(batch)

    def prompts_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The prompts of a batch (B, T), and their lengths (B,): up to where the first answer begins."""
        assert batch.lengths is not None
        begins = answers_begin(batch.targets)
        places = torch.arange(batch.inputs.shape[1], device=batch.inputs.device)
        return batch.inputs.masked_fill(places >= begins[:, None], self.data.tokenizer.ids.filler), begins

    @torch.no_grad()
    def validation_artifacts(self) -> Artifacts:
        return self._answered("val")

    @torch.no_grad()
    def test_artifacts(self) -> Artifacts:
        return self._answered("test")

    def _answered(self, split: str) -> Artifacts:
        """The first prompts of a split and what is answered."""
        prompts, lengths = self.prompts(split)
        asked = [self.data.tokenizer.decode(row[:length].tolist()) for row, length in zip(prompts, lengths.tolist())]
        said = self._texts(self._sampled(prompts, lengths))
        lines = [f"> {question}\n\n{text}" if self.data.conversational else text for question, text in zip(asked, said)]
        return Artifacts(texts={"answers": "\n\n----\n\n".join(lines)})


class UsesFrozen(Task):
    """A task with frozen networks beside the one that it trains.

    They are no part of it: neither its parameters, its optimizer nor its checkpoints know of them. Whoever makes the task
    hands them over by `attach`; `epochal train` opens the runs of `init_from` for it.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self._frozen: dict[str, nn.Module] = {}  # a plain dict keeps them out of the state dict

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        """Takes the frozen networks, by the names in `needs`; their weights are never changed."""
        self._frozen = {name: networks[name].eval().requires_grad_(False) for name in self.needs}

    def frozen(self, name: str) -> nn.Module:
        """One of the frozen networks, on the task's device.

        Raises:
            ConfigError: If it was not handed over.
        """
        if name not in self._frozen:
            raise ConfigError(f"{type(self).__name__} needs its {name}: give it by attach({{'{name}': network}}).")
        network = self._frozen[name]
        return network.to(self.device)


def answers_begin(targets: Tensor) -> Tensor:  # (N, T) -> (N,)
    """How many inputs come before the first target: the length of the prompt."""
    return (targets != IGNORED).int().argmax(1) + 1


def answered(tokens: Tensor, lengths: Tensor, most: int, end: int | None) -> Answers:
    """What `generate` returned (N, T + most) for prompts with lengths (N,), cut to the longest answer.

    Args:
        tokens: Prompts, and answers behind them.
        lengths: Of the prompts.
        most: Tokens that an answer may have.
        end: The id that ends one.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)
    inside = (places >= lengths[:, None]) & (places < (lengths + most)[:, None])
    ends = inside & (tokens == (-1 if end is None else end))
    before = (ends.cumsum(1) - ends.int()) == 0  # no END before this token
    mask = inside & before
    total = lengths + mask.sum(1)
    width = int(total.max())
    return Answers(tokens[:, :width], mask[:, :width], total, ends.any(1))
