"""What is measured of the gradient by the state of each time step."""

from __future__ import annotations

import math

import pytest

from epochal.core.metrics import metric_label
from epochal.tasks.visuals.sequences import decades_lost, gradient_metrics


@pytest.mark.parametrize(
    ("first", "last", "lost"), [(-4.0, -1.5, 2.5), (-1.0, -2.0, -1.0), (-11.0, -1.0, 8.0), (-38.0, 0.0, 8.0)]
)
def test_more_than_eight_decades_are_eight_as_floats_end_there(first, last, lost):
    assert decades_lost(first, last) == lost


def test_a_gradient_that_is_no_number_is_not_hidden_by_the_cap():
    assert math.isnan(decades_lost(math.nan, 0.0)) and math.isnan(decades_lost(0.0, math.nan))


def test_the_label_says_that_it_is_capped():
    assert metric_label("val/gradient_decades_lost") == "validation gradient decades lost (at most 8)"


@pytest.mark.parametrize(
    ("exponents", "whole", "midway"),
    [
        ([-1.0, -5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0], 1.0, 3.0),  # the border of an image: it rises again
        ([-9.0, -7.0, -5.0, -3.0, -1.0], 8.0, 4.0),
        ([-3.0, -1.0], 2.0, 2.0),
        ([-3.0], 0.0, 0.0),
    ],
)
def test_the_middle_half_is_measured_beside_the_whole(exponents, whole, midway):
    found = gradient_metrics(exponents)
    assert (found["gradient_decades_lost"], found["gradient_decades_lost_midway"]) == (whole, midway)
    assert "over the middle half (at most 8)" in metric_label("val/gradient_decades_lost_midway")
