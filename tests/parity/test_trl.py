"""Losses of post-training beside those of the library `trl`, in its own environment: make parity.

TRL has no losses of tensors: its trainers' own methods are called with a stub in place of the trainer, and a network that returns
the same random tensors. It has no PPO any more; that and GAE are compared with vectors worked by hand in tests/tasks/post_training.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.specs import IGNORED
from epochal.data import Batch
from epochal.tasks import SupervisedFinetuning
from epochal.tasks.post_training import losses

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.parity

CLOSE = {"rtol": 0.0, "atol": 1e-12}
ROWS, STEPS, VOCAB = 6, 5, 11
OPTIONS: dict[str, Any] = {"optimizer": None, "scheduler": None, "total_steps": 1}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stub(**attributes: Any) -> Any:
    """A trainer on one process that keeps its metrics for itself."""
    made = MagicMock()
    made._metrics = defaultdict(lambda: defaultdict(list))
    made.accelerator.gather = made.accelerator.gather_for_metrics = lambda tensor: tensor
    made.accelerator.reduce = lambda tensor, **_: tensor
    made.accelerator.device, made.accelerator.num_processes = torch.device("cpu"), 1
    made.aux_loss_enabled = False
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(
    ("loss_type", "reduction"), [("grpo", "sequence"), ("bnpo", "token"), ("dapo", "token"), ("dr_grpo", "constant")]
)
def test_grpo(loss_type: str, reduction: str, beta: float) -> None:
    policy = random(ROWS, STEPS, seed=1).requires_grad_()
    old, reference = (policy.detach() + 0.3 * random(ROWS, STEPS, seed=seed) for seed in (2, 3))
    mask = torch.arange(STEPS) < torch.tensor([5, 1, 3, 2, 4, 5])[:, None]
    advantages = losses.group_advantages(random(ROWS, seed=4), 3)
    args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
    trainer = stub(
        args=args,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=0.2,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        use_vllm=False,
        max_completion_length=8,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _get_per_token_logps_and_entropies=lambda *_, **__: (policy, torch.zeros(ROWS, STEPS), None),
    )
    ids = torch.zeros(ROWS, STEPS, dtype=torch.long)
    inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask.long()}
    inputs |= {"advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference}
    theirs = trl.GRPOTrainer._compute_loss(trainer, None, {**inputs, "num_items_in_batch": mask.sum()})
    by_token, clipped = losses.clipped_policy_loss(policy, old, advantages[:, None], 0.2)
    ours = losses.reduced(by_token + beta * losses.k3(policy, reference), mask, reduction, 8)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(*(torch.autograd.grad(loss, policy)[0] for loss in (ours, theirs)), **CLOSE)
    share = losses.reduced(clipped.double(), mask, "token", 1)
    (region,) = trainer._metrics["train"]["clip_ratio/region_mean"]
    assert 0 < float(share) == pytest.approx(region)


def test_dpo() -> None:
    tokens = torch.randint(VOCAB, (2 * ROWS, STEPS), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(STEPS) >= torch.tensor([1, 2, 3, 1, 2, 4] * 2)[:, None]
    logits = [random(2 * ROWS, STEPS, VOCAB, seed=2).requires_grad_(), random(2 * ROWS, STEPS, VOCAB, seed=3)]

    def network(number: int) -> Any:
        """Returns what TRL's fused output layer does: log-probabilities of the labels after the first token."""

        def forward(*, labels: Tensor, **_: Any) -> Any:
            scores = logits[number][:, :-1]
            found = {"log_probs": losses.log_probabilities(scores, labels[:, 1:]), "mean_logits": scores.mean(-1)}
            return SimpleNamespace(
                **found, entropy=torch.zeros(scores.shape[:2]), is_top1=torch.zeros(scores.shape[:2]).bool()
            )

        return forward

    trainer = stub(
        precompute_ref_logps=False,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=0.1,
        use_weighting=False,
        label_smoothing=0.0,
        ref_model=network(1),
        model=MagicMock(training=True),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "completion_mask": mask.long()}
    with pytest.MonkeyPatch.context() as patch:
        module = __import__("importlib").import_module("trl.trainer.dpo_trainer")
        patch.setattr(module, "is_peft_model", lambda _: False)
        patch.setattr(module, "disable_gradient_checkpointing", MagicMock())
        theirs = trl.DPOTrainer._compute_loss(trainer, network(0), inputs, False)
    targets = tokens.masked_fill(~mask, IGNORED)[:, 1:]
    policy, reference = (losses.log_probabilities(each[:, :-1], targets).sum(1).chunk(2) for each in logits)
    ours, better, worse = losses.dpo(*policy, *reference, 0.1)
    torch.testing.assert_close(ours.mean(), theirs, **CLOSE)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits[0])[0] for loss in (ours.mean(), theirs)), **CLOSE)
    found = trainer._metrics["train"]
    assert found["rewards/chosen"] == [pytest.approx(float(better.mean()))]
    assert found["rewards/margins"] == [pytest.approx(float((better - worse).mean()))]


def test_reward_modeling() -> None:
    scores = random(2 * ROWS, 1, seed=1).requires_grad_()
    trainer = stub(args=SimpleNamespace(center_rewards_coefficient=None), _total_train_tokens=0, _tp_size=1)
    inputs = {"attention_mask": torch.ones(2 * ROWS, STEPS)}
    theirs = trl.RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=scores), inputs)
    ours = losses.bradley_terry(*scores[:, 0].chunk(2)).mean()
    torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, theirs)), **CLOSE)


def test_supervised_finetuning() -> None:
    """TRL leaves the loss to the network of `transformers`."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    logits = random(ROWS, STEPS, VOCAB, seed=1)
    tokens = torch.randint(VOCAB, (ROWS, STEPS), generator=torch.Generator().manual_seed(2))
    labels = tokens.masked_fill(torch.arange(STEPS) < torch.tensor([1, 2, 3, 1, 2, 4])[:, None], IGNORED)
    theirs = ForCausalLMLoss(logits.float(), labels, VOCAB)
    task = SupervisedFinetuning(model=torch.nn.Identity(), **OPTIONS)
    task.model.forward = lambda _: logits[:, :-1].float()
    ours, metrics = task.step(Batch(tokens[:, :-1], labels[:, 1:], 1, torch.full((ROWS,), STEPS - 1)))
    torch.testing.assert_close(ours, theirs)
    found = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(metrics["loss"].double(), found, rtol=1e-6, atol=1e-6)
