"""Tasks of post-training around a tiny network: how they begin, what counts, and what does not change a result."""

from __future__ import annotations

import copy
import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from epochal.core.errors import ConfigError
from epochal.core.specs import ASSISTANT, BEGIN, END, IGNORED, PAD, RESERVED
from epochal.data import Batch
from epochal.data.tokenizers import Characters
from epochal.models import BERT, GPT
from epochal.tasks import DPO, RLHF, RewardModeling, SupervisedFinetuning
from epochal.tasks.post_training.policy import answered
from epochal.tasks.post_training.reward_modeling import calibration

OPTIONS: dict[str, Any] = {"optimizer": None, "scheduler": None, "total_steps": 1}
LETTERS = Characters("abcdefgh")
SIZES: dict[str, Any] = {"vocab_size": len(LETTERS), "context_length": 24, "depth": 1, "num_heads": 2, "embed_dim": 16}


def network(head: str = "next_token", seed: int = 1) -> GPT:
    torch.manual_seed(seed)
    made = GPT(head=head, **SIZES)
    for parameter in made.parameters():  # larger than they begin, so that outputs differ
        nn.init.normal_(parameter, std=0.5)
    return made


def with_data(task: Any, **more: Any) -> Any:
    data = SimpleNamespace(tokenizer=LETTERS, seed=1, conversational=True, **more)
    task._trainer = SimpleNamespace(datamodule=data, training=False, testing=False, world_size=1, global_rank=0)
    return task


def rows(*texts: str, answer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, targets (the last `answer` letters and the END) and lengths of texts."""
    ids = [torch.tensor([BEGIN, *LETTERS.encode(text).tolist(), END]) for text in texts]
    lengths = torch.tensor([len(row) for row in ids])
    tokens = nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD)
    places = torch.arange(tokens.shape[1])
    asked = (places >= (lengths - answer - 1)[:, None]) & (places < lengths[:, None])
    return tokens, tokens.masked_fill(~asked, IGNORED), lengths


def conversations(*texts: str) -> Batch:
    tokens, targets, lengths = rows(*texts, answer=2)
    return Batch(tokens[:, :-1], targets[:, 1:], 1, lengths - 1)


def pairs(*texts: tuple[str, str]) -> Batch:
    tokens, targets, lengths = rows(*(text for pair in texts for text in pair), answer=2)
    return Batch(*(each.view(-1, 2, tokens.shape[1]) for each in (tokens, targets)), 1, lengths.view(-1, 2))


def prompts(*texts: str) -> Batch:
    tokens, _, lengths = rows(*texts, answer=0)
    tokens = tokens.masked_fill(tokens == END, PAD)
    return Batch(tokens, torch.arange(len(texts)), 1, lengths - 1)


def widened(batch: Batch, by: int = 5) -> Batch:
    pad = nn.functional.pad
    return batch._replace(
        inputs=pad(batch.inputs, (0, by), value=PAD), targets=pad(batch.targets, (0, by), value=IGNORED)
    )


def dpo(**options: Any) -> DPO:
    task = DPO(model=network(), **{**OPTIONS, **options})
    task.attach({"reference": copy.deepcopy(task.model)})
    return task


# -- supervised fine-tuning and reward modelling ---------------------------------------------------------------------


def test_the_loss_of_fine_tuning_is_that_of_the_answers_tokens():
    task, batch = SupervisedFinetuning(model=network(), **OPTIONS), conversations("abcd", "bcdefg")
    loss, metrics = task.step(batch)
    logits = task.model(batch.inputs)
    asked = batch.targets != IGNORED
    expected = nn.functional.cross_entropy(logits[asked], batch.targets[asked])
    torch.testing.assert_close(loss, expected)
    assert task.weight(batch) == asked.sum() == 6, "two letters and the END of each"
    assert metrics["accuracy"] == (logits[asked].argmax(-1) == batch.targets[asked]).float().mean()
    first = batch._replace(targets=batch.targets.masked_fill(asked.cumsum(1) == 1, IGNORED))
    assert not torch.isclose(task.step(first)[0], loss), "the first token of an answer counts"


def test_padding_and_the_rows_of_a_batch_change_no_loss():
    task = SupervisedFinetuning(model=network(), **OPTIONS)
    batch = conversations("abcd", "bcdefg")
    torch.testing.assert_close(task.step(widened(batch))[0], task.step(batch)[0])
    alone = sum(task.step(conversations(text))[0] for text in ("abcd", "bcdefg")) / 2  # as many tokens each
    torch.testing.assert_close(alone, task.step(batch)[0])
    other = dpo()
    for parameter in other.model.parameters():
        parameter.data += 0.05
    both = pairs(("abcd", "abdc"), ("bcdefgh", "bcde"))
    torch.testing.assert_close(other.step(widened(both))[0], other.step(both)[0])
    each = [other.step(pairs(pair))[0] for pair in (("abcd", "abdc"), ("bcdefgh", "bcde"))]
    torch.testing.assert_close(sum(each) / 2, other.step(both)[0])
    reward = RewardModeling(model=network("scalar"), **OPTIONS).eval()
    torch.testing.assert_close(reward.predict_step(widened(both), 0), reward.predict_step(both, 0))


def test_a_batch_without_an_answer_has_no_loss_and_is_no_nan():
    task, batch = SupervisedFinetuning(model=network(), **OPTIONS), conversations("abcd")
    loss, metrics = task.step(batch._replace(targets=torch.full_like(batch.targets, IGNORED)))
    loss.backward()
    assert loss == 0 and metrics["accuracy"] == 0
    assert all(torch.isfinite(p.grad).all() for p in task.model.parameters() if p.grad is not None)


def test_a_reward_model_scores_the_last_token_of_each_answer():
    task, batch = RewardModeling(model=network("scalar"), **OPTIONS), pairs(("abcd", "abdc"), ("bcdefgh", "bcde"))
    loss, metrics = task.step(batch)
    scores = [
        task.model(row[None, :length]) for row, length in zip(batch.inputs.flatten(0, 1), batch.lengths.flatten())
    ]
    margins = torch.cat(scores).view(-1, 2).diff(dim=1).neg()[:, 0]
    torch.testing.assert_close(loss, nn.functional.softplus(-margins).mean())
    torch.testing.assert_close(metrics["margin"], margins.mean().detach())
    assert metrics["accuracy"] == (margins > 0).float().mean()


def test_calibration_compares_how_sure_a_model_is_with_how_often_it_is_right():
    generator = torch.Generator().manual_seed(1)
    size = torch.rand(20_000, generator=generator) * 4
    right = torch.rand(20_000, generator=generator) < size.sigmoid()
    sure, found = calibration(torch.where(right, size, -size))
    assert len(sure) == 10 and sure == sorted(sure)
    assert found == pytest.approx(sure, abs=0.04)
    assert calibration(torch.zeros(3)) == ([0.5] * 3, [0.5] * 3)


# -- DPO --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalised", [False, True])
def test_dpo_begins_at_ln_2_and_learns_what_is_preferred(normalised):
    task, batch = dpo(beta=0.5, length_normalised=normalised), pairs(("abcd", "abdc"), ("bcdefgh", "bcde"))
    loss, metrics = task.step(batch)
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6) and metrics["margin"] == 0
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        loss, metrics = task.step(batch)
        loss.backward()
        optimizer.step()
    assert loss < 0.5 and metrics["accuracy"] == 1
    assert metrics["chosen_reward"] > metrics["rejected_reward"]


def test_a_frozen_network_is_no_part_of_its_task():
    task = dpo()
    names = {name for name, _ in task.named_parameters()} | set(task.state_dict())
    assert all(name.startswith("model.") for name in names)
    before = {name: tensor.clone() for name, tensor in task.frozen("reference").state_dict().items()}
    task.step(pairs(("abcd", "abdc")))[0].backward()
    assert all(p.grad is None for p in task.frozen("reference").parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.frozen("reference").state_dict().items())
    with pytest.raises(ConfigError, match="DPO needs its reference"):
        DPO(model=network(), **OPTIONS).step(pairs(("abcd", "abdc")))


@pytest.mark.parametrize("beta", [0, -1, math.inf, "high"])
def test_a_leash_without_strength_is_refused(beta):
    with pytest.raises(ValueError, match="beta="):
        DPO(model=network(), beta=beta, **OPTIONS)


# -- reinforcement learning -------------------------------------------------------------------------------------------


class Likes(nn.Module):
    """Scores an answer by how many of a letter it has."""

    def __init__(self, letter: str = "a") -> None:
        super().__init__()
        self.token = int(LETTERS.encode(letter)[0])

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return (tokens == self.token).sum(1).float()


def rlhf(reward: nn.Module | None = None, **options: Any) -> RLHF:
    task = RLHF(model=network(), **{**OPTIONS, "sample_length": 6, "group": 4, **options})
    task.attach({"reference": copy.deepcopy(task.model), "reward": Likes() if reward is None else reward})
    return with_data(task)


def test_dropout_is_off_while_preferences_are_learned():
    task, batch = dpo(), pairs(("abcd", "abef"), ("ghab", "ghcd"))
    for module in task.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    assert task.train().step(batch)[0].item() == pytest.approx(math.log(2)), "the policy is still the reference"
    assert task.model.training


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_two_devices_take_the_step_of_one(algorithm, monkeypatch):
    """Each has half of the rollout, with answers of unlike lengths; gradients are averaged."""
    task = rlhf(network("scalar", seed=2), algorithm=algorithm, beta=0.1)
    rollout = task.rollout(prompts("ab", "cdefgh"))
    rollout.old = rollout.old + 0.1 * torch.randn(rollout.old.shape, generator=torch.Generator().manual_seed(1))
    losses_of = [lambda part: task.policy_loss(part)[0]] + ([task._value_loss] if algorithm == "ppo" else [])
    for loss_of in losses_of:
        halves = [part_of(rollout, rows) for rows in (torch.arange(4), torch.arange(4, 8))]
        counts = [half.answers.mask[:, 1:].sum() for half in halves]
        assert counts[0] != counts[1]
        monkeypatch.setattr(task, "_over_ranks", lambda value, how: value)
        whole = loss_of(rollout)
        mean = torch.stack(counts).float().mean()
        monkeypatch.setattr(task, "_over_ranks", lambda value, how, mean=mean: mean)
        torch.testing.assert_close(torch.stack([loss_of(half) for half in halves]).mean(), whole)


def part_of(rollout: Any, rows: torch.Tensor) -> Any:
    """Some rows of a rollout."""
    tensors = {name: value[rows] for name, value in vars(rollout).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(rollout, answers=rollout.answers.rows(rows), **tensors)


def test_other_devices_draw_other_answers():
    task, batch = rlhf(), prompts("ab", "cdefgh")
    first = task.rollout(batch).answers.tokens
    assert torch.equal(task.rollout(batch).answers.tokens, first)
    task._trainer.global_rank = 1
    assert not torch.equal(task.rollout(batch).answers.tokens, first)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_at_the_first_step_the_divergence_is_zero_and_the_ratio_one(algorithm):
    task, batch = rlhf(network("scalar", seed=2), algorithm=algorithm, beta=0.7), prompts("ab", "cdef")
    rollout = task.rollout(batch)
    assert torch.equal(rollout.old, rollout.reference)
    scores, _ = task.token_scores(task.model, rollout.answers)
    assert torch.equal(scores, rollout.old), "bit by bit, with and without a gradient"
    loss, metrics = task.policy_loss(rollout)
    assert metrics["clip_fraction"] == 0
    mask = rollout.answers.mask[:, 1:]
    torch.testing.assert_close(loss, -(rollout.advantages.expand_as(mask)[mask]).mean())


def test_an_answer_ends_with_its_end_and_reserved_tokens_are_never_drawn():
    task = rlhf(sample_length=12)
    made = task.rollout(prompts(*["ab"] * 30, *["cdefgh"] * 30)).answers
    drawn = made.tokens[made.mask]
    assert set(drawn.unique().tolist()) <= {END, *range(RESERVED, len(LETTERS))}
    assert made.ended.any() and not made.ended.all()
    for row, mask, length, ended in zip(made.tokens, made.mask, made.lengths, made.ended):
        places = mask.nonzero().flatten()
        assert places.tolist() == list(range(int(places[0]), int(length))), "from the first token on, without a gap"
        assert bool(row[length - 1] == END) == bool(ended) and (row[length:] == PAD).all()
        assert row[places[0] - 1] >= RESERVED and not (row[: length - 1] == END).any()
    assert {int(mask.nonzero()[0]) for mask in made.mask} == {3, 7}, "the first token counts"


def test_what_was_generated_is_read_up_to_its_end():
    tokens = torch.tensor([[BEGIN, 9, END, 9, END, 9], [BEGIN, END, 8, 8, 8, PAD]])
    made = answered(tokens, torch.tensor([3, 2]), most=3, end=END)
    assert made.mask.tolist() == [[False] * 3 + [True, True], [False] * 2 + [True] * 3]
    assert made.lengths.tolist() == [5, 5] and made.ended.tolist() == [True, False]
    assert made.targets[0].tolist() == [IGNORED, IGNORED, 9, END]


def test_padding_and_the_rows_of_a_batch_change_no_log_probability():
    task = rlhf()
    made = task.rollout(prompts("ab", "cdefgh")).answers
    together, _ = task.token_scores(task.model, made)
    for row, length in enumerate(made.lengths.tolist()):
        alone = type(made)(
            made.tokens[row, None, :length], made.mask[row, None, :length], made.lengths[[row]], made.ended
        )
        torch.testing.assert_close(task.token_scores(task.model, alone)[0][0], together[row, : length - 1])


def test_rewards_are_scaled_limited_and_below_what_has_no_end():
    task = rlhf(Likes(), reward_scale=0.5, reward_limit=1.0, unended_reward=-2.0)
    tokens = torch.tensor([[BEGIN, 8, END, PAD], [BEGIN, 8, 8, 8], [BEGIN, 9, END, PAD], [8, 8, 8, END]])
    made = answered(tokens, torch.ones(4, dtype=torch.long), most=3, end=END)
    assert task.rewards(made).tolist() == [0.5, -2.0, 0.0, 1.0]
    task.unended_reward = None
    assert task.rewards(made).tolist() == [0.5, 1.0, 0.0, 1.0]
    task.reward = "probability"
    torch.testing.assert_close(task.rewards(made), torch.tensor([1.0, 3.0, 0.0, 3.0]).sigmoid())


def test_of_several_answers_the_one_with_the_highest_reward_is_judged():
    batch = prompts("ab", "cdefgh", "ba")
    each = rlhf(Likes("c"), best_of=8, unended_reward=None)
    made = each._sampled(*each.prompts_of(batch))
    alone = rlhf(Likes("c"), unended_reward=None)
    assert all(map(torch.equal, alone.model.parameters(), each.model.parameters()))
    several = alone._sampled(*(part.repeat_interleave(8, 0) for part in alone.prompts_of(batch)))
    best = alone.rewards(several).view(3, 8).max(1).values
    assert torch.equal(each.rewards(made), best) and (best > 0).any()
    scores = each.token_scores(each.model, made)[0]
    assert each.divergence(scores, scores, made.mask[:, 1:]) == pytest.approx(math.log(8) - 7 / 8)
    assert alone.divergence(scores, scores, made.mask[:, 1:]) == 0
    further = each.divergence(scores + 0.5, scores, torch.ones_like(made.mask[:, 1:]))
    assert further == pytest.approx(math.log(8) - 7 / 8 + 0.5 * (made.mask.shape[1] - 1), rel=1e-5)
    each._frozen = {}  # as of a finished run, which has no reward model
    assert torch.equal(each._sampled(*each.prompts_of(batch)).tokens, alone._sampled(*alone.prompts_of(batch)).tokens)


@pytest.mark.parametrize(("algorithm", "beta"), [("grpo", 0.0), ("dpo", 0.1)])
def test_groups_of_equal_rewards_teach_nothing(algorithm, beta):
    class Equal(nn.Module):
        def forward(self, tokens, lengths):
            return torch.ones(len(tokens))

    task = rlhf(Equal(), algorithm=algorithm, beta=beta, unended_reward=None)
    loss, _ = task.policy_loss(task.rollout(prompts("ab", "cd")))
    loss.backward()
    assert (loss == 0 or algorithm == "dpo") and all(
        (p.grad == 0).all() for p in task.model.parameters() if p.grad is not None
    )


def trained(task: RLHF, steps: int, lr: float = 0.01) -> torch.Tensor:
    """Trains as `Alternating` does, without Lightning; returns the rewards of a last rollout."""
    optimizers = {name: torch.optim.AdamW(part.parameters(), lr=lr) for name, part in task.parts().items()}

    def update(part: str, loss: Any) -> None:
        optimizers[part].zero_grad()
        loss()[0].backward()
        optimizers[part].step()

    task.update = update  # type: ignore[method-assign]
    batch = prompts(*["ab"] * 8)
    for step in range(steps):
        task.train_parts(batch._replace(seed=step))
    return task.rollout(batch._replace(seed=999)).rewards


class Arms(nn.Module):
    """A bandit: the reward of the single letter of an answer; g is best."""

    states = None

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        found = tokens[torch.arange(len(tokens)), lengths - 1] - RESERVED
        return torch.tensor([0.1, 0.5, 0.2, 0.0, 0.3, 0.4, 1.0, 0.6] + [0.0] * RESERVED)[found]


def test_a_bandit_reaches_the_optimum_and_the_leash_keeps_the_reference():
    options: dict[str, Any] = {"sample_length": 1, "group": 8, "unended_reward": None, "reward_scale": 1.0}
    free = rlhf(Arms(), beta=0.0, **options)
    assert trained(free, 0).mean() < 0.6
    assert trained(free, 40).mean() > 0.97, "the best arm almost always"
    held = rlhf(Arms(), beta=1000.0, **options)
    trained(held, 40, lr=0.001)
    batch = prompts(*["ab"] * 8)
    found = held.rollout(batch)
    kl = (found.old - found.reference).abs().max()
    assert kl < 0.05 < (free.rollout(batch).old - free.rollout(batch).reference).abs().max()


def test_ppo_reaches_the_optimum_of_the_bandit():
    task = rlhf(network("scalar", seed=2), algorithm="ppo", beta=0.0, sample_length=1, group=8, unended_reward=None)
    task._frozen["reward"] = Arms()
    task.reward_scale = 1.0
    assert task.parts().keys() == {"policy", "value"}
    assert trained(task, 40).mean() > 0.9


def test_dpo_on_its_own_answers_reaches_the_optimum_of_the_bandit():
    options: dict[str, Any] = {"sample_length": 1, "group": 8, "unended_reward": None, "reward_scale": 1.0}
    assert trained(rlhf(Arms(), algorithm="dpo", beta=0.05, **options), 40).mean() > 0.9


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_dpo_takes_the_best_and_the_worst_of_each_group(reduction):
    task = rlhf(algorithm="dpo", beta=0.3, reduction=reduction, unended_reward=None)
    rollout = task.rollout(prompts("ab", "cd"))
    scores, _ = task.token_scores(task.model, rollout.answers)
    loss, metrics = task.policy_loss(rollout)
    torch.testing.assert_close(loss, torch.tensor(2.0).log())
    rollout.reference = rollout.reference - torch.rand(scores.shape) * rollout.answers.mask[:, 1:]
    loss, _ = task.policy_loss(rollout)
    expected = []
    for start in (0, task.group):
        order = sorted(range(start, start + task.group), key=lambda row: rollout.rewards[row].item())
        assert rollout.rewards[order[0]] < rollout.rewards[order[-1]]
        best = max(order, key=lambda row: rollout.rewards[row].item())  # the first of equal ones
        gains = (scores - rollout.reference).sum(1)
        if reduction == "sequence":
            gains = gains / rollout.answers.mask.sum(1)
        expected.append(-torch.nn.functional.logsigmoid(0.3 * (gains[best] - gains[order[0]])))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    assert "clip_fraction" not in metrics and metrics["accuracy"] == 0


def test_ppo_needs_a_reward_model_that_reads_from_left_to_right():
    both_ways = BERT(head="scalar", variant="tiny", vocab_size=len(LETTERS), context_length=24)
    with pytest.raises(ConfigError, match=r"must read from left to right as gpt and llama do; BERT does not"):
        rlhf(both_ways, algorithm="ppo")
    assert rlhf(both_ways).parts().keys() == {"policy"}


def test_a_policy_without_its_reward_model_loads_and_has_no_value_network():
    state = rlhf(network("scalar"), algorithm="ppo").state_dict()
    assert any(name.startswith("value.") for name in state)
    alone = RLHF(model=network(seed=3), algorithm="ppo", **OPTIONS)
    alone.load_state_dict(state)
    assert torch.equal(alone.model.embed.weight, state["model.embed.weight"])


def test_a_prompt_that_fills_the_context_is_refused():
    ragged = SimpleNamespace(tokens=SimpleNamespace(lengths=torch.tensor([4, 19])))
    task = with_data(rlhf(), yields=GPT.reads[0], rows=lambda split: (ragged, 2))
    with pytest.raises(ConfigError, match=r"A prompt of train has 19 tokens, and with task.sample_length=6 more"):
        task.setup("fit")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"algorithm": "reinforce"}, "algorithm=reinforce is no choice"),
        ({"beta": -0.1}, "beta=-0.1"),
        ({"beta": 0, "algorithm": "dpo"}, "beta=0 must be above 0"),
        ({"group": 1}, "group=1 must be a whole number of at least 2"),
        ({"clip": 0}, "clip=0 must be above 0"),
        ({"temperature": 0}, "temperature=0 must be above 0"),
        ({"reduction": "mean"}, "reduction=mean is no choice"),
        ({"gae_lambda": 2}, "gae_lambda=2"),
        ({"updates": 0}, "updates=0"),
        ({"reward": "rank"}, "reward=rank is no choice"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RLHF(model=network(), **OPTIONS, **options)


def test_a_policy_answers_a_prompt():
    encoded = [BEGIN, *LETTERS.encode("ab").tolist(), ASSISTANT]
    task = with_data(
        SupervisedFinetuning(model=network(), samples=3, sample_length=5, **OPTIONS),
        encoded=lambda *_, **__: (encoded, None),
    )
    said = task.respond("ab")
    assert len(said) == 3 and said == task.respond("ab")
    assert all(set(text) <= set("abcdefgh") and len(text) <= 5 for text in said)
    task.beam_size = 3
    assert len(task.respond("ab")) == 1, "the most probable one"
    encoded[:] = [BEGIN] * 24
    with pytest.raises(ValueError, match="fills the context of 24"):
        task.respond("ab")
