"""Losses of post-training against direct formulas and vectors worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from epochal.core.specs import IGNORED
from epochal.tasks.post_training import losses


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_probabilities_are_of_the_targets_alone():
    logits, targets = random(2, 3, 5), torch.tensor([[1, IGNORED, 4], [IGNORED, 0, IGNORED]])
    found = losses.log_probabilities(logits, targets)
    for row, column in ((0, 0), (0, 2), (1, 1)):
        expected = logits[row, column, targets[row, column]] - logits[row, column].exp().sum().log()
        torch.testing.assert_close(found[row, column], expected)
    assert (found[targets == IGNORED] == 0).all()


def test_tokens_that_are_never_drawn_make_no_gradient_that_is_no_number():
    logits = random(1, 2, 4)
    logits[:, :, 0] = -math.inf
    logits.requires_grad_()
    losses.log_probabilities(logits, torch.tensor([[2, IGNORED]])).sum().backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad[0, 1] == 0).all()
    spread = losses.entropy(logits)
    assert torch.isfinite(spread).all()
    probabilities = logits.detach()[0, 0, 1:].softmax(0)
    torch.testing.assert_close(spread[0, 0], -(probabilities * probabilities.log()).sum())


def test_bradley_terry_and_dpo_are_their_formulas():
    chosen, rejected, reference_chosen, reference_rejected = (random(4, seed=seed) for seed in range(4))
    torch.testing.assert_close(
        losses.bradley_terry(chosen, rejected), -(chosen.exp() / (chosen.exp() + rejected.exp())).log()
    )
    ratio = (chosen - reference_chosen).exp() / (rejected - reference_rejected).exp()
    found, *rewards = losses.dpo(chosen, rejected, reference_chosen, reference_rejected, beta=0.3)
    torch.testing.assert_close(found, -(1 / (1 + ratio**-0.3)).log())
    torch.testing.assert_close(rewards[0] - rewards[1], 0.3 * ratio.log())
    at_start, *_ = losses.dpo(chosen, rejected, chosen, rejected, beta=0.3)
    torch.testing.assert_close(at_start, torch.full((4,), math.log(2), dtype=torch.float64))


def test_k3_is_unbiased_not_negative_and_zero_at_the_start():
    policy, reference = random(6).log_softmax(0), random(6, seed=1).log_softmax(0)
    estimates = losses.k3(policy, reference)
    torch.testing.assert_close((policy.exp() * estimates).sum(), (policy.exp() * (policy - reference)).sum())
    assert (estimates >= 0).all() and (losses.k3(policy, policy) == 0).all()


def test_advantages_are_relative_to_the_group():
    rewards = torch.tensor([1.0, 2.0, 3.0, 7.0, 7.0, 7.0])
    found = losses.group_advantages(rewards, 3)
    torch.testing.assert_close(found[:3], torch.tensor([-1.0, 0.0, 1.0]) / (1 + losses.SPREAD))
    assert (found[3:] == 0).all(), "equal rewards say nothing"
    assert losses.group_advantages(rewards, 3, normalise=False).tolist() == [-1, 0, 1, 0, 0, 0]


def test_the_clip_takes_gradients_where_the_ratio_is_beyond_it_in_the_direction_of_the_advantage():
    ratio = torch.tensor([[0.5, 1.0, 1.5, 0.5, 1.0, 1.5]])
    policy = ratio.log().requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]])
    found, clipped = losses.clipped_policy_loss(policy, torch.zeros_like(policy), advantages, 0.2)
    torch.testing.assert_close(found, -torch.tensor([[0.5, 1.0, 1.2, -0.8, -1.0, -1.5]]))
    assert clipped.tolist() == [[False, False, True, True, False, False]]
    found.sum().backward()
    torch.testing.assert_close(policy.grad, torch.tensor([[-0.5, -1.0, 0.0, 0.0, 1.0, 1.5]]))


def test_several_devices_whiten_by_the_values_of_all():
    values, mask = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.ones(4, 3, dtype=torch.bool)
    mask[0, 1:] = False
    whole = losses.whitened(values, mask)
    chosen = values[mask]
    torch.testing.assert_close(whole[mask], (chosen - chosen.mean()) / (chosen.std(correction=0) + 1e-8))
    halves = [(values[rows], mask[rows]) for rows in (slice(0, 2), slice(2, 4))]
    sums = [torch.stack((m.sum().float(), v[m].sum())) for v, m in halves]
    squares = [((v[m] - chosen.mean()) ** 2).sum() for v, m in halves]
    for number, (v, m) in enumerate(halves):
        others = iter((sums[1 - number], squares[1 - number]))
        found = losses.whitened(v, m, lambda own, others=others: own + next(others))
        torch.testing.assert_close(found, whole[2 * number : 2 * number + 2])


def test_reductions_are_means_of_different_kinds():
    values, mask = torch.tensor([[1.0, 2.0, 3.0], [5.0, 9.0, 9.0]]), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    found = [float(losses.reduced(values, mask, how, 4)) for how in losses.REDUCTIONS]
    assert found == [11 / 4, (2 + 5) / 2, 11 / 8]
    assert float(losses.reduced(values, mask & False, "token", 4)) == 0, "no token is no NaN"


def test_gae_of_a_hand_worked_episode():
    """With gamma 0.9 and lambda 0.5: errors 0 + 0.9*2 - 1 = 0.8, 0 + 0.9*3 - 2 = 0.7, 1 - 3 = -2; from the back A = -2,
    0.7 + 0.45 * -2 = -0.2, 0.8 + 0.45 * -0.2 = 0.71."""
    rewards, values = torch.tensor([[9.0, 0.0, 0.0, 1.0, 9.0]]), torch.tensor([[9.0, 1.0, 2.0, 3.0, 9.0]])
    mask = torch.tensor([[0, 1, 1, 1, 0]]).bool()
    advantages, returns = losses.gae(rewards, values, mask, 0.9, 0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.0, 0.71, -0.2, -2.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.0, 1.71, 1.8, 1.0, 0.0]]))
    # lambda 1 and gamma 1: what the rest of the episode really gave, minus the value
    advantages, returns = losses.gae(rewards, values, mask, 1.0, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0]]))


def test_the_value_loss_takes_the_worse_of_both():
    old, returns = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    values = torch.tensor([[0.5, -1.0]])  # towards the return beyond the clip, and away from it
    found = losses.clipped_value_loss(values, old, returns, 0.2)
    torch.testing.assert_close(found, 0.5 * torch.tensor([[0.8**2, 2.0**2]]))


def test_whitening_is_over_the_mask():
    values, mask = random(3, 4), torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]]).bool()
    found = losses.whitened(values, mask)
    assert (found[~mask] == 0).all()
    assert float(found[mask].mean()) == pytest.approx(0, abs=1e-9)
    assert float(found[mask].std(correction=0)) == pytest.approx(1, rel=1e-6)
    assert torch.isfinite(losses.whitened(values, torch.arange(12).view(3, 4) == 5)).all()


def test_distinct_pairs():
    tokens = torch.tensor([[0, 4, 5, 4, 5, 4], [0, 4, 5, 6, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]]).bool()
    assert float(losses.distinct(tokens, mask, 2)) == pytest.approx(3 / 6)  # 45 54 45 54, 45 56
    assert float(losses.distinct(tokens, mask & False, 2)) == 1
    assert float(losses.distinct(tokens[:, :1], mask[:, :1], 2)) == 1


def test_one_batch_is_four_micro_batches_weighted_by_their_tokens():
    policy = random(8, 5).requires_grad_()
    old, advantages = random(8, 5, seed=1) * 0.1 + policy.detach(), random(8, 1, seed=2)
    mask = torch.arange(5) < torch.tensor([1, 5, 2, 3, 4, 5, 1, 2])[:, None]

    def loss(rows):
        by_token, _ = losses.clipped_policy_loss(policy[rows], old[rows], advantages[rows], 0.2)
        return losses.reduced(by_token + losses.k3(policy[rows], old[rows]), mask[rows], "token", 5)

    (whole,) = torch.autograd.grad(loss(slice(None)), policy)
    parts = [slice(start, start + 2) for start in range(0, 8, 2)]
    (summed,) = torch.autograd.grad(sum(loss(part) * mask[part].sum() / mask.sum() for part in parts), policy)
    torch.testing.assert_close(whole, summed)
