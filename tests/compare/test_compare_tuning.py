"""What an experiment tunes: what is chosen from the trials, and what they count for."""

from __future__ import annotations

import pytest

from epochal.compare.scan import read
from epochal.compare.tuning import Tuning
from epochal.core.errors import ConfigError
from helpers.run_folders import run_folder

POINTS = [("model=mlp",), ("model=cnn",)]
TUNING = Tuning({"optimizer.lr": "0.1,0.01"}, seed=100, metric="val/loss")


def trial(folder, model, rate, loss, seed=100, **choices):
    typed = [f"model={model}", f"seed={seed}", f"optimizer.lr={rate}"]
    config = {"optimizer.lr": rate}
    run_folder(
        folder,
        f"{model}-{rate}-{seed}",
        model=model,
        seed=seed,
        config=config,
        typed=typed,
        metrics={"val/loss": loss},
        **choices,
    )


def test_each_side_takes_the_best_of_its_own_trials(tmp_path):
    trial(tmp_path, "mlp", 0.1, 0.5)
    trial(tmp_path, "mlp", 0.01, 0.7)
    trial(tmp_path, "cnn", 0.1, 0.0, status="failed", diverged=True)
    trial(tmp_path, "cnn", 0.01, 0.9)
    trial(tmp_path, "cnn", 0.1, 0.1, seed=1)  # a run that decides is no trial
    records = read([tmp_path])[0]
    assert TUNING.chosen(POINTS, records) == {POINTS[0]: ("optimizer.lr=0.1",), POINTS[1]: ("optimizer.lr=0.01",)}
    assert TUNING.described(POINTS, records) == (
        "Tuned by val/loss with seed 100, optimizer.lr of 0.1,0.01: mlp takes 0.1; cnn takes 0.01 (4 trials, 50 s)."
    )


def test_a_side_is_named_by_the_labels_of_its_choices(tmp_path):
    points = (
        ("model=vgg", "model.depth=19", "model.batch_norm=false"),
        ("model=vgg", "model.depth=11", "model.batch_norm=true"),
        ("model=vgg", "model.depth=19", "model.batch_norm=true"),
    )
    for point, rate in zip(points, (0.1, 0.01, 0.02)):
        run_folder(
            tmp_path,
            f"{rate}",
            model="vgg",
            seed=100,
            typed=[*point, f"optimizer.lr={rate}"],
            metrics={"val/loss": 1.0},
        )
    assert (
        "depth 19, not batch norm takes 0.1; depth 11, batch norm takes 0.01; depth 19, batch norm takes"
        in TUNING.described(points, read([tmp_path])[0])
    )


def test_what_most_sides_take_is_said_once_without_keys_that_go_along(tmp_path):
    points = [
        (f"dataset.length={length}", f"model={model}", f"model.hidden_size={16 if model == 'rnn' else 8}")
        for length in (5, 15, 30)
        for model in ("rnn", "lstm")
    ]
    for number, point in enumerate(points):
        rate = 0.1 if number == 1 else 0.01
        typed = [*point, f"optimizer.lr={rate}"]
        run_folder(tmp_path, f"{number}", seed=100, typed=typed, metrics={"val/loss": 1.0})
    records = read([tmp_path])[0]
    said = "Tuned by val/loss with seed 100, optimizer.lr of 0.1,0.01:"
    assert (
        TUNING.described(points, records) == f"{said} length 5, lstm takes 0.1; all others take 0.01 (6 trials, 75 s)."
    )
    one_left = TUNING.described([*points, ("dataset.length=50", "model=rnn", "model.hidden_size=16")], records)
    assert "others" not in one_left and "length 30, lstm takes 0.01" in one_left


def test_a_larger_accuracy_is_better_and_the_best_checkpoint_counts(tmp_path):
    tuning = Tuning({"optimizer.lr": "0.1,0.01"}, seed=100, metric="val/accuracy")
    for rate, best in ((0.1, 0.9), (0.01, 0.8)):
        trial(tmp_path, "mlp", rate, 0.5, best={"metric": "val/accuracy", "value": best, "step": 20})
    assert tuning.chosen(POINTS[:1], read([tmp_path])[0]) == {POINTS[0]: ("optimizer.lr=0.1",)}


def test_a_side_whose_trials_all_failed_for_another_reason_has_no_choice(tmp_path):
    trial(tmp_path, "mlp", 0.1, 0.5, status="failed")
    assert TUNING.chosen(POINTS, read([tmp_path])[0]) == {}
    assert "of 0.1,0.01: none chosen yet (1 trial" in TUNING.described(POINTS, read([tmp_path])[0])


@pytest.mark.parametrize(
    "written, says",
    [
        ({"space": {}, "seed": 1}, "needs a space"),
        ({"space": {"optimizer.lr": "0.1"}}, "and a seed"),
        ({"space": {"optimizer.lr": "0.1"}, "seed": True}, "and a seed"),
        ({"space": {"optimizer.lr": "0.1"}, "seed": 1, "by": "model"}, "has by"),
        ({"space": {"optimizer.lr": "0.1"}, "seed": 1, "metric": "test/loss"}, "no metric of validation"),
    ],
)
def test_a_wrong_tuning_ends_in_a_sentence(written, says):
    with pytest.raises(ConfigError, match=says):
        Tuning.of(written)
