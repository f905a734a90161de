"""Learning from the scores of a reward model: GRPO, PPO, and DPO on answers of the policy's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_number, check_positive, check_whole
from epochal.core.errors import ConfigError
from epochal.core.seeds import mix
from epochal.data.batching import Batch
from epochal.models.common.layers import evaluating
from epochal.tasks.alternating import Alternating
from epochal.tasks.base import Metrics, at_least_single
from epochal.tasks.post_training import losses
from epochal.tasks.post_training.policy import Answers, Policy, UsesFrozen

ALGORITHMS = ("grpo", "ppo", "dpo")
REWARDS = ("score", "probability")


@dataclass
class Rollout:
    """Answers and what is known of them before the policy changes.

    Attributes:
        answers: Of N sequences.
        rewards: (N,).
        reference, old: Log-probabilities (N, T - 1) under the reference, and under the policy that drew the answers.
        advantages: (N, T - 1) of PPO, or (N, 1) of GRPO; of DPO none.
        values, returns: (N, T - 1) of PPO.
    """

    answers: Answers
    rewards: Tensor
    reference: Tensor
    old: Tensor
    advantages: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None


class RLHF(Alternating, UsesFrozen, Policy):
    """A policy answers prompts and learns from rewards, on a leash to the reference that it began as (Ouyang et al. 2022, arXiv
    2203.02155).

    A step draws `group` answers to each prompt of a batch, has the reward model score them, and updates the policy `updates`
    times on these. GRPO (Shao et al. 2024, arXiv 2402.03300) compares each answer with its group; the KL divergence from the
    reference, estimated by k3, is a part of the loss. PPO (Schulman et al. 2017, arXiv 1707.06347) learns the value of each
    state too, by a network that begins as the reward model, and has the divergence, log(policy / reference), in the reward of
    each token. DPO here takes the best and the worst answer of each group as the pair to learn from, so that its pairs are
    the policy's own of this step (online DPO, Guo et al. 2024, arXiv 2402.04792); the task `DPO` learns from pairs of a file.
    Dropout is off. Answers are drawn at `temperature`, and log-probabilities are those of the same distribution,
    in which reserved ids other than END do not occur.

    Logs reward, KL divergence in nats a sequence, entropy in nats a token, length of answers, the fraction that is clipped or
    has no END, and how many of their pairs of neighbouring tokens differ (a collapse is seen there). A validation also logs
    the objective, reward - beta * KL, which chooses the best checkpoint, and answers a few prompts.

    Differences from TRL's defaults: its `GRPOConfig` has beta=0 and divides by all tokens of a step (`loss_type="dapo"`),
    which is reduction="token" here.

    Args:
        algorithm: "grpo", "ppo" or "dpo".
        beta: Strength of the leash, at least 0; 0: none, which DPO has not.
        group: Answers to each prompt; of GRPO and DPO at least 2.
        updates: Of the policy with each step's answers; None: 4 of PPO, else 1.
        clip: The ratio of new to old probabilities counts up to 1 + clip and down to 1 - clip.
        reward: "score": reward_scale times the reward model's score, within +-reward_limit. "probability": its sigmoid.
        reward_scale: Factor on scores.
        reward_limit: Largest absolute reward by score.
        unended_reward: The reward of answers without END; None: as the reward model says.
        reduction: How GRPO's losses of tokens are averaged, see `epochal.tasks.post_training.losses.reduced`. Of DPO,
            "sequence" takes the mean of an answer's log-probabilities instead of the sum, which favours short answers.
        normalise: Divide advantages by the standard deviation of the group, of PPO of the batch.
        gamma: Discount of PPO's rewards.
        gae_lambda: Lambda of PPO's advantages.
        value_clip: Clip of PPO's values.
        temperature: At which answers are drawn, above 0.
        best_of: Of as many answers to each prompt, the one that the reward model likes best is judged and shown; None: one
            answer. Reward and KL divergence of validations stay those of one answer. With a policy that is not trained
            (duration=1steps with a rate of nearly 0) it is the usual baseline, best of n.
        **rest: See `Policy`; top_k and top_p count for answers that are shown or judged, not for those that it learns from.

    Raises:
        ValueError: If a choice or number is out of range.
    """

    target: ClassVar = "prompts"
    reports: ClassVar = ("val/objective", "max")
    progress_metric: ClassVar = "reward"
    needs: ClassVar = ("reference", "reward")
    only_with: ClassVar = {
        **{name: (OnlyWith("algorithm", ("ppo",)),) for name in ("gamma", "gae_lambda", "value_clip")},
        **{name: (OnlyWith("algorithm", ("grpo", "ppo")),) for name in ("clip", "normalise")},
        **{name: (OnlyWith("reward", ("score",)),) for name in ("reward_scale", "reward_limit")},
        "reduction": (OnlyWith("algorithm", ("grpo", "dpo")),),
    }

    def __init__(
        self,
        *,
        algorithm: str = "grpo",
        beta: float = 0.05,
        group: int = 8,
        updates: int | None = None,
        clip: float = 0.2,
        reward: str = "score",
        reward_scale: float = 0.5,
        reward_limit: float = 3.0,
        unended_reward: float | None = -1.0,
        reduction: str = "token",
        normalise: bool = True,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        value_clip: float = 0.2,
        temperature: float = 1.0,
        best_of: int | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(temperature=temperature, **rest)
        check_choice("algorithm", algorithm, ALGORITHMS)
        check_choice("reward", reward, REWARDS)
        check_choice("reduction", reduction, losses.REDUCTIONS)
        check_number("beta", beta, 0)
        if algorithm == "dpo":
            check_positive("beta", beta)
        check_whole("group", group, 1 if algorithm == "ppo" else 2)
        if updates is not None:
            check_whole("updates", updates, 1)
        for name, value in (("clip", clip), ("value_clip", value_clip), ("reward_limit", reward_limit)):
            check_positive(name, value)
        if best_of is not None:
            check_whole("best_of", best_of, 1)
        check_positive("reward_scale", reward_scale)
        check_positive("temperature", temperature)
        check_number("gamma", gamma, 0, most=1)
        check_number("gae_lambda", gae_lambda, 0, most=1)
        self.algorithm, self.beta, self.group = algorithm, beta, group
        self.updates = updates or (4 if algorithm == "ppo" else 1)
        self.clip, self.value_clip, self.gamma, self.gae_lambda = clip, value_clip, gamma, gae_lambda
        self.reward, self.reward_scale, self.reward_limit = reward, reward_scale, reward_limit
        self.unended_reward, self.reduction, self.normalise = unended_reward, reduction, normalise
        self.best_of = best_of or 1
        self.value: nn.Module | None = None  # of PPO

    def attach(self, networks: Mapping[str, nn.Module]) -> None:
        super().attach(networks)
        if self.algorithm == "ppo":
            reward = networks["reward"]
            if "next_token" not in getattr(reward, "heads", ()) or not hasattr(reward, "states"):
                raise ConfigError(
                    f"algorithm=ppo begins its value network as the reward model, which must read from left to right as gpt "
                    f"and llama do; {type(reward).__name__} does not. algorithm=grpo needs none."
                )
            self.value = copy.deepcopy(reward).requires_grad_(True)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.check_room(self.data)

    def known(self, data: Any) -> dict[str, Any]:
        """Also checks the data before a run begins.

        Raises:
            ConfigError: See `check_room`.
        """
        self.check_room(data)
        return super().known(data)

    def check_room(self, data: Any) -> None:
        """Raises ConfigError if a prompt leaves no room for an answer in the context of one of the networks."""
        for name, network in {"policy": self.model, **{name: self.frozen(name) for name in self.needs}}.items():
            if (room := getattr(network, "context_length", None)) is None:
                continue
            for split in ("train", "val", "test"):
                longest = int(data.rows(split)[0].tokens.lengths.max())
                if longest + self.sample_length > room:
                    raise ConfigError(
                        f"A prompt of {split} has {longest:,} tokens, and with task.sample_length={self.sample_length} more it "
                        f"fills the context of {room:,} of the {name}; take a smaller sample_length, or shorter prompts."
                    )

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **rest: Any) -> Any:
        """Without the reward model there is no value network: its weights are left out, as only the policy is used."""
        if self.value is None:
            state_dict = {name: tensor for name, tensor in state_dict.items() if not name.startswith("value.")}
        return super().load_state_dict(state_dict, *args, **rest)

    def parts(self) -> Mapping[str, nn.Module]:
        return {"policy": self.model} | ({} if self.value is None else {"value": self.value})

    def weight(self, batch: Batch) -> int | Tensor:
        return len(batch.targets)

    # -- a step -----------------------------------------------------------------------------------------------------

    def train_parts(self, batch: Batch) -> Metrics:
        rollout = self.rollout(batch)
        mask = rollout.answers.mask[:, 1:]
        for _ in range(self.updates):
            self.update("policy", lambda: self.policy_loss(rollout))
            if self.value is not None:
                self.update("value", lambda: (self._value_loss(rollout), {}))
        kl = losses.k3(rollout.old, rollout.reference) * mask
        metrics = {"reward": rollout.rewards.mean(), "kl": kl.sum(1).mean(), **rollout.answers.told()}
        return metrics | {"tokens": rollout.answers.lengths.view(-1, self.group).sum(1).float()}

    @torch.no_grad()
    def rollout(self, batch: Batch) -> Rollout:
        """Draws and scores answers to a batch of prompts; the batch's seed decides which."""
        assert batch.lengths is not None
        prompts, lengths = (each.repeat_interleave(self.group, 0) for each in (batch.inputs, batch.lengths))
        seed = mix(batch.seed, self.global_rank) if self.global_rank else batch.seed  # else all ranks draw alike
        answers = self._drawn(prompts, lengths, seed=seed)
        rewards, mask = self.rewards(answers), answers.mask[:, 1:]
        old, reference = (self.token_scores(model, answers)[0] for model in (self.model, self.frozen("reference")))
        if self.algorithm == "dpo":
            return Rollout(answers, rewards, reference, old)
        if self.value is None:
            advantages = losses.group_advantages(rewards, self.group, self.normalise)[:, None]
            return Rollout(answers, rewards, reference, old, advantages)
        values = self._values(answers)
        by_token = -self.beta * (old - reference) * mask
        last = answers.lengths[:, None] - 2  # of the last token of an answer, among the tokens after the first
        by_token = by_token.scatter_add(1, last, rewards[:, None])
        advantages, returns = losses.gae(by_token, values, mask, self.gamma, self.gae_lambda)
        if self.normalise:
            advantages = losses.whitened(advantages, mask, lambda sums: self._over_ranks(sums, "sum"))
        return Rollout(answers, rewards, reference, old, advantages, values, returns)

    def policy_loss(self, rollout: Rollout) -> tuple[Tensor, Metrics]:
        """The loss of the policy on answers that it or an earlier policy drew, and metrics."""
        mask = rollout.answers.mask[:, 1:]
        scores, spread = self.token_scores(self.model, rollout.answers)
        told = {"entropy": losses.reduced(spread, mask, "token", 1).detach()}
        if rollout.advantages is None:
            loss, margins = self._preference_loss(scores, rollout)
            return loss, told | {"accuracy": (margins > 0).float().mean(), "margin": margins.mean()}
        by_token, clipped = losses.clipped_policy_loss(scores, rollout.old, rollout.advantages, self.clip)
        if self.algorithm == "grpo" and self.beta:
            by_token = by_token + self.beta * losses.k3(scores, rollout.reference)
        reduction = self.reduction if self.algorithm == "grpo" else "token"
        loss = losses.reduced(by_token, mask, reduction, self.sample_length)
        if reduction == "token":
            loss = loss * self.share(mask.sum())
        return loss, told | {"clip_fraction": losses.reduced(clipped.float(), mask, "token", 1)}

    def _preference_loss(self, scores: Tensor, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """DPO's loss on the best and the worst answer of each group, and by how much their implicit rewards differ; a group of
        equal rewards teaches nothing."""
        groups = rollout.rewards.view(-1, self.group)
        first = torch.arange(len(groups), device=groups.device) * self.group
        best, worst = first + groups.argmax(1), first + groups.argmin(1)  # of equal rewards the same answer
        counts = (
            rollout.answers.mask.sum(1) if self.reduction == "sequence" else torch.ones_like(rollout.answers.lengths)
        )
        policy, reference = (each.sum(1) / counts for each in (scores, rollout.reference))
        loss, better, worse = losses.dpo(policy[best], policy[worst], reference[best], reference[worst], self.beta)
        return loss.mean(), better - worse

    def _value_loss(self, rollout: Rollout) -> Tensor:
        assert rollout.values is not None and rollout.returns is not None
        values = self._values(rollout.answers)
        by_token = losses.clipped_value_loss(values, rollout.values, rollout.returns, self.value_clip)
        mask = rollout.answers.mask[:, 1:]
        return losses.reduced(by_token, mask, "token", 1) * self.share(mask.sum())

    def rewards(self, answers: Answers) -> Tensor:
        """The reward (N,) of each answer."""
        scores = at_least_single(self.frozen("reward")(answers.tokens, answers.lengths))
        if self.reward == "probability":
            rewards = scores.sigmoid()
        else:
            rewards = (self.reward_scale * scores).clamp(-self.reward_limit, self.reward_limit)
        if self.unended_reward is None:
            return rewards
        return torch.where(answers.ended, rewards, torch.full_like(rewards, self.unended_reward))

    def _drawn(self, prompts: Tensor, lengths: Tensor, *, seed: int) -> Answers:
        return self.answer(prompts, lengths, seed=seed, temperature=self.temperature, top_k=None, top_p=None)

    def _values(self, answers: Answers) -> Tensor:
        """The value of the state before each token but the first, (N, T - 1); 0 where that is no answer's."""
        value: Any = self.value
        with evaluating(value):
            found = value.head(value.states(answers.tokens[:, :-1]))[..., 0]
        return at_least_single(found) * answers.mask[:, 1:]

    # -- validation and test ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        assert batch.lengths is not None
        answers = self._drawn(batch.inputs, batch.lengths, seed=self.data.seed + int(batch.targets[0]))
        mask, rewards = answers.mask[:, 1:], self.rewards(answers)
        (policy, spread), (reference, _) = (
            self.token_scores(model, answers) for model in (self.model, self.frozen("reference"))
        )
        kl = (losses.k3(policy, reference) * mask).sum(1).mean()
        objective = rewards.mean() - self.beta * kl
        metrics = {"loss": -objective, "objective": objective, "reward": rewards.mean(), "kl": kl}
        return -objective, {**metrics, "entropy": losses.reduced(spread, mask, "token", 1), **answers.told()}

    def _sampled(self, prompts: Tensor, lengths: Tensor) -> Answers:
        if self.best_of == 1 or not self._frozen:  # a finished run that answers a prompt has no reward model
            return super()._sampled(prompts, lengths)
        answers = super()._sampled(*(each.repeat_interleave(self.best_of, 0) for each in (prompts, lengths)))
        best = self.rewards(answers).view(-1, self.best_of).argmax(1)
        return answers.rows(torch.arange(len(prompts), device=best.device) * self.best_of + best)

    def divergence(self, policy: Tensor, reference: Tensor, mask: Tensor) -> float:
        """As of `Policy`; of the best of n an upper bound: the mean log-ratio of the chosen answers + log n - (n - 1) / n
        (Beirami et al. 2024, arXiv 2401.01879)."""
        if self.best_of == 1:
            return super().divergence(policy, reference, mask)
        chosen = ((policy - reference) * mask).sum(1).mean().item()
        return chosen + math.log(self.best_of) - (self.best_of - 1) / self.best_of

    def prompts_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.lengths is not None
        return batch.inputs, batch.lengths
