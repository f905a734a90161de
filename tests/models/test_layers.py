import math

import pytest
import torch

from epochal.models.layers import check_choice, check_dropout, check_sizes, next_token


def draw(logits, count=4000, **options):
    options = {"temperature": 1.0, "top_k": None, "generator": torch.Generator().manual_seed(0), **options}
    tokens = next_token(torch.tensor(logits).expand(count, -1), **options)
    return tokens.flatten().bincount(minlength=len(logits)) / count


def test_tokens_are_drawn_by_their_probability():
    logits = [0.0, math.log(2), math.log(5)]
    torch.testing.assert_close(draw(logits), torch.tensor([0.125, 0.25, 0.625]), atol=0.03, rtol=0)


def test_temperature_divides_the_logits():
    torch.testing.assert_close(draw([0.0, math.log(2)], temperature=0.5), torch.tensor([0.2, 0.8]), atol=0.03, rtol=0)


def test_temperature_zero_takes_the_likeliest():
    assert draw([0.0, 0.1, 0.0], temperature=0).tolist() == [0, 1, 0]


def test_top_k_draws_exactly_k_tokens_even_among_equals():
    assert (draw([1.0, 1.0, 1.0, 0.0], top_k=2) > 0).sum() == 2


def test_top_k_above_the_vocabulary_takes_all():
    assert (draw([1.0, 1.0], top_k=9) > 0).all()


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3", None])
def test_a_size_is_a_whole_number_of_at_least_one(size):
    with pytest.raises(ValueError, match=f"depth={size} must be a whole number"):
        check_sizes(width=3, depth=size)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_is_below_one(dropout):
    with pytest.raises(ValueError, match="dropout="):
        check_dropout(dropout)


def test_a_wrong_choice_is_answered_with_the_right_ones():
    with pytest.raises(ValueError, match="pool=mean is no choice. There are: max average"):
        check_choice("pool", "mean", ("max", "average"))
