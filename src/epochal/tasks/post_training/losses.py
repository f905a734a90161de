"""Losses and estimators of post-training, as functions of tensors.

N is the number of sequences, T their length. A `mask` (N, T) says which tokens belong to answers; what is outside of it is
zero in per-token results and has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import IGNORED

SPREAD = 1e-4  # added to the standard deviation of the rewards of a group, as TRL does
REDUCTIONS = ("token", "sequence", "constant")


def log_probabilities(logits: Tensor, targets: Tensor) -> Tensor:  # (N, T, V), (N, T) -> (N, T)
    """Of each target in nats; 0 where it is IGNORED."""
    asked = targets != IGNORED
    found = logits.log_softmax(-1).gather(-1, targets.masked_fill(~asked, 0)[..., None])[..., 0]
    return found.masked_fill(~asked, 0.0)  # a token that is never drawn has -inf


def entropy(logits: Tensor) -> Tensor:  # (N, T, V) -> (N, T)
    """Of the distribution of each token, in nats; logits may be -inf."""
    scores = logits.log_softmax(-1)
    return -(scores.exp() * scores.clamp(min=torch.finfo(scores.dtype).min)).sum(-1)


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:  # (N,), (N,) -> (N,)
    """Negative log-likelihood that the chosen answer is preferred: -log sigmoid(chosen - rejected), by scores (Bradley &
    Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1)."""
    return -F.logsigmoid(chosen - rejected)


def dpo(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

    Args:
        chosen, rejected: Log-probabilities (N,) of the answers under the policy: sums over tokens, or means, by which DPO is
            normalised by length (Meng et al. 2024, arXiv 2405.14734, compare).
        reference_chosen, reference_rejected: Under the reference.
        beta: Strength of the leash to the reference.

    Returns:
        Losses (N,), and the implicit rewards, beta * log(policy / reference), of chosen and rejected answers (N,).
    """
    better, worse = beta * (chosen - reference_chosen), beta * (rejected - reference_rejected)
    return -F.logsigmoid(better - worse), better.detach(), worse.detach()


def k3(policy: Tensor, reference: Tensor) -> Tensor:  # (N, T), (N, T) -> (N, T)
    """The estimate r - 1 - log r, r = reference / policy, of the KL divergence of the policy from the reference, in nats, from
    log-probabilities of tokens that the policy drew: unbiased, and never negative (Schulman 2020, "Approximating KL
    divergence")."""
    difference = reference - policy
    return difference.exp() - difference - 1


def group_advantages(rewards: Tensor, size: int, normalise: bool = True) -> Tensor:  # (N,) -> (N,)
    """Each reward relative to the mean of its group (Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    A group of equal rewards has advantages of 0.

    Args:
        rewards: Groups one after the other.
        size: Answers in a group, at least 2.
        normalise: Divide by the group's standard deviation; without, as Liu et al. 2025 (Dr. GRPO, arXiv 2503.20783).
    """
    groups = rewards.view(-1, size)
    advantages = groups - groups.mean(1, keepdim=True)
    if normalise:
        advantages = advantages / (groups.std(1, keepdim=True) + SPREAD)
    return advantages.flatten()


def clipped_policy_loss(policy: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv 1707.06347, equation 7), to be minimised.

    Args:
        policy: Log-probabilities (N, T) of the tokens.
        old: Of the policy that drew them.
        advantages: (N, T), or (N, 1) where all tokens of a sequence have one.
        clip: The ratio counts from 1 - clip to 1 + clip.

    Returns:
        The loss of each token (N, T), and whether the clip took its gradient away, bool (N, T).
    """
    ratio = (policy - old).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    return losses, ((ratio < clipped) & (advantages < 0)) | ((ratio > clipped) & (advantages > 0))


def reduced(values: Tensor, mask: Tensor, how: str, longest: int) -> Tensor:  # (N, T), (N, T) -> scalar
    """The mean of values per token, in one of the ways that are in use.

    Args:
        values: Of tokens.
        mask: Which tokens count.
        how: "token": over all tokens (TRL's `bnpo` and, of one batch, `dapo`). "sequence": the mean of each sequence, then
            over sequences (`grpo`, as published). "constant": the sum over N * longest (`dr_grpo`).
        longest: Most tokens that an answer may have.
    """
    values = values * mask
    if how == "token":
        return values.sum() / mask.sum().clamp(min=1)
    if how == "sequence":
        return (values.sum(1) / mask.sum(1).clamp(min=1)).mean()
    return values.sum() / (len(values) * longest)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, decay: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, equations 16 to 18).

    Args:
        rewards: (N, T) at each token.
        values: (N, T) of the state before each token.
        mask: The tokens of each episode, one stretch in a row.
        gamma: Discount of rewards, in [0, 1].
        decay: Lambda, in [0, 1]: 0 trusts the values alone, 1 the rewards alone.

    Returns:
        Advantages and returns (advantage + value), (N, T), 0 outside of the mask.
    """
    kept = mask.to(rewards)
    values = values * kept
    after = F.pad(values[:, 1:], (0, 1))  # the state after an episode's last token is worth nothing
    errors = (rewards + gamma * after - values) * kept
    advantages, running = torch.zeros_like(errors), torch.zeros_like(errors[:, 0])
    for step in reversed(range(errors.shape[1])):
        running = (errors[:, step] + gamma * decay * running) * kept[:, step]
        advantages[:, step] = running
    return advantages, (advantages + values) * kept


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:  # (N, T) each -> (N, T)
    """Half the squared error of values, or of those within clip of the old ones where that is larger (the code of Schulman et
    al. 2017)."""
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def whitened(
    values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Tensor:  # (N, T), (N, T) -> (N, T)
    """Values with mean 0 and standard deviation 1 over the mask, 0 elsewhere.

    Args:
        values, mask: Of tokens.
        total: Adds up a tensor over ranks, so that the mean is that of all of them.
    """
    chosen = values[mask.bool()]
    count, added = total(torch.stack((mask.sum().to(values.dtype), chosen.sum())))
    mean = added / count
    spread = (total(((chosen - mean) ** 2).sum()) / count).sqrt()
    spread = torch.where(count > 1, spread, torch.ones_like(spread))
    return (values - mean) / (spread + 1e-8) * mask


def distinct(tokens: Tensor, mask: Tensor, n: int) -> Tensor:  # (N, T), (N, T) -> scalar
    """The share of different n-grams among all of them in answers (Li et al. 2016, arXiv 1510.03055): it falls where a policy
    collapses to a few phrases. 1 where there is none.

    The more answers, the smaller it is; compare the same number of them.
    """
    whole = mask.bool().unfold(1, n, 1).all(-1) if mask.shape[1] >= n else mask.new_zeros((0,), dtype=torch.bool)
    if not whole.any():
        return torch.ones((), device=tokens.device)
    grams = tokens.unfold(1, n, 1)[whole]
    return torch.tensor(len(grams.unique(dim=0)) / len(grams), device=tokens.device)
