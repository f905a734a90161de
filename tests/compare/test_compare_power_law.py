"""Power laws: through points, through runs of several sizes, and of the sizes that are best for their compute."""

from __future__ import annotations

import numpy as np
import pytest

from epochal.compare.intervals import t_quantile
from epochal.compare.power_law import best_sizes, power_law
from epochal.compare.scan import read
from epochal.compare.statistics import judge
from helpers.run_folders import run_folder

SIZES = (1e3, 1e4, 1e5, 1e6)
TEST = {
    "says": "the largest is as predicted",
    "y": "test/loss",
    "predicted": {"model.width": 4},
    "by": "parameters",
    "margin": 1.05,
}


def test_a_law_without_scatter_is_found_exactly():
    law = power_law([10, 100, 1000], [3 * x**-0.5 for x in (10, 100, 1000)])
    assert law is not None and law.n == 3
    assert (law.factor, law.exponent) == pytest.approx((3, -0.5))
    assert law.interval == pytest.approx((-0.5, -0.5))
    assert law(10_000) == pytest.approx(0.03)


def test_the_interval_of_the_exponent_is_that_of_the_regression():
    x, y = (
        np.exp([0, 1, 2, 3]),
        np.exp([0.1, -0.2, -0.3, -0.4]),
    )  # a slope of -0.16, with residuals of 0.06 -0.08 -0.02 0.04
    law = power_law(x, y)
    half = t_quantile(0.975, 2) * (sum(r**2 for r in (0.06, 0.08, 0.02, 0.04)) / 2 / 5) ** 0.5
    assert law is not None and law.exponent == pytest.approx(-0.16)
    assert law.interval == pytest.approx((-0.16 - half, -0.16 + half))
    assert str(law) == f"exponent -0.160, 95 % interval {-0.16 - half:.3f} to {-0.16 + half:.3f} through 4 points"


@pytest.mark.parametrize("x, y", [([1, 2], [1, 2]), ([1, 1, 2], [1, 2, 3]), ([1, 2, 3], [1, 0, 2]), ([], [])])
def test_there_is_no_law_through_two_sizes_or_without_logarithms(x, y):
    assert power_law(x, y) is None


def sized(folder, seeds=(1, 2, 3), sizes=SIZES, factor=1.0, **metrics):
    """Runs whose loss is a power law of their parameters, with the largest off it by a factor; each seed has its own."""
    for seed in seeds:
        for width, parameters in enumerate(sizes, start=1):
            loss = (5 + 0.01 * seed) * parameters**-0.1 * (factor + 0.002 * seed if width == 4 else 1)
            run_folder(
                folder,
                f"{width}-{seed}",
                seed=seed,
                config={"model.width": width},
                metrics={"test/loss": loss, **metrics},
                parameters=parameters,
            )


def judged(folder, **changes):
    return judge({"tests": [TEST | changes]}, read([folder])[0]).tests[0]


@pytest.mark.parametrize(
    "factor, margin, verdict",
    [
        (1.0, 1.05, "supported"),
        (1.1, 1.05, "not supported"),
        (0.9, 1.05, "not supported"),
        (1.046, 1.05, "inconclusive"),  # on the margin
        (1.1, 1.2, "supported"),
    ],
)
def test_the_size_that_is_left_out_is_compared_with_what_the_others_predict(tmp_path, factor, margin, verdict):
    sized(tmp_path, factor=factor)
    test = judged(tmp_path, margin=margin)
    assert test.verdict == verdict
    assert np.exp(test.mean) == pytest.approx(factor + 0.004, rel=1e-4)
    assert "of what is predicted on average" in test.sentence and f"margin ×{margin:.3f}" in test.sentence
    assert "3 seeds" in test.sentence and "power law in parameters: exponent -0.100" in test.sentence


def test_each_seed_is_predicted_by_its_own_law(tmp_path):
    """Levels that differ by the seed, by far more than the margin, cancel."""
    for seed, level in ((1, 1.0), (2, 2.0), (3, 4.0)):
        for width, parameters in enumerate(SIZES, start=1):
            loss = level * parameters**-0.1 * (1 + 0.001 * seed)
            config = {"model.width": width}
            name = f"{width}-{seed}"
            run_folder(tmp_path, name, seed=seed, config=config, metrics={"test/loss": loss}, parameters=parameters)
    assert judged(tmp_path).verdict == "supported"


@pytest.mark.parametrize(
    "runs, says",
    [
        ({"seeds": (1, 2)}, "2 seeds, and 3 are needed"),
        ({"sizes": (1e3, 1e3, 1e5, 1e6)}, "a law needs 3 other values of parameters above 0 in each seed"),
        ({"sizes": SIZES[:3]}, "no run that counts has width 4"),
    ],
)
def test_too_little_for_a_prediction_ends_in_a_sentence(tmp_path, runs, says):
    sized(tmp_path, **runs)
    test = judged(tmp_path)
    assert test.verdict == "inconclusive" and test.sentence.startswith(says)


def test_a_value_without_a_logarithm_ends_in_a_sentence(tmp_path):
    sized(tmp_path, factor=-1.0)
    assert judged(tmp_path).sentence.startswith("width 4 has a test/loss of -1.2")


def test_a_size_that_failed_keeps_the_others_from_predicting(tmp_path):
    sized(tmp_path, seeds=(1, 2))
    sized(tmp_path, seeds=(3,), sizes=SIZES[:1])
    run_folder(tmp_path, "lost", seed=3, status="failed", config={"model.width": 2}, metrics={"val/loss": 1.0})
    run_folder(tmp_path, "own", seed=3, config={"model.width": 4}, metrics={"test/loss": 1.2}, parameters=1e6)
    test = judged(tmp_path)
    assert test.verdict == "inconclusive"
    assert test.sentence.startswith("1 of 8 runs with the other sizes has no test/loss (1 failed")


def curve(compute, loss):
    return np.array(compute, float), np.array(loss, float)


def test_the_best_size_is_judged_where_its_neighbours_are_known():
    curves = {
        10: curve([1, 100], [5, 4]),
        20: curve([1, 1000], [6, 2]),  # from the first step on it falls faster, and is ahead of 10 from 10 on
        40: curve([10, 1000], [7, 1]),  # ahead of 20 at the end, where nothing is known of 80
        80: curve([100, 200], [9, 8]),
    }
    (size, compute, loss), *others = best_sizes(curves)
    assert size == 20 and 10 < compute < 100 and 2 < loss < 5
    assert not others


def test_the_smallest_and_the_largest_are_never_found_best():
    falling = {size: curve([1, 10], [1 / size, 0.5 / size]) for size in (1, 2, 4)}
    assert best_sizes(falling) == []
    assert best_sizes({1: curve([1, 2], [1, 1])}) == []
