"""The next token of a text, from the ones before it."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.checks import OnlyWith, check_number, check_whole
from epochal.core.errors import ConfigError
from epochal.core.protocols import BeamSearch, CarriesState, LanguageModel
from epochal.core.seeds import mix
from epochal.core.specs import IGNORED
from epochal.data.batching import Batch
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.tasks.base import Metrics, Task, at_least_single
from epochal.tasks.sequences import MOST_BEAMS, prompt_ids, token_counts
from epochal.tasks.visuals.sequences import add_state_gradients

GRADIENT_EXAMPLES = 8  # windows whose gradients are averaged: a long one takes its time, step by step


class LanguageModeling(Task):
    """Cross-entropy, in nats, of the logits (B, T, vocabulary) against the next tokens (B, T).

    Logs loss, perplexity, bits per character and per byte, and tokens per second, and generates samples; for a recurrent
    network also by how many powers of ten the gradient of the last step's loss shrinks from the last state to the first.
    Of questions it logs the accuracy, at the test also by the number of examples before them, where there are such.

    Args:
        sample_length: Tokens in a sample, without the prompt.
        samples: How many are generated at each validation.
        temperature: Divides the logits before the softmax; 0 is greedy.
        top_k: Sample only from this many of the most probable tokens; None from all.
        top_p: Sample only from the fewest most probable tokens whose probabilities sum to at least this number, in
            (0, 1] (nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751); None from all.
        beam_size: Above 1, one sample: the most probable text that beam search with so many hypotheses finds; temperature,
            top_k and top_p then have no effect.
        carry_state: At validation and test a recurrent network reads running text from beginning to end, instead of each
            window from an empty state; the training stays as it is.

    Raises:
        ValueError: If one of these is out of range, or the network has no state to carry.
    """

    head: ClassVar = "next_token"
    target: ClassVar = "text"
    reports: ClassVar = ("val/loss", "min")
    response_name: ClassVar = "sample"
    only_with: ClassVar = {
        "samples": (OnlyWith("beam_size", (1,)), OnlyWith("temperature", but=(0,))),  # which would all be the same
        "temperature": (OnlyWith("beam_size", (1,)),),
        "top_k": (OnlyWith("beam_size", (1,)), OnlyWith("temperature", but=(0,))),
        "top_p": (OnlyWith("beam_size", (1,)), OnlyWith("temperature", but=(0,))),
    }

    def __init__(
        self,
        *,
        sample_length: int = 300,
        samples: int = 2,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        beam_size: int = 1,
        carry_state: bool = False,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        check_whole("beam_size", beam_size, 1, MOST_BEAMS)
        if beam_size > 1 and isinstance(self.model, LanguageModel) and not isinstance(self.model, BeamSearch):
            raise ValueError(
                f"beam_size={beam_size} goes with gpt or llama; {type(self.model).__name__} has no beam search."
            )
        if carry_state and isinstance(self.model, LanguageModel) and not isinstance(self.model, CarriesState):
            raise ValueError(
                f"carry_state=true goes with a recurrent network; {type(self.model).__name__} has no state, and "
                "begins warm by a smaller dataset.eval_stride."
            )
        check_number("temperature", temperature, 0)
        if top_k is not None:
            check_whole("top_k", top_k, 1)
        if top_p is not None:
            check_number("top_p", top_p, 0, most=1)
            if top_p == 0:
                raise ValueError("top_p=0 would leave no token to sample; top_k=1 always takes the most probable one.")
        self.sample_length, self.samples = sample_length, samples
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.beam_size, self.carry_state = beam_size, carry_state
        self._state: Any = None  # of the network after the last batch of a validation or test

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not self.carry_state:
            return
        if getattr(self.data, "eval_stride", None) is None or self.data.asks_some_tokens:
            raise ConfigError(
                "task.carry_state=true reads running text window by window: it goes with dataset=text and its kind, and "
                "dataset.eval_stride=null."
            )
        if self.trainer.world_size > 1:
            raise ConfigError("task.carry_state=true reads a text from beginning to end, which one device must do.")

    def _start_pass(self) -> None:
        super()._start_pass()
        self._state = None

    def weight(self, batch: Batch) -> int | Tensor:
        if batch.lengths is None and not self.data.asks_some_tokens:  # windows of one length
            return len(batch.targets)
        return (next_tokens(batch)[1] != IGNORED).sum()

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        inputs, targets = next_tokens(batch)
        logits = at_least_single(self._logits(inputs))  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        metrics = {"loss": loss.detach(), **token_counts(batch)}
        if self.data.asks_questions:
            metrics |= self._answers(logits.detach(), batch)
        return loss, metrics

    def _logits(self, inputs: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        if self.training or not self.carry_state:
            return self.model(inputs)
        # the windows of a batch follow each other, so that they are one text
        logits, self._state = self.model.read_on(inputs.reshape(1, -1), self._state)
        return logits.view(*inputs.shape, -1)

    def _answers(self, logits: Tensor, batch: Batch) -> Metrics:
        """The accuracy of what is asked for, at the test also by the number of examples before it."""
        right, asked = logits.argmax(-1) == batch.targets, batch.targets != IGNORED
        metrics = {"accuracy": (right & asked).sum() / asked.sum()}
        if self.trainer.testing and hasattr(self.data, "shots"):
            shots = self.data.shots(batch)
            for count in range(int(shots.max()) + 1):
                metrics[f"shots_{count}/accuracy"] = right[shots == count].float().mean()
        return metrics

    def derive(self, means: dict[str, float], split: str) -> dict[str, float]:
        return {**means, "perplexity": math.exp(min(means["loss"], 700)), **bits(self.data, means["loss"], split)}

    def validation_artifacts(self) -> Artifacts:
        artifacts = self.test_artifacts()
        add_state_gradients(self, artifacts, last_step_loss, examples=GRADIENT_EXAMPLES)
        return artifacts

    def test_artifacts(self) -> Artifacts:
        if hasattr(self.data, "shots"):
            found = {name: re.fullmatch(r"test/shots_(\d+)/accuracy", name) for name in self.measured}
            by_shots = {float(match[1]): self.measured[name] for name, match in found.items() if match}
            profile = Profile("examples before the question", "test accuracy", list(by_shots.values()), list(by_shots))
            return Artifacts(profiles={"accuracy_by_shots": profile} if by_shots else {})
        text = self.data.prompt
        prompt = self._begin if text is None else self.data.tokenizer.encode(text).tolist()
        return Artifacts(texts={"samples": "\n\n----\n\n".join(self._sample(prompt))})

    def respond(self, prompt: str) -> list[str]:
        """Texts that begin with the prompt, the same ones for the same weights and seed.

        Raises:
            ValueError: If it is empty, longer than the model reads, or has characters that the vocabulary lacks.
        """
        longest = self.model.context_length
        room = None if longest is None else longest - len(self._begin)
        return self._sample([*self._begin, *prompt_ids(self.data.tokenizer, prompt, longest=room)])

    @property
    def _begin(self) -> list[int]:
        """What comes before a text: nothing where texts are windows of a long one."""
        begin = self.data.tokenizer.ids.begin
        return [begin] if self.data.prompt is None and begin is not None else []

    def _sample(self, prompt: list[int]) -> list[str]:
        """Texts that go on from the ids of a prompt; single texts end with their END token."""
        ids = self.data.tokenizer.ids
        options: dict[str, Any] = {
            "length": self.sample_length,
            "stop": ids.end if self.data.prompt is None else None,
            "forbidden": [token for token in ids.known() if token != ids.end],
            "pad": ids.filler,
        }
        beginning = torch.tensor(prompt, device=self.device)[None]
        if self.beam_size > 1:
            tokens = self.model.most_probable(beginning, beam_size=self.beam_size, **options)  # (1, T)
        else:
            tokens = self.model.generate(
                beginning.expand(self.samples, -1),
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                generator=torch.Generator(self.device).manual_seed(mix(self.data.seed, 7)),
                **options,
            )  # (samples, T)
        return [self.data.tokenizer.decode(row).strip("\n") for row in tokens.tolist()]


def bits(data: Any, loss: float, split: str) -> dict[str, float]:
    """The loss, nats a token, as bits per character and per byte of UTF-8, which compare tokenizers; of texts that have
    these, unless the tokenizer loses a part of them, which then costs nothing to predict."""
    found: dict[str, float] = {}
    if not getattr(getattr(data, "tokenizer", None), "keeps_text", True):
        return found
    for name, counts in (("bits_per_character", "characters_per_token"), ("bits_per_byte", "bytes_per_token")):
        if per_token := (getattr(data, counts, None) or {}).get(split):
            found[name] = loss / math.log(2) / per_token
    return found


def next_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """Inputs (B, T) and the token after each, or IGNORED: of windows as they are, of single texts without padding."""
    if batch.lengths is None:
        return batch.inputs, batch.targets
    places = torch.arange(1, batch.inputs.shape[1], device=batch.inputs.device)
    inside = places < batch.lengths[:, None]
    return batch.inputs[:, :-1], batch.inputs[:, 1:].masked_fill(~inside, IGNORED)


def last_step_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the last token of each window, summed over windows."""
    return F.cross_entropy(logits[:, -1], targets[:, -1], reduction="sum")
