"""The rule behind a verdict, at its edges."""

from __future__ import annotations

import numpy as np
import pytest

from epochal.compare.intervals import t_quantile, welch_interval
from epochal.compare.scan import read
from epochal.compare.statistics import judge
from helpers.run_folders import grid, run_folder

WORSE = {"says": "deep is worse", "y": "train/error", "more": {"model.depth": 44}, "than": {"model.depth": 8}}
NO_WORSE = {**{k: v for k, v in WORSE.items() if k != "more"}, "not_more": {"model.depth": 44}, "margin": 0.02}
SHALLOW = [0.20, 0.21, 0.22, 0.20, 0.21, 0.22, 0.20, 0.21]  # a standard deviation of 0.01


def judged(folder, deep, *tests, shallow=SHALLOW, needs=(), **config):
    """The verdict on deep runs with these errors, and as many shallow ones."""
    grid(folder, {("plain", 8): shallow[: len(deep)], ("plain", 44): deep}, **config)
    return judge({"tests": tests or [WORSE], "needs": needs}, read([folder])[0])


def failed(folder, seed, depth=44, status="failed", **summary):
    """A run that has no value."""
    config = {"model.depth": depth}
    run_folder(
        folder,
        f"{status}-{depth}-{seed}",
        model="plain",
        seed=seed,
        status=status,
        config=config,
        metrics={"val/loss": 1.0},
        **summary,
    )


@pytest.mark.parametrize(
    "deep, verdict",
    [
        ([0.30, 0.31], "inconclusive"),  # two seeds decide nothing
        ([0.30, 0.31, 0.32], "supported"),
        ([0.10, 0.11, 0.12], "not supported"),
        ([0.21, 0.22, 0.24], "inconclusive"),
        ([0.20, 0.35, 0.50], "inconclusive"),  # spread wide
        ([0.30] * 7, "supported"),
        ([0.30] * 8, "supported"),  # nothing changes at eight
        ([0.30, 0.31, 0.32, 0.20, 0.33], "supported"),  # one seed that disagrees is no veto
    ],
)
def test_the_interval_decides_at_every_number_of_seeds(tmp_path, deep, verdict):
    assert judged(tmp_path, deep).verdict == verdict


def test_more_seeds_that_say_the_same_never_take_a_verdict_back(tmp_path):
    decisions = []
    for n in range(3, 17):
        values = {8: np.linspace(0.20, 0.22, n), 44: np.linspace(0.211, 0.231, n)}
        grid(tmp_path / f"{n}", {("plain", depth): errors.tolist() for depth, errors in values.items()})
        decisions.append(judge({"tests": [WORSE]}, read([tmp_path / f"{n}"])[0]).verdict)
    assert decisions == sorted(decisions)  # first inconclusive, then supported
    assert {"inconclusive", "supported"} == {*decisions}


@pytest.mark.parametrize(
    "deep, verdict",
    [
        ([0.204, 0.21, 0.216], "supported"),  # alike, and the interval ends below the margin of two points
        ([0.10, 0.11, 0.12], "supported"),
        ([0.20, 0.22, 0.24], "inconclusive"),  # the interval reaches beyond the margin
        ([0.30, 0.31, 0.32], "not supported"),
    ],
)
def test_not_more_means_below_the_margin_by_the_same_rule(tmp_path, deep, verdict):
    shallow = [0.205, 0.21, 0.215]
    assert judged(tmp_path, deep, NO_WORSE, shallow=shallow).verdict == verdict


def test_every_test_must_be_supported_and_a_contradiction_is_corrected_for_their_number(tmp_path):
    better = {**WORSE, "says": "deep is better", "more": {"model.depth": 8}, "than": {"model.depth": 44}}
    unknown = {**WORSE, "says": "deeper is worse", "more": {"model.depth": 110}}
    deep = [0.30, 0.31, 0.32]
    assert judged(tmp_path / "a", deep, *[WORSE] * 9).verdict == "supported"  # an intersection needs no correction
    assert judged(tmp_path / "b", deep, WORSE, unknown).verdict == "inconclusive"
    verdict = judged(tmp_path / "c", deep, WORSE, unknown, better)
    assert verdict.verdict == "not supported"
    assert verdict.sentence == "The runs say the opposite of: deep is better."
    assert verdict.tests[1].sentence == "no run that counts has depth 110"
    assert judged(tmp_path / "d", [0.23, 0.24, 0.25], better).verdict == "not supported"
    weak = judged(tmp_path / "e", [0.23, 0.24, 0.25], *[better] * 5)  # one of five might err more easily
    assert weak.verdict == "inconclusive"
    assert weak.tests[0].why.endswith("as it is one of 5 tests") and weak.tests[0].why in weak.tests[0].sentence
    wide = judged(tmp_path / "f", [0.20, 0.21, 0.25], WORSE, better).tests[0]  # undecided by the interval that is given
    assert (wide.verdict, wide.why) == ("inconclusive", "") and "tests" not in wide.sentence


def test_a_verdict_gives_the_interval_that_decides(tmp_path):
    [test] = judged(tmp_path, [0.30, 0.31, 0.32]).tests
    assert test.seeds == (3, 3)
    assert test.mean == pytest.approx(0.10)
    half = 2.776445 * (2 * 0.01**2 / 3) ** 0.5  # four degrees of freedom
    assert test.interval == (pytest.approx(0.10 - half, abs=1e-6), pytest.approx(0.10 + half, abs=1e-6))
    assert test.sentence == "train/error +10.00 points on average (95 % interval +7.73 to +12.27), 3 seeds a side"


def test_sides_may_have_unlike_numbers_of_seeds(tmp_path):
    grid(tmp_path, {("plain", 8): SHALLOW[:5], ("plain", 44): [0.3, 0.31, 0.32]})
    [test] = judge({"tests": [WORSE]}, read([tmp_path])[0]).tests
    assert (test.seeds, test.verdict) == ((3, 5), "supported")  # deep, shallow


def test_a_seed_with_several_data_sets_is_one_value(tmp_path):
    for dataset, offset in (("mnist", 0.0), ("cifar10", 0.5)):
        errors = {("plain", depth): [offset + 0.1 + 0.001 * depth + 0.01 * n for n in range(3)] for depth in (8, 44)}
        grid(tmp_path / dataset, errors, **{"dataset.name": dataset})
    records = [record for name in ("mnist", "cifar10") for record in read([tmp_path / name])[0]]
    [test] = judge({"tests": [WORSE]}, records).tests
    assert test.seeds == (3, 3)  # the other data set is no other seed
    assert test.verdict == "supported"  # with the data sets as seeds, their spread would hide it


def test_what_varies_on_one_side_only_is_not_averaged_into_it(tmp_path):
    grid(tmp_path / "a", {("plain", 8): [0.1] * 3, ("plain", 44): [0.2] * 3}, **{"dataset.name": "mnist"})
    grid(tmp_path / "b", {("plain", 44): [0.9] * 3}, **{"dataset.name": "cifar10"})
    records = [record for name in ("a", "b") for record in read([tmp_path / name])[0]]
    [test] = judge({"tests": [WORSE]}, records).tests
    assert (test.seeds, test.mean) == ((3, 3), pytest.approx(0.1))


def test_a_run_repeated_with_its_seed_is_no_further_evidence(tmp_path):
    for copy in ("a", "b", "c"):
        grid(tmp_path / copy, {("plain", 8): [0.1], ("plain", 44): [0.2]})
    records = [record for copy in ("a", "b", "c") for record in read([tmp_path / copy])[0]]
    [test] = judge({"tests": [WORSE]}, records).tests
    assert test.seeds == (1, 1)


@pytest.mark.parametrize(
    "status, says",
    [
        ("failed", "2 of 5 runs with depth 44 have no train/error (2 failed: The loss is nan at step 2.)"),
        ("pruned", "2 of 5 runs with depth 44 have no train/error (2 pruned)"),
        ("stopped", "2 of 5 runs with depth 44 have no train/error (2 stopped)"),
        ("running", "2 of 5 runs with depth 44 have no train/error (2 running)"),
        ("finished", "2 of 5 runs with depth 44 have no train/error (2 finished without it)"),
    ],
)
def test_a_seed_without_a_value_keeps_the_others_from_deciding(tmp_path, status, says):
    for seed in (4, 5):
        failed(tmp_path, seed, status=status)
    verdict = judged(tmp_path, [0.30, 0.31, 0.32])
    assert verdict.verdict == "inconclusive"
    assert verdict.tests[0].sentence.startswith(f"{says}; train/error +10.00 points on average")


def test_a_seed_that_was_run_again_to_its_end_counts(tmp_path):
    failed(tmp_path, 3)
    assert judged(tmp_path, [0.30, 0.31, 0.32]).verdict == "supported"


def test_runs_that_diverged_count_as_the_worst_where_the_claim_says_so(tmp_path):
    for seed in (3, 4, 5):
        failed(tmp_path, seed, diverged=True)
    test = {**WORSE, "failed": "worst"}
    grid(tmp_path, {("plain", 8): SHALLOW[:3], ("plain", 44): [0.30, 0.32]})
    records = read([tmp_path])[0]
    [tested] = judge({"tests": [test]}, records).tests
    assert (tested.seeds, tested.verdict) == ((5, 3), "supported")
    assert tested.mean == pytest.approx((0.30 + 4 * 0.32) / 5 - 0.21)
    failed(tmp_path, 6, diverged=False)  # of a full disk, say
    assert judge({"tests": [test]}, read([tmp_path])[0]).verdict == "inconclusive"


def test_networks_that_have_not_learned_are_not_compared(tmp_path):
    needs = [{"y": "train/error", "below": 0.25}]
    verdict = judged(tmp_path / "a", [0.30, 0.31, 0.32], needs=needs)
    assert verdict.verdict == "inconclusive"
    assert verdict.tests[0].sentence.startswith(
        "depth 44 has not learned: its train/error is 31.00 %, and below 25.00 % is needed for a verdict; train/error +10"
    )
    assert (
        judged(tmp_path / "b", [0.30, 0.31, 0.32], needs=[{"y": "val/accuracy", "above": 0.7}]).verdict == "supported"
    )
    unknown = judged(tmp_path / "c", [0.30, 0.31, 0.32], needs=[{"y": "test/bleu", "above": 9}])
    assert "its test/bleu is none" in unknown.tests[0].sentence


def sized(folder, errors, examples):
    """Runs tested on so many examples, with these test errors by depth."""
    for depth, values in errors.items():
        for seed, error in enumerate(values, start=1):
            metrics = {"test/accuracy": 1 - error, "test/loss": error}
            config = {"model.depth": depth}
            run_folder(folder, f"{depth}-{seed}", seed=seed, config=config, metrics=metrics, sizes={"test": examples})
    return read([folder])[0]


def test_what_the_test_set_cannot_resolve_decides_nothing(tmp_path):
    one_mistake = {8: [0.0100] * 3, 44: [0.0101] * 3}
    test = {**WORSE, "y": "test/error"}
    [tested] = judge({"tests": [test]}, sized(tmp_path / "a", one_mistake, 10_000)).tests
    assert tested.verdict == "inconclusive"
    assert tested.resolution == pytest.approx((0.01005 * 0.98995 / 10_000) ** 0.5)
    assert "and what is below 0.10 points cannot be told apart" in tested.sentence
    larger = {8: [0.0100] * 3, 44: [0.0130] * 3}
    assert judge({"tests": [test]}, sized(tmp_path / "b", larger, 10_000)).verdict == "supported"
    assert judge({"tests": [test]}, sized(tmp_path / "c", larger, 100)).verdict == "inconclusive"
    assert judge({"tests": [{**test, "margin": 0.001}]}, sized(tmp_path / "d", larger, 100)).verdict == "supported"


def test_on_a_logarithmic_scale_ratios_are_compared(tmp_path):
    shallow, deep = np.array([0.20, 0.21, 0.22]), np.array([0.30, 0.33, 0.36])
    [test] = judged(tmp_path, deep.tolist(), {**WORSE, "scale": "log"}, shallow=shallow.tolist()).tests
    assert test.interval == pytest.approx(welch_interval(np.log(deep), np.log(shallow)))
    assert test.sentence == "train/error ×1.568 on average (95 % interval 1.299 to 1.894), 3 seeds a side"
    assert test.verdict == "supported"


@pytest.mark.parametrize(
    ("margin", "verdict"), [(1.2, "not supported"), (1.5, "inconclusive"), (2.0, "supported"), (None, "not supported")]
)
def test_the_margin_of_a_logarithmic_test_is_a_ratio(tmp_path, margin, verdict):
    test = {**NO_WORSE, "scale": "log", "margin": margin}
    if margin is None:
        del test["margin"]
    judgement = judged(tmp_path, [0.30, 0.33, 0.36], test, shallow=[0.20, 0.21, 0.22])
    assert judgement.verdict == verdict
    assert margin is None or f"margin ×{margin:.3f}" in judgement.tests[0].sentence


def test_a_ratio_does_not_depend_on_the_unit(tmp_path):
    found = []
    for unit in (1.0, 0.01):
        errors = [unit * value for value in (0.30, 0.33, 0.36)], [unit * value for value in (0.20, 0.21, 0.22)]
        test = {**WORSE, "scale": "log"}
        found += judged(tmp_path / f"{unit}", errors[0], test, shallow=errors[1]).tests
    assert found[0].interval == pytest.approx(found[1].interval)


def test_values_that_have_no_logarithm_end_in_a_sentence(tmp_path):
    [test] = judged(tmp_path, [0.30, 0.0, 0.32], {**WORSE, "scale": "log"}).tests
    assert (test.verdict, test.mean) == ("inconclusive", None)
    assert test.sentence == (
        "depth 44 has a train/error of 0.00 %, and only values above 0 can be compared by their logarithms (scale: log)"
    )


def test_what_the_test_set_cannot_resolve_decides_no_ratio_either(tmp_path):
    test = {**WORSE, "y": "test/error", "scale": "log"}
    one_mistake = sized(tmp_path / "a", {8: [0.0100] * 3, 44: [0.0101] * 3}, 10_000)
    [tested] = judge({"tests": [test]}, one_mistake).tests
    assert tested.verdict == "inconclusive"
    assert np.exp(tested.resolution) == pytest.approx(1 + (0.98995 / 0.01005 / 10_000) ** 0.5)
    assert "and what is below ×1.099 cannot be told apart" in tested.sentence
    larger = sized(tmp_path / "b", {8: [0.0100] * 3, 44: [0.0130] * 3}, 10_000)
    assert judge({"tests": [test]}, larger).verdict == "supported"


def test_the_rule_names_the_scale_of_its_tests(tmp_path):
    ratio = {**WORSE, "scale": "log"}
    rules = [
        judged(tmp_path / f"{n}", [0.3, 0.3], *tests).rule for n, tests in enumerate([[WORSE], [ratio], [ratio, WORSE]])
    ]
    assert rules == [
        "Welch's t interval of the difference, 95 %",
        "Welch's t interval of the ratio, as difference of logarithms, 95 %",
        "Welch's t interval of the difference, 95 %; where a test gives a ratio, of the difference of logarithms",
    ]


def test_rounding_decides_nothing(tmp_path):
    noise = {8: [0.5, 0.5, 0.5], 44: [0.5 + 1e-9] * 3}
    assert judge({"tests": [{**WORSE, "y": "test/loss"}]}, sized(tmp_path, noise, 100)).verdict == "inconclusive"


def test_values_that_no_seed_changes_are_decided_by_any_difference(tmp_path):
    verdict = judged(tmp_path, [0.30, 0.31, 0.32], {**WORSE, "y": "parameters"})
    assert verdict.verdict == "supported"
    assert verdict.tests[0].interval == (36_000, 36_000)


@pytest.mark.parametrize(
    "p, freedom, value",  # of SciPy 1.17's stdtrit
    [
        (0.975, 1, 12.706204736174694),
        (0.975, 2, 4.302652729749462),
        (0.975, 2.5, 3.5746548420036817),
        (0.995, 3.3, 5.344306069721078),
        (0.9875, 1.7, 7.795810361749733),
        (0.975, 30, 2.0422724563012378),
        (0.975, 1e4, 1.960201239890626),
    ],
)
def test_the_quantiles_of_students_t_are_those_of_scipy(p, freedom, value):
    assert t_quantile(p, freedom) == pytest.approx(value, rel=1e-9)


def test_the_interval_is_that_of_a_worked_example():
    first, second = np.array([27.5, 21.0, 19.0, 23.6, 17.0, 17.9]), np.array([27.1, 22.0, 20.8, 23.4])
    low, high = welch_interval(first, second)
    variances = first.var(ddof=1) / 6, second.var(ddof=1) / 4
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 5 + variances[1] ** 2 / 3)
    half = t_quantile(0.975, freedom) * sum(variances) ** 0.5
    assert (low + high) / 2 == pytest.approx(-2.325)
    assert (high - low) / 2 == pytest.approx(half)
    assert freedom == pytest.approx(7.9, abs=0.2)


def test_the_interval_covers_as_often_as_it_says():
    chance = np.random.default_rng(0)
    intervals = [welch_interval(chance.normal(0, 1, 3), chance.normal(0, 2, 5)) for _ in range(400)]
    assert 0.93 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.985


def test_a_claim_may_name_a_list(tmp_path):
    for filters, errors in (([32], [0.3, 0.31, 0.3]), ([32, 64], [0.2, 0.2, 0.21])):
        grid(tmp_path / f"{len(filters)}", {("cnn", 2): errors}, **{"model.filters": filters})
    records = [record for name in ("1", "2") for record in read([tmp_path / name])[0]]
    test = {**WORSE, "more": {"model.filters": [32]}, "than": {"model.filters": [32, 64]}}
    assert judge({"tests": [test]}, records).verdict == "supported"


@pytest.mark.parametrize(
    "deep, number, verdict",
    [
        ([0.30, 0.31, 0.32], 0.25, "supported"),
        ([0.30, 0.31, 0.32], 0.35, "not supported"),
        ([0.30, 0.31, 0.32], 0.31, "inconclusive"),
        ([0.30, 0.31], 0.25, "inconclusive"),  # two seeds decide nothing here either
    ],
)
def test_runs_may_be_compared_with_a_number(tmp_path, deep, number, verdict):
    """By the interval of a single mean: that of Welch where the other side does not vary."""
    judgement = judged(tmp_path, deep, {**WORSE, "than": number})
    assert judgement.verdict == verdict
    (test,) = judgement.tests
    values = np.array(deep)
    half = t_quantile(0.975, len(deep) - 1) * values.std(ddof=1) / len(deep) ** 0.5
    assert test.interval == pytest.approx((values.mean() - number - half, values.mean() - number + half))
    assert f"against {100 * number:.2f} % on average" in test.sentence
    assert "a side" not in test.sentence and ("2 seeds, and 3 are needed" in test.sentence) == (len(deep) == 2)


def test_a_margin_below_zero_asks_how_near_a_number_is(tmp_path):
    near = {**WORSE, "than": 0.925, "margin": -0.03}
    assert judged(tmp_path / "near", [0.91, 0.912, 0.911], near).verdict == "supported"
    assert judged(tmp_path / "far", [0.85, 0.852, 0.851], near).verdict == "not supported"
