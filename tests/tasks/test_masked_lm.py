"""Masked words: which tokens are chosen, what the network reads instead, and what it says of a prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, MASK, PAD, RESERVED
from epochal.data import Batch
from epochal.data.tokenizers import BytePairs, Characters, Tokenizer, Words
from epochal.models import BERT
from epochal.tasks import MaskedLM
from epochal.tasks.masked_lm import exchanged

OPTIONS: dict[str, Any] = {"optimizer": None, "scheduler": None, "total_steps": 1}
TEXTS = ["the quick brown fox jumps over the lazy dog", "a fox and a dog"]
LETTERS = Characters.learn(["".join(TEXTS)])


def task(tokenizer: Tokenizer = LETTERS, **options: Any) -> MaskedLM:
    network = BERT(vocab_size=len(tokenizer), context_length=64, depth=1, embed_dim=16, num_heads=2, dropout=0.0)
    made = MaskedLM(model=network.eval(), **OPTIONS, **options)
    made._trainer = SimpleNamespace(datamodule=SimpleNamespace(tokenizer=tokenizer), global_rank=0)  # type: ignore[assignment]
    return made


def batch(tokenizer: Tokenizer = LETTERS, seed: int = 1, copies: int = 1) -> Batch:
    rows = [torch.tensor([BEGIN, *tokenizer.encode(text).tolist(), END]) for text in TEXTS * copies]
    lengths = torch.tensor([len(row) for row in rows])
    return Batch(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD), lengths, seed, lengths)


def test_a_share_of_the_tokens_of_each_text_is_chosen_and_nothing_reserved():
    one, made = task(mask_ratio=0.2), batch()
    chosen = one.chosen(made)
    assert chosen.sum(1).tolist() == [round(0.2 * len(text)) for text in TEXTS]
    assert not chosen[made.inputs < RESERVED].any()
    assert torch.equal(chosen, task(mask_ratio=0.2).chosen(batch())), "the seed of the batch alone decides"
    assert not torch.equal(chosen, task(mask_ratio=0.2).chosen(batch(seed=2)))
    assert one.weight(made) == chosen.sum()
    assert torch.equal(task().eval().chosen(batch()), task().eval().chosen(batch(seed=2))), (
        "a validation is as the last"
    )


def test_other_devices_mask_other_tokens_and_one_may_have_no_row():
    one, other = task(mask_ratio=0.5), task(mask_ratio=0.5)
    other._trainer.global_rank = 1  # type: ignore[union-attr]
    assert not torch.equal(one.chosen(batch()), other.chosen(batch()))
    empty = torch.zeros((0, 0), dtype=torch.long)
    assert task().weight(Batch(empty, empty, 1, torch.zeros(0, dtype=torch.long))) == 0


@pytest.mark.parametrize("text", ["a", ""])
def test_of_the_shortest_texts_one_token_is_chosen_so_that_there_is_a_loss(text):
    rows = torch.tensor([[BEGIN, *LETTERS.encode(text).tolist(), END]])
    made = Batch(rows, rows, 1, torch.tensor([rows.shape[1]]))
    assert task().chosen(made).sum() == 1
    loss, _ = task().step(made)
    assert torch.isfinite(loss)


def test_of_the_chosen_four_fifths_are_masked_a_tenth_is_random_and_a_tenth_stays():
    one, made = task(mask_ratio=0.9), batch(copies=200)
    chosen = one.chosen(made)
    read = one.corrupted(made, chosen)
    assert torch.equal(read[~chosen], made.inputs[~chosen])
    share = {"mask": (read == MASK)[chosen], "same": (read == made.inputs)[chosen]}
    assert share["mask"].float().mean() == pytest.approx(0.8, abs=0.02)
    assert share["same"].float().mean() == pytest.approx(0.1 + 0.1 / (len(LETTERS) - RESERVED), abs=0.02)
    assert (read[chosen & (read != MASK)] >= RESERVED).all()


@pytest.mark.parametrize("kind", ["letters", "pairs"])
def test_whole_words_are_chosen_or_left(kind):
    tokenizer = LETTERS if kind == "letters" else BytePairs.learn(TEXTS * 9, vocab_size=280)
    for seed in range(5):
        made = batch(tokenizer, seed)
        chosen = task(tokenizer, whole_words=True, mask_ratio=0.3).chosen(made)
        assert chosen.any()
        for row, ids in zip(chosen, made.inputs, strict=True):
            whole = {}
            word = 0
            for flag, token in zip(row.tolist(), ids.tolist(), strict=True):
                if token < RESERVED:
                    continue
                word += not tokenizer.decode([token])[:1].isalnum()
                whole.setdefault(word, set()).add(flag)
            assert all(len(flags) == 1 for flags in whole.values())


def test_the_loss_is_that_of_the_chosen_tokens():
    one, made = task(), batch()
    chosen = one.chosen(made)
    logits: Tensor = one.model(one.corrupted(made, chosen), made.lengths)
    loss, metrics = one.step(made)
    expected = torch.nn.functional.cross_entropy(logits[chosen], made.inputs[chosen])
    torch.testing.assert_close(loss, expected)
    assert metrics["accuracy"] == (logits[chosen].argmax(1) == made.inputs[chosen]).float().mean()


def test_a_prompt_is_answered_by_candidates_for_each_mask():
    words = Words.learn(TEXTS, vocab_size=99, min_count=1)
    first, second = task(words).respond("the <mask> jumps over the <mask>")
    for answer in (first, second):
        assert len(answer.split(" | ")) == 5 and answer.count("%") == 5
    with pytest.raises(ValueError, match="has no <mask>"):
        task(words).respond("the fox")
    with pytest.raises(ValueError, match="more|most"):
        task(words).respond("fox " * 80 + "<mask>")


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="mask_ratio"):
        task(mask_ratio=1.0)
    with pytest.raises(ValueError, match="nothing to learn"):
        task(mask_ratio=0.0)
    with pytest.raises(ConfigError, match="no token for masked ones"):
        task(Characters("abc", 0)).corrupted(batch(), torch.ones(2, 45, dtype=torch.bool))


def test_of_pairs_half_get_another_second_text_and_the_network_tells_which():
    rows = [[BEGIN, 10 + n, 11 + n, END, 20 + n, END] for n in range(0, 12, 2)]
    inputs, lengths = torch.tensor(rows), torch.tensor([6] * 6)
    segments = torch.tensor([[0, 0, 0, 0, 1, 1]] * 6)
    made = Batch(inputs, inputs, 3, lengths, segments)
    changed, follows = exchanged(made, made.seed, pad=PAD)
    assert torch.equal(changed.inputs[:, :4], inputs[:, :4]) and torch.equal(changed.segments, segments)
    assert torch.equal(changed.inputs[:, 4] == inputs[:, 4], follows) and 0 < follows.sum() < 6
    assert sorted(changed.inputs[:, 4].tolist()) == sorted(inputs[:, 4].tolist())
    one = task()
    one.model = BERT(vocab_size=40, context_length=8, depth=1, embed_dim=8, num_heads=2, next_sentence=True)
    loss, metrics = one.step(made)
    loss.backward()
    assert one.model.head.next_sentence.weight.grad.any()
    assert metrics["loss"] > metrics["masked_loss"] and 0 <= metrics["next_accuracy"] <= 1
    assert one.weight(made) == one.chosen(changed).sum()
    with pytest.raises(ConfigError, match="needs pairs of texts"):
        one.step(batch())


def test_of_pairs_the_network_reads_which_text_a_token_is_of():
    """Without next_sentence too: an embedding of the second text that is never trained would be noise for what follows."""
    inputs = torch.tensor([[BEGIN, 10, 11, END, 20, END]] * 4)
    made = Batch(inputs, inputs, 3, torch.tensor([6] * 4), torch.tensor([[0, 0, 0, 0, 1, 1]] * 4))
    one = task()
    one.step(made)[0].backward()
    assert one.model.segment.weight.grad.any(dim=1).tolist() == [True, True]
