import pytest

from epochal.core.checks import (
    check_choice,
    check_fraction,
    check_heads,
    check_number,
    check_positive,
    check_sizes,
    check_whole,
)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "3", None])
def test_a_size_is_a_whole_number_of_at_least_one(size):
    with pytest.raises(ValueError, match=f"depth={size} must be a whole number of at least 1"):
        check_sizes(width=3, depth=size)


def test_zero_is_a_whole_number_where_it_may_be():
    check_whole("generated", 0, 0)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), True, "0.5"])
def test_a_fraction_is_below_one(value):
    with pytest.raises(ValueError, match=f"dropout={value} must be a number of at least 0 and below 1"):
        check_fraction("dropout", value)


@pytest.mark.parametrize(
    "bounds, end", [({}, "finite"), ({"most": 1}, "at most 1"), ({"below": 2}, "below 2")], ids=str
)
def test_a_number_has_an_upper_end(bounds, end):
    with pytest.raises(ValueError, match=f"beta=inf must be a number of at least 0 and {end}"):
        check_number("beta", float("inf"), 0, **bounds)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "1"])
def test_a_factor_is_above_zero(value):
    with pytest.raises(ValueError, match=f"width={value} must be above 0 and finite"):
        check_positive("width", value)


def test_a_probability_is_at_most_one():
    check_positive("top_p", 1, most=1)
    with pytest.raises(ValueError, match="top_p=1.5 must be above 0 and at most 1"):
        check_positive("top_p", 1.5, most=1)


def test_a_wrong_choice_is_answered_with_the_right_ones():
    with pytest.raises(ValueError, match="pool=mean is no choice. There are: max average"):
        check_choice("pool", "mean", ("max", "average"))


def test_heads_divide_the_embedding():
    with pytest.raises(ValueError, match="num_heads=3 does not divide embed_dim=16"):
        check_heads(3, 16)
