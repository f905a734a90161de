import math

import pytest
import torch

from epochal.models.common.layers import FrameEncoder
from epochal.models.common.sampling import next_token


def draw(logits, count=4000, **options):
    options = {"temperature": 1.0, "top_k": None, "generator": torch.Generator().manual_seed(0), **options}
    tokens = next_token(torch.tensor(logits).expand(count, -1), **options)
    return tokens.flatten().bincount(minlength=len(logits)) / count


def test_tokens_are_drawn_by_their_probability():
    logits = [0.0, math.log(2), math.log(5)]
    torch.testing.assert_close(draw(logits), torch.tensor([0.125, 0.25, 0.625]), atol=0.03, rtol=0)


def test_temperature_divides_the_logits():
    torch.testing.assert_close(draw([0.0, math.log(2)], temperature=0.5), torch.tensor([0.2, 0.8]), atol=0.03, rtol=0)


def test_temperature_zero_takes_the_most_likely():
    assert draw([0.0, 0.1, 0.0], temperature=0).tolist() == [0, 1, 0]


def test_top_k_draws_exactly_k_tokens_even_among_equals():
    assert (draw([1.0, 1.0, 1.0, 0.0], top_k=2) > 0).sum() == 2


def test_top_k_above_the_vocabulary_takes_all():
    assert (draw([1.0, 1.0], top_k=9) > 0).all()


@pytest.mark.parametrize("top_p, nucleus", [(0.4, 1), (0.5, 2), (0.7, 2), (0.75, 3), (0.95, 4), (1.0, 4)])
def test_top_p_draws_from_the_fewest_tokens_that_together_have_it(top_p, nucleus):
    fractions = draw([math.log(2), 0.0, math.log(5), math.log(3) - 0.01], top_p=top_p)  # about 0.18, 0.09, 0.46, 0.27
    assert (fractions[[2, 3, 0, 1]] > 0).tolist() == [rank < nucleus for rank in range(4)]


def test_within_the_nucleus_tokens_keep_their_proportions():
    fractions = draw([0.0, math.log(2), math.log(5)], top_p=0.8)
    torch.testing.assert_close(fractions, torch.tensor([0, 2 / 7, 5 / 7]), atol=0.03, rtol=0)


def test_one_token_is_in_the_smallest_nucleus_even_among_equals():
    assert (draw([1.0] * 5, top_p=1e-9) > 0).sum() == 1


def test_top_p_is_counted_among_the_tokens_that_top_k_leaves():
    logits = [math.log(0.4), math.log(0.35), math.log(0.25)]
    assert (draw(logits, top_p=0.6) > 0).tolist() == [True, True, False]
    assert (draw(logits, top_p=0.5, top_k=2) > 0).tolist() == [True, False, False]  # 0.4 of 0.75 is more than a half


@pytest.mark.parametrize("channels, height, width", [(1, 8, 8), (3, 10, 7)])
def test_each_frame_has_a_vector_of_its_own(channels, height, width):
    torch.manual_seed(0)
    encode, videos = FrameEncoder(channels, height, width, 6), torch.randn(2, 3, channels, height, width)
    vectors = encode(videos)
    assert vectors.shape == (2, 3, 6)
    torch.testing.assert_close(encode(videos[1:, 2:]), vectors[1:, 2:])


def test_videos_too_small_to_be_pooled_twice_are_refused():
    with pytest.raises(ValueError, match="Videos of 3x8 pixels are too small"):
        FrameEncoder(1, 3, 8, 6)
