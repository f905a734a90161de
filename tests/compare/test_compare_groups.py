"""The keys in which runs differ are found, and runs grouped by them."""

from __future__ import annotations

import numpy as np
import pytest

from epochal.compare.groups import Group, grouped, kinds, together, varying
from epochal.compare.labels import label
from epochal.compare.scan import read
from helpers.run_folders import grid, run_folder


def records_in(folder):
    return read([folder])[0]


def test_the_keys_in_which_runs_differ_are_found(tmp_path):
    grid(tmp_path, {(model, depth): [0.1, 0.2] for model in ("plain", "resnet") for depth in (8, 20)})
    assert varying(records_in(tmp_path)) == ["model.name", "model.depth"]


def test_seeds_output_places_and_loggers_make_no_difference(tmp_path):
    for seed in (1, 2):
        run_folder(
            tmp_path,
            f"{seed}",
            seed=seed,
            config={"output_dir": f"o{seed}", "logger.name": f"l{seed}", "claim.a": seed},
        )
    run_folder(tmp_path, "none", typed=["logger=none"], config={"output_dir": "o", "logger": {}, "claim.a": 3})
    assert varying(records_in(tmp_path)) == []


def test_what_a_model_brings_along_only_follows_it(tmp_path):
    for model, lr in (("mlp", 0.1), ("lenet", 0.2)):
        for seed in (1, 2):
            run_folder(
                tmp_path, f"{model}{seed}", model=model, seed=seed, config={"optimizer.lr": lr, f"model.{model}": 1}
            )
    assert varying(records_in(tmp_path)) == ["model.name"]


def test_a_key_of_the_command_line_is_kept_even_if_another_determines_it(tmp_path):
    run_folder(tmp_path, "a", model="mlp", config={"optimizer.lr": 0.1}, typed=["model=mlp"])
    run_folder(tmp_path, "b", model="lenet", config={"optimizer.lr": 0.2}, typed=["model=lenet", "optimizer.lr=0.2"])
    assert varying(records_in(tmp_path)) == ["model.name", "optimizer.lr"]


def test_both_keys_of_a_random_search_are_shown(tmp_path):
    for number, (lr, width) in enumerate([(0.11, 16), (0.12, 32), (0.13, 16), (0.14, 64)]):
        keys = {"optimizer.lr": lr, "model.width": width, "model.twin": width}
        run_folder(tmp_path, f"{number}", config=keys, typed=[f"optimizer.lr={lr}", f"+model.width={width}"])
    assert varying(records_in(tmp_path)) == ["model.width", "optimizer.lr"]


def test_a_key_that_some_runs_lack_differs(tmp_path):
    run_folder(tmp_path, "a", config={"model.dropout": 0.5})
    run_folder(tmp_path, "b")
    [missing, there] = grouped(records_in(tmp_path), varying(records_in(tmp_path)))
    assert (missing.values, there.values) == ({"model.dropout": None}, {"model.dropout": 0.5})
    assert (missing.label, there.label) == ("dropout –", "dropout 0.5")


def test_groups_are_in_order_of_their_numbers(tmp_path):
    grid(tmp_path, {("resnet", depth): [0.1] for depth in (110, 8, 20)})
    assert [group.label for group in grouped(records_in(tmp_path), ["model.depth"])] == [
        "depth 8",
        "depth 20",
        "depth 110",
    ]


@pytest.mark.parametrize(
    "values, words",
    [
        ({"model.name": "resnet", "model.depth": 20}, "resnet, depth 20"),
        ({"model.name": "mlp", "model.depth": None}, "mlp"),
        ({"model.residual": False, "dataset.train_size": 10_000}, "not residual, train size 10,000"),
        ({"optimizer.lr": 0.001}, "lr 0.001"),
        ({}, "all runs"),
    ],
)
def test_labels_are_short_and_readable(values, words):
    assert label(values) == words


def test_a_spread_is_the_mean_and_the_samples_standard_deviation_of_finished_runs(tmp_path):
    grid(tmp_path, {("mlp", 1): [0.1, 0.2, 0.3]})
    run_folder(tmp_path, "going", status="running", metrics={"val/loss": 9.0})
    [group] = grouped(records_in(tmp_path), [])
    assert group.spread("val/loss") == pytest.approx((0.2, 0.1, 3))
    assert Group({}, group.records[:1]).spread("val/loss").std is None
    assert group.spread("test/bleu") is None


def test_a_mean_curve_stands_where_all_runs_have_values(tmp_path):
    for name, text in (("a", "0,1\n2,3\n4,5"), ("b", "1,4\n3,6\n9,0")):
        (run_folder(tmp_path, name) / "metrics.csv").write_text(f"step,val/loss\n{text}\n")
    [group] = grouped(records_in(tmp_path), [])
    curve = group.mean_curve("val/loss")
    assert curve.x.tolist() == [1, 2, 3, 4]
    assert curve.mean.tolist() == [3, 4, 5, 5]
    assert (curve.std[:3].tolist(), curve.n) == ([pytest.approx(2**0.5)] * 3, 2)


def test_curves_that_do_not_overlap_have_no_mean():
    first, second = (np.array([0.0, 1.0]), np.zeros(2)), (np.array([2.0, 3.0]), np.zeros(2))
    assert together([first, second]) is None
    assert together([]) is None


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    x = np.arange(5000.0)
    grid_points, values = together([(x, x)])
    assert len(grid_points) <= 400
    assert (grid_points[0], grid_points[-1], values.shape[0]) == (0, 4999, 1)


def test_keys_that_come_with_the_data_set_are_no_labels(tmp_path):
    for name, size in (("cifar10", 8), ("digits", 2)):
        for seed in (1, 2):
            config = {"dataset.name": name, "dataset.height": 4 * size, "model.patch_size": size}
            run_folder(tmp_path, f"{name}-{seed}", model="vit", seed=seed, config=config)
    assert varying(records_in(tmp_path)) == ["dataset.name"]


def test_runs_of_unlike_data_and_trials_are_kinds_of_their_own_and_trials_come_last(tmp_path):
    run_folder(tmp_path, "a", config={"trainer.name": "debug"})
    run_folder(tmp_path, "b", config={"dataset.name": "mnist"})
    run_folder(tmp_path, "c")
    found = [(kind.label, [record.name for record in kind.records]) for kind in kinds(records_in(tmp_path))]
    assert [names for _, names in found] == [["c"], ["b"], ["a"]]
    assert found[-1][0].startswith("trainer=debug, digits")


def test_a_failed_run_counts_in_no_mean_while_another_goes_on(tmp_path):
    run_folder(tmp_path, "a", status="failed", metrics={"val/loss": 9.0})
    run_folder(tmp_path, "b", status="running", metrics={"val/loss": 1.0})
    [group] = grouped(records_in(tmp_path), [])
    assert (group.spread("val/loss").mean, group.spread("val/loss").n) == (1.0, 1)
    assert group.mean_curve("val/loss").n == 1
