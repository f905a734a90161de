"""The rule behind a verdict, at its edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from epochal.compare.scan import read
from epochal.compare.statistics import bootstrap_interval, holm, judge, sign_flip_p
from helpers.run_folders import grid, run_folder

WORSE = {"says": "deep is worse", "y": "train/error", "more": {"model.depth": 44}, "than": {"model.depth": 8}}
NO_WORSE = {**{k: v for k, v in WORSE.items() if k != "more"}, "not_more": {"model.depth": 44}, "margin": 0.02}


def judged(folder, differences, *tests, **config):
    """The verdict on deep runs whose errors are those of shallow ones and a difference."""
    shallow = [0.2 + 0.01 * seed for seed in range(len(differences))]
    deep = [error + difference for error, difference in zip(shallow, differences)]
    grid(folder, {("plain", 8): shallow, ("plain", 44): deep}, **config)
    return judge({"tests": tests or [WORSE]}, read([folder])[0])


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([0.10, 0.11], "inconclusive"),  # two seeds decide nothing
        ([0.10, 0.11, 0.12], "supported"),
        ([-0.10, -0.11, -0.12], "not supported"),
        ([0.01, 0.10, 0.20], "inconclusive"),  # one sign, but no more than twice their spread
        ([0.10, 0.11, -0.001], "inconclusive"),  # one says the opposite
        ([0.10] * 7, "supported"),
        ([0.10, 0.20, 0.301], "inconclusive"),  # the mean is just below twice the standard deviation
        ([0.10, 0.20, 0.299], "supported"),
    ],
)
def test_few_pairs_must_agree_and_exceed_twice_their_spread(tmp_path, differences, verdict):
    assert judged(tmp_path, differences).verdict == verdict


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([0.00, 0.001, 0.002], "supported"),
        ([-0.05, -0.06, -0.05], "supported"),
        ([0.00, 0.01, 0.02], "inconclusive"),  # mean and two standard deviations reach beyond the margin
        ([0.05, 0.051, 0.052], "not supported"),
    ],
)
def test_not_more_means_below_the_margin_by_the_same_rule(tmp_path, differences, verdict):
    assert judged(tmp_path, differences, NO_WORSE).verdict == verdict


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([0.1 * n for n in range(1, 9)], "supported"),  # p = 2 / 256, though the spread is large
        ([-0.1 * n for n in range(1, 9)], "not supported"),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, -0.1, -0.1], "inconclusive"),
    ],
)
def test_eight_pairs_are_tested_exactly(tmp_path, differences, verdict):
    assert judged(tmp_path, differences).verdict == verdict


def test_more_tests_ask_for_more(tmp_path):
    differences = [0.1] * 7 + [-0.05]  # p = 4 / 256
    assert judged(tmp_path / "one", differences).verdict == "supported"
    verdict = judged(tmp_path / "four", differences, *[WORSE] * 4)
    assert verdict.verdict == "inconclusive"
    assert verdict.tests[0].corrected_p == pytest.approx(4 * verdict.tests[0].p)


def test_a_claim_falls_with_one_of_its_tests_and_waits_for_all(tmp_path):
    better = {**WORSE, "says": "deep is better", "more": {"model.depth": 8}, "than": {"model.depth": 44}}
    unknown = {**WORSE, "says": "deeper is worse", "more": {"model.depth": 110}}
    differences = [0.10, 0.11, 0.12]
    assert judged(tmp_path / "a", differences, WORSE, WORSE).verdict == "supported"
    assert judged(tmp_path / "b", differences, WORSE, unknown).verdict == "inconclusive"
    verdict = judged(tmp_path / "c", differences, WORSE, unknown, better)
    assert verdict.verdict == "not supported"
    assert verdict.sentence == "The runs say the opposite of: deep is better."
    assert verdict.tests[1].sentence == "no finished run has depth 110"


def test_a_verdict_gives_its_numbers(tmp_path):
    [test] = judged(tmp_path, [0.10, 0.11, 0.12]).tests
    assert (test.pairs, test.agree) == (3, 3)
    assert (test.mean, test.std) == (pytest.approx(0.11), pytest.approx(0.01))
    assert test.p == test.smallest_p == 0.25
    assert 0.10 - 1e-9 <= test.interval[0] < test.mean < test.interval[1] <= 0.12 + 1e-9
    for words in ("+11.00 points on average", "3 of 3 pairs agree", "exact p = 0.25, the least that 3 pairs can give"):
        assert words in test.sentence


def test_pairs_share_their_seed_and_what_else_varies(tmp_path):
    for dataset, offset in (("mnist", 0.0), ("cifar10", 0.5)):
        errors = {("plain", depth): [offset + 0.1 + 0.001 * depth + 0.01 * n for n in range(3)] for depth in (8, 44)}
        grid(tmp_path / dataset, errors, **{"dataset.name": dataset})
    records = [record for name in ("mnist", "cifar10") for record in read([tmp_path / name])[0]]
    [test] = judge({"tests": [WORSE]}, records).tests
    assert test.pairs == 3  # the other data set is no other seed
    assert test.std == pytest.approx(0, abs=1e-9)  # paired across data sets, it would be large


def test_what_varies_on_one_side_only_is_not_averaged_into_it(tmp_path):
    grid(tmp_path / "a", {("plain", 8): [0.1] * 3, ("plain", 44): [0.2] * 3})
    grid(tmp_path / "b", {("plain", 44): [0.9] * 3}, **{"optimizer.lr": 9.0})
    records = [record for name in ("a", "b") for record in read([tmp_path / name])[0]]
    [test] = judge({"tests": [WORSE]}, records).tests
    assert (test.pairs, test.mean) == (3, pytest.approx(0.1))


def test_seeds_without_a_partner_and_unfinished_runs_do_not_count(tmp_path):
    grid(tmp_path, {("plain", 8): [0.1, 0.1, 0.1], ("plain", 44): [0.2, 0.21]})
    run_folder(tmp_path, "going", seed=3, status="running", metrics={"train/accuracy": 0.5}, config={"model.depth": 44})
    [test] = judge({"tests": [WORSE]}, read([tmp_path])[0]).tests
    assert (test.verdict, test.pairs) == ("inconclusive", 2)
    assert "2 seeds on both sides, and 3 are needed" in test.sentence


def test_a_run_repeated_with_its_seed_is_no_further_evidence(tmp_path):
    for copy in ("a", "b", "c"):
        grid(tmp_path / copy, {("plain", 8): [0.1], ("plain", 44): [0.2]})
    records = [record for copy in ("a", "b", "c") for record in read([tmp_path / copy])[0]]
    [test] = judge({"tests": [WORSE]}, records).tests
    assert test.pairs == 1


def test_a_value_that_no_run_logged_is_reported(tmp_path):
    verdict = judged(tmp_path, [0.1, 0.11, 0.12], {**WORSE, "y": "test/bleu"})
    assert verdict.tests[0].sentence == "no run with depth 44 has test/bleu"


def test_the_sign_flip_test_counts_what_listing_all_flips_counts():
    differences = np.random.default_rng(1).normal(0.4, 1, 10)
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=10)]
    assert sign_flip_p(differences) == np.mean([s >= abs(differences.sum()) - 1e-12 for s in sums])


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_smallest_p_is_that_of_pairs_that_all_agree(n):
    assert sign_flip_p(np.full(n, 0.1)) == 2.0 ** (1 - n)


def test_many_pairs_are_sampled_and_the_same_each_time():
    differences = np.random.default_rng(0).normal(0.5, 1, 30)
    p = sign_flip_p(differences)
    assert p == sign_flip_p(differences)
    z = abs(differences.sum()) / np.sqrt((differences**2).sum())
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.005)  # the normal approximation


def test_holm_is_the_textbooks_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]


def test_the_bootstrap_covers_a_normal_mean_about_as_often_as_it_says():
    chance = np.random.default_rng(0)
    intervals = [bootstrap_interval(chance.normal(0, 1, 40)) for _ in range(200)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.90 <= covered <= 0.99
    assert bootstrap_interval(np.array([1.0])) is None


def test_a_claim_may_name_a_list(tmp_path):
    for filters, errors in (([32], [0.3, 0.31, 0.3]), ([32, 64], [0.2, 0.2, 0.21])):
        grid(tmp_path / f"{len(filters)}", {("cnn", 2): errors}, **{"model.filters": filters})
    records = [record for name in ("1", "2") for record in read([tmp_path / name])[0]]
    test = {**WORSE, "more": {"model.filters": [32]}, "than": {"model.filters": [32, 64]}}
    assert judge({"tests": [test]}, records).verdict == "supported"
