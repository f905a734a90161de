"""Searches: where they look, what they ask next, and that kills, other processes and wrong words do them no harm."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from conftest import ROOT
from epochal.config.validate import validate
from epochal.core.errors import ConfigError
from epochal.experiments.sweeps import JOURNAL
from epochal.experiments.sweeps.settings import Objective, Settings
from epochal.experiments.sweeps.space import Branch, Parameter, Space, read_space, setting_text
from epochal.experiments.sweeps.study import Asked, Study, repair
from epochal.tasks.classification import Classification
from helpers.training import composed, in_new_process

LR = Parameter("optimizer.lr", low=1e-4, high=1e-1, log=True)
SEARCH = ("sweep=cnn", "logger=none", "trainer=cpu", "duration=2epochs", "model.filters=[4]", "model.hidden=16")


def settings(**changes: Any) -> Settings:
    plain = dict(study="s", n_trials=20, n_jobs=None, sampler="tpe", objectives=(), pruner="none", startup=5, warmup=10)
    return Settings(**(plain | {"seed": 1} | changes))  # type: ignore[arg-type]


def study(folder: Path, space: Sequence[Parameter] | Space = (LR,), config: Any = None, **changes: Any) -> Study:
    objectives = changes.pop("objectives", (Objective("minimize", "val/loss"),))
    space = space if isinstance(space, Space) else Space(tuple(space))
    return Study(folder, space, objectives, settings(**changes), config or {"model": {"name": "cnn"}})


def finish(study: Study, asked: Asked, value: Callable[[float], float] = lambda lr: abs(math.log10(lr) + 2)) -> None:
    study.tell(asked, TrialState.COMPLETE, [value(float(asked.values["optimizer.lr"]))])


def drawn(study: Study) -> list[Any]:
    return [trial.params["optimizer.lr"] for trial in study.trials()]


def rows(folder: Path) -> list[dict[str, str]]:
    """Of the search's table, without the runs' names, which tell the time."""
    with (folder / "trials.csv").open() as stream:
        return [{k: v for k, v in row.items() if k != "run"} for row in csv.DictReader(stream)]


# ---- where it looks ----


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("a=interval(0,1)", Parameter("a", low=0.0, high=1.0)),
        ("a=tag(log, interval(1e-4, 1e-1))", Parameter("a", low=1e-4, high=1e-1, log=True)),
        ("a=tag(log, int(interval(8, 64)))", Parameter("a", low=8, high=64, log=True)),
        ("a=range(2,9,2)", Parameter("a", low=2, high=8, step=2)),
        ("a=range(0,1,0.25)", Parameter("a", low=0.0, high=0.75, step=0.25)),
        ("a=16,32", Parameter("a", choices=(16, 32))),
        ("a=choice([4,8],[16,32])", Parameter("a", choices=("[4,8]", "[16,32]"))),
        ("a=relu,null,true,0.5", Parameter("a", choices=("relu", "null", "True", 0.5))),
        ("+a.b=choice(x,'y z')", Parameter("+a.b", choices=("x", "y\\ z"))),
    ],
)
def test_hydras_sweeps_are_read_as_ranges(text: str, parameter: Parameter) -> None:
    space, fixed = read_space(OverridesParser.create().parse_overrides([text, "b=1"]), composed())
    assert (space, fixed) == ([parameter], ["b=1"])


def test_the_command_line_is_stronger_than_the_config() -> None:
    overrides = OverridesParser.create().parse_overrides(["a=interval(0,1)", "b=1,2", "a=interval(0,9)", "b=7"])
    space, fixed = read_space(overrides, composed())
    assert (space, fixed) == ([Parameter("a", low=0.0, high=9.0)], ["b=7"])


@pytest.mark.parametrize("value", [3e-4, 16.0, 0.1234567891, 1e-9, 1e20, 7, "[4,8]", "'y z'"])
def test_a_value_is_typed_as_what_it_is(value: Any) -> None:
    override = OverridesParser.create().parse_override(Parameter("a", choices=(value,)).override(value))
    assert type(override.value()) in (type(value), list)
    if isinstance(value, float):
        assert override.value() == pytest.approx(value, rel=1e-5)


# ---- what it asks ----


def test_a_search_comes_closer_than_chance(tmp_path: Path) -> None:
    found = {}
    for sampler in ("tpe", "random"):
        values = []
        for seed in range(3):
            tried = study(tmp_path / f"{sampler}{seed}", sampler=sampler, seed=seed, n_trials=30)
            while asked := tried.ask():
                finish(tried, asked)
            values.append(tried.best(1)[0].values[0])
        found[sampler] = sum(values)
    assert found["tpe"] < found["random"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_that_died_asks_what_it_would_have_asked(tmp_path: Path, sampler: str) -> None:
    whole = study(tmp_path / "whole", sampler=sampler, n_trials=12)
    while asked := whole.ask():
        finish(whole, asked)
    for _ in range(12):  # each process dies in its second trial
        killed = study(tmp_path / "killed", sampler=sampler, n_trials=12)
        if asked := killed.ask():
            finish(killed, asked)
        if asked := killed.ask():
            asked.lock.release()  # as the kernel does
    assert drawn(killed) == drawn(whole)
    assert len(set(drawn(whole))) == 12
    assert all(trial.state == TrialState.COMPLETE for trial in killed.trials())


def test_a_trial_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    one, other = study(tmp_path / "s"), study(tmp_path / "s")
    asked = [one.ask(), other.ask(), one.ask()]
    assert [a.number for a in asked if a] == [0, 1, 2]
    assert not any(a.again for a in asked if a)


def ask_all(folder: Path) -> None:
    mine = study(folder, n_trials=30)
    while asked := mine.ask():
        time.sleep(0.01)
        finish(mine, asked)


@pytest.mark.slow
def test_processes_share_the_trials_out(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: in_new_process(ask_all, tmp_path / "s"), range(2))) == [0, 0]
    shared = study(tmp_path / "s", n_trials=30)
    assert len(shared.trials()) == 30
    assert len(set(drawn(shared))) == 30
    assert all(trial.state == TrialState.COMPLETE for trial in shared.trials())


def test_a_line_that_a_kill_cut_in_two_does_no_harm(tmp_path: Path) -> None:
    begun = study(tmp_path / "s")
    finish(begun, begun.ask())  # type: ignore[arg-type]
    with (tmp_path / "s" / JOURNAL).open("a") as stream:
        stream.write('{"op_code": 4, "wor')
    again = study(tmp_path / "s")
    finish(again, again.ask())  # type: ignore[arg-type]
    assert len(study(tmp_path / "s").trials()) == 2
    repair(tmp_path / "nothing")


def test_a_study_opens_with_plain_optuna(tmp_path: Path) -> None:
    import optuna

    begun = study(tmp_path / "s")
    finish(begun, begun.ask())  # type: ignore[arg-type]
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "s" / JOURNAL)))
    loaded = optuna.load_study(study_name="s", storage=storage)
    assert loaded.best_params == {"optimizer.lr": drawn(begun)[0]}


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    both = (Objective("maximize", "val/accuracy"), Objective("minimize", "parameters"))
    two = study(tmp_path / "s", objectives=both)
    for values in ([0.9, 100.0], [0.8, 50.0], [0.7, 60.0], [0.95, 400.0]):
        two.tell(two.ask(), TrialState.COMPLETE, values)  # type: ignore[arg-type]
    assert [trial.values for trial in two.best(9)] == [[0.95, 400.0], [0.9, 100.0], [0.8, 50.0]]


# ---- nothing twice ----

GRID = Space(
    (Parameter("optimizer.lr", choices=(0.003, 0.01, 1e25)), Parameter("model.dropout", low=0.0, high=0.5, step=0.25))
)
MODELS = Space(  # of mlp and cnn the learning rate, and what only one of them has
    (
        Parameter("model", choices=("mlp", "cnn")),
        Parameter("model.hidden", choices=("[8]", "[16]")),
        Parameter("model.filters", choices=("[4]", "[8]", "[8,8]")),
        Parameter("optimizer.lr", choices=(0.1, 0.2)),
    ),
    (
        Branch({"model": "mlp"}, frozenset({"model", "model.hidden", "optimizer.lr"}), ("a=1",)),
        Branch({"model": "cnn"}, frozenset({"model", "model.filters", "optimizer.lr"}), ("a=1", "model.pool=max")),
    ),
)


def settings_of(study: Study) -> list[str]:
    return [setting_text(trial.params) for trial in study.trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize(
    ("space", "size"),
    [
        (GRID, 9),
        (MODELS, 10),
        (Space((Parameter("optimizer.lr", low=1, high=12, log=True),)), 12),
        (Space((Parameter("optimizer.lr", choices=(0.1, 0.2)), Parameter("seed", choices=(1, 2, 3)))), 6),
    ],
    ids=["grid", "conditional", "integers", "seeds"],
)
def test_a_finite_space_is_tried_once_and_ends_the_search(
    tmp_path: Path, sampler: str, space: Space, size: int
) -> None:
    assert space.size == size == len(list(space.settings()))
    while asked := (tried := study(tmp_path / "s", space, sampler=sampler, n_trials=99)).ask():  # resumed at each trial
        assert not tried.exhausted or len(tried.trials()) == size
        finish(tried, asked)
    assert sorted(settings_of(tried)) == sorted(map(setting_text, space.settings()))
    assert tried.exhausted


def test_what_is_being_tried_is_not_asked_for_again(tmp_path: Path) -> None:
    processes = [study(tmp_path / "s", MODELS, sampler="random", n_trials=99) for _ in range(2)]
    asked = [processes[number % 2].ask() for number in range(10)]
    assert len({setting_text(a.values) for a in asked if a}) == 10
    assert [process.ask() for process in processes] == [None, None]


def test_a_range_of_fractions_never_ends() -> None:
    assert Space((LR,)).size == math.inf
    assert Space((LR, Parameter("a", choices=("b", "c")))).size == math.inf


# ---- keys that only some choices have ----


def conditional(*arguments: str) -> Space:
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    parameters, fixed = read_space(overrides, composed())
    return Space.of(parameters, fixed, lambda overrides: composed(*overrides))


def test_a_trial_has_the_keys_that_its_own_choice_has() -> None:
    space = conditional(
        *("model=mlp,cnn", "model.dropout=0.1,0.2", "model.pool=max,average", "model.kernel_size=5"),
        *("optimizer=adamw,sgd", "optimizer.momentum=interval(0,0.9)", "seed=3"),
    )
    keys = {tuple(branch.options.values()): branch.names for branch in space.branches}
    both = {"model", "optimizer", "model.dropout"}
    assert keys == {
        ("mlp", "adamw"): both,
        ("mlp", "sgd"): {*both, "optimizer.momentum"},
        ("cnn", "adamw"): {*both, "model.pool"},
        ("cnn", "sgd"): {*both, "model.pool", "optimizer.momentum"},
    }
    setting = {"model": "mlp", "optimizer": "adamw", "model.dropout": 0.1}
    assert space.overrides(setting) == ["seed=3", "model=mlp", "model.dropout=0.1", "optimizer=adamw"]
    setting |= {"model": "cnn", "model.pool": "max"}
    assert space.overrides(setting)[:2] == ["model.kernel_size=5", "seed=3"]


def test_a_key_that_follows_from_the_chosen_model_is_one_too() -> None:
    space = conditional(
        "model=resnet,lenet", "optimizer.momentum=0.8,0.9"
    )  # sgd of resnet has one, adamw of lenet none
    assert [sorted(branch.names or ()) for branch in space.branches] == [["model", "optimizer.momentum"], ["model"]]


def test_every_key_is_drawn_only_where_it_belongs(tmp_path: Path) -> None:
    tried = study(tmp_path / "s", MODELS, n_trials=99)
    while asked := tried.ask():
        assert set(asked.values) == MODELS.branch(asked.values).names
        finish(tried, asked)
    assert {len(trial.params) for trial in tried.trials()} == {3}


@pytest.mark.parametrize("searched", [("model=cnn", "model.filters=choice([4],[8])"), ("optimizer=adamw,sgd",)])
def test_a_search_without_such_keys_draws_as_optuna_itself_does(tmp_path: Path, searched: Sequence[str]) -> None:
    """Bit for bit as before conditions were known: an old study goes on as it began."""
    import optuna

    from epochal.experiments.sweeps.study import sampler

    space = conditional("optimizer.lr=tag(log,interval(1e-4,1e-1))", *searched)
    ours = study(tmp_path / "s", space, n_trials=12)
    plain = optuna.create_study()
    while asked := ours.ask():
        plain.sampler = sampler(ours.settings, asked.number)
        trial = plain.ask()
        values = {parameter.name: parameter.suggest(trial) for parameter in space.parameters}
        assert values == asked.values
        finish(ours, asked)
        plain.tell(trial, ours.trials()[-1].values)


# ---- runs that come to nothing ----


def outcome(**changes: Any) -> Any:
    return {"status": "failed", "error": "so", "exit_status": 1, "folder": None, "summary": {}} | changes


FINISHED = {"status": "finished", "error": None, "exit_status": 0}


@pytest.mark.parametrize(
    ("ending", "noted", "expected"),
    [
        (outcome(), None, "failed"),
        (outcome(), "The loss is nan", "diverged"),
        (outcome(**FINISHED, summary={"metrics": {"val/loss": None}}), None, "diverged"),
        (outcome(**FINISHED, summary={"metrics": {"val/loss": 0.5}}), None, "finished"),
        (outcome(**FINISHED, summary={"metrics": {"val/loss": 0.5}}), "before it was resumed", "finished"),
        (outcome(**FINISHED, summary={"metrics": {"val/acc": 0.5}}), None, "failed"),
        (outcome(status="pruned", error=None), None, "pruned"),
    ],
)
def test_how_a_run_ended_is_told_apart(tmp_path: Path, ending: Any, noted: str | None, expected: str) -> None:
    from epochal.experiments.sweeps import search
    from epochal.experiments.sweeps.study import mark_diverged, open_study
    from epochal.experiments.sweeps.words import state

    tried = study(tmp_path / "s")
    asked = tried.ask()
    assert asked is not None
    if noted:  # by the callback, in the process of the run
        mark_diverged(open_study(tried.folder, tried.settings), asked.number, noted)
    search.tell(tried, asked, ending)
    assert state(tried.trials()[0]) == expected
    assert len(tried.finished()) == (expected == "finished")
    assert len(tried.diverged()) == (expected == "diverged")


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_sampler_learns_where_runs_diverge(tmp_path: Path, direction: str) -> None:
    """A fifth of the space is good; where the learning rate is above 0.01 a run diverges."""
    sign = -1 if direction == "maximize" else 1

    def lost(diverged: bool) -> int:
        objectives = (Objective(direction, "val/loss"),)
        tried = study(tmp_path / f"{diverged}", objectives=objectives, n_trials=40)
        while asked := tried.ask():
            lr = float(asked.values["optimizer.lr"])
            if lr < 1e-2:
                finish(tried, asked, lambda lr: sign * abs(math.log10(lr) + 2))
            elif diverged:
                tried.tell(asked, TrialState.FAIL, diverged="The loss is nan")
            else:  # as a search that is not told
                tried.tell(asked, TrialState.FAIL)
        assert all(trial.params["optimizer.lr"] < 1e-2 for trial in tried.best(99))
        return sum(trial.params["optimizer.lr"] >= 1e-2 for trial in tried.trials())

    assert lost(True) < lost(False)


def test_a_trial_that_diverged_is_never_the_best(tmp_path: Path) -> None:
    one = study(tmp_path / "one")
    one.tell(one.ask(), TrialState.FAIL, diverged="so")  # type: ignore[arg-type]
    assert one.best(9) == []
    both = (Objective("maximize", "val/accuracy"), Objective("minimize", "parameters"))
    two = study(tmp_path / "two", objectives=both, n_trials=30)
    for number in range(30):
        if number % 3:
            two.tell(two.ask(), TrialState.COMPLETE, [number / 30, 100.0])  # type: ignore[arg-type]
        else:
            two.tell(two.ask(), TrialState.FAIL, diverged="so")  # type: ignore[arg-type]
    assert [trial.values for trial in two.best(9)] == [[29 / 30, 100.0]]


def test_a_failed_trial_neither_counts_nor_was_tried_when_the_search_is_begun_again(tmp_path: Path) -> None:
    first = study(tmp_path / "s", GRID, n_trials=99)
    for _ in range(9):
        first.tell(first.ask(), TrialState.FAIL, error="The disk is full")  # type: ignore[arg-type]
    assert first.ask() is None, "it would fail again"
    again = study(tmp_path / "s", GRID, n_trials=9)
    while asked := again.ask():
        finish(again, asked)
    assert len(again.finished()) == 9 and len(again.trials()) == 18


def test_trials_that_diverged_are_no_measure_for_the_median() -> None:
    from epochal.experiments.sweeps.study import pruner

    assert pruner(settings(pruner="median", startup=5), diverged=3)._n_startup_trials == 8  # type: ignore[attr-defined]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, home: Path) -> Callable[[Callable[[Any], Any]], None]:
    """Trials that train nothing: a function of the config gives the value, or raises."""

    def replace(value: Callable[[Any], Any]) -> None:
        class Ended:
            def __init__(self, config: Any) -> None:
                self.folder, self.value = home / f"run_{config.sweep.trial}", value(config)

            def summary(self) -> dict[str, Any]:
                return {"status": "finished", "metrics": {"val/accuracy": self.value}}

        monkeypatch.setattr("epochal.cli.train_run", lambda config: (Ended(config), False))

    return replace


LINE = ("sweep=search", "logger=none", "sweep.study=s", "sweep.n_trials=20")


def test_a_search_of_few_settings_ends_early_and_says_so(command: Any, home: Path, quick: Any) -> None:
    seen: list[str] = []
    quick(lambda config: seen.append(f"{config.model.name} {config.model.get('pool')}") or 0.5)
    arguments = (*LINE, "model=mlp,cnn", "model.pool=max,average,none")
    outcome = command("train", *arguments)
    assert outcome.status == 0, outcome.error
    assert sorted(seen) == ["cnn average", "cnn max", "cnn none", "mlp None"]
    assert outcome.out.startswith("4 settings, a trial each, in outputs/sweeps/s, 0 of them ended before.")
    assert "4 of 4 settings: all were tried, so the search ends before sweep.n_trials=20." in " ".join(
        outcome.out.split()
    )
    again = command("train", *arguments)
    assert "There is nothing left to try: each of them was tried." in again.out
    assert len(seen) == 4


def test_the_study_of_several_models_is_named_after_them(command: Any, home: Path, quick: Any) -> None:
    quick(lambda config: 0.5)
    assert command("train", "sweep=search", "logger=none", "model=mlp,cnn").status == 0
    assert [folder.name for folder in (home / "outputs" / "sweeps").iterdir()] == ["search_mlp-cnn_digits"]


def test_a_search_stops_when_run_after_run_fails(command: Any, home: Path, quick: Any) -> None:
    from epochal.core.errors import EpochalError

    full = True

    def value(config: Any) -> float:
        if full and config.sweep.trial > 1:
            raise EpochalError("The disk is full.")
        return 0.5

    quick(value)
    arguments = (*LINE, "optimizer.lr=tag(log,interval(1e-4,1e-1))", "sweep.n_trials=9")
    outcome = command("train", *arguments)
    assert outcome.status == 1
    assert "The search stopped after 5 failed trials in a row, the last one because: The disk is full." in outcome.error
    assert "7 trials: 2 finished, 5 failed." in outcome.out
    full = False
    again = command("train", *arguments)
    assert again.status == 0 and "14 trials: 9 finished, 5 failed." in again.out
    assert "5 trials failed before and did not count" in again.out


def test_a_search_that_is_stopped_reports_what_it_found_and_how_it_goes_on(
    command: Any, home: Path, quick: Any
) -> None:
    def value(config: Any) -> float:
        if config.sweep.trial == 2 and not outcomes:
            raise KeyboardInterrupt
        return 0.5

    outcomes: list[Any] = []
    quick(value)
    arguments = (*LINE, "optimizer.lr=choice(1e-3,1e-2,1e-1)")
    outcomes.append(command("train", *arguments))
    assert outcomes[0].status == 130
    assert "3 trials: 2 finished, 1 not finished yet." in outcomes[0].out
    assert "The same line typed again goes on with this search." in outcomes[0].out
    assert outcomes[0].error == "Stopped.\n"
    assert [row["state"] for row in rows(home / "outputs" / "sweeps" / "s")] == ["finished", "finished", "running"]
    again = command("train", *arguments)
    assert again.status == 0 and "nothing left to try" not in again.out
    assert "3 trials: 3 finished." in again.out


def test_a_search_of_which_all_diverged_fails(command: Any, home: Path, quick: Any) -> None:
    quick(lambda config: math.nan)
    outcome = command("train", *LINE, "optimizer.lr=choice(1,2)")
    assert outcome.status == 1
    assert "Every trial diverged; search where the learning rate is smaller." in outcome.error


# ---- table and figures ----


def searched(folder: Path, space: Space, n_trials: int = 24, **changes: Any) -> Study:
    """Trials of all kinds."""
    tried = study(folder, space, objectives=(Objective("maximize", "val/accuracy"),), n_trials=n_trials, **changes)
    while asked := tried.ask():
        kind = asked.number % 8
        if kind == 1:
            tried.tell(asked, TrialState.FAIL, diverged="The loss is nan", error="The loss is nan")
        elif kind == 2:
            tried.tell(asked, TrialState.FAIL, error="The disk is full")
        elif kind == 3:
            asked.trial.report(0.4, 20)
            tried.tell(asked, TrialState.PRUNED)
        else:
            tried.tell(asked, TrialState.COMPLETE, [1 - 1 / (2 + asked.number)])
    return tried


LONG = tuple(f"[64,64,64,64,{end}]" for end in (8, 16, 32))
MANY = Space(
    (
        LR,
        Parameter("model.hidden", choices=LONG),
        Parameter("model.dropout", low=0.0, high=0.5),
        Parameter("optimizer.weight_decay", low=1e-6, high=1e-1, log=True),
        Parameter("dataset.batch_size", choices=(16, 32, 64)),
        Parameter("scheduler.warmup", low=0.0, high=0.5),
    )
)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("space", [Space((LR,)), Space(MANY.parameters[:2]), Space(MANY.parameters[:4]), MANY, MODELS])
def test_the_table_fits_the_terminal_and_no_two_rows_read_alike(tmp_path: Path, width: int, space: Space) -> None:
    import io

    from rich.console import Console

    from epochal.experiments.sweeps.report import table

    tried = searched(tmp_path / "s", space)
    console = Console(width=width, file=io.StringIO())
    console.print(table(tried, tried.best(10), width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    body = " ".join(line.rstrip() for line in lines[2:])
    for trial in tried.best(10):
        assert f" {trial.number} " in f" {body} "
    if space is not MANY:
        cells = [" ".join(line.split()[3:]) for line in lines[2:]]
        assert len(cells) == len(set(cells)) == min(10, len(tried.finished()))


@pytest.mark.parametrize(
    ("texts", "width", "expected"),
    [
        (["abc", "abcd"], 4, ["abc", "abcd"]),
        (["abcdefghij"], 5, ["ab…ij"]),
        (["[64,64,64,8]", "[64,64,64,16]"], 8, ["[64…4,8]", "[64…,16]"]),
        (["aaaaXaaaa", "aaaaYaaaa"], 6, ["…Xaaaa", "…Yaaaa"]),
        (["aaaaaaXaaaaaa", "aaaaaaYaaaaaa"], 4, ["…Xaaaaaa", "…Yaaaaaa"]),
        ([], 4, []),
    ],
)
def test_long_texts_are_cut_in_the_middle_and_stay_different(texts: list[str], width: int, expected: list[str]) -> None:
    from epochal.experiments.sweeps.words import shortened

    cut = shortened(texts, width)
    assert cut == expected
    assert len(set(cut)) == len(set(texts))


def rows_of(spec: Any) -> list[Any]:
    """All rows of data in a figure."""
    if isinstance(spec, dict):
        data = spec.get("data") or {}
        return [*data.get("values", []), *(row for child in spec.values() for row in rows_of(child))]
    return [row for child in spec for row in rows_of(child)] if isinstance(spec, list) else []


def test_a_panel_for_each_key_marks_the_best_and_those_that_came_to_nothing(tmp_path: Path) -> None:
    from epochal.experiments.sweeps.figures import parameters

    spec = parameters(searched(tmp_path / "s", Space(MANY.parameters[:3])))
    assert spec is not None
    panels = spec["concat"]
    scales = [panel["layer"][0]["encoding"]["x"]["scale"]["type"] for panel in panels if "log" in str(panel)]
    assert len(panels) == 3 and scales == ["log"]
    for panel in panels:
        series = [row["series"] for row in rows_of(panel)]
        assert {kind: series.count(kind) for kind in set(series)} == {
            "finished": 14,
            "best": 1,
            "diverged": 3,
            "failed": 3,
            "pruned": 3,
        }


def test_a_key_that_not_all_trials_have_is_drawn_for_those_that_do(tmp_path: Path) -> None:
    from epochal.experiments.sweeps.figures import parallel, parameters

    tried = searched(tmp_path / "s", MODELS, startup=99)
    with_filters = sum("model.filters" in trial.params for trial in tried.trials())
    panels = parameters(tried)["concat"]  # type: ignore[index]
    assert [len(rows_of(panel)) for panel in panels] == [10, 10 - with_filters, with_filters, 10]
    assert "not set" in str(parallel(tried))


def test_parallel_coordinates_have_a_line_for_each_trial_with_a_value_or_none(tmp_path: Path) -> None:
    from epochal.experiments.sweeps.figures import parallel

    lines = [row for row in rows_of(parallel(searched(tmp_path / "s", MANY))) if "kind" in row]
    trials = {row["trial"]: row["kind"] for row in lines}
    assert len(lines) == 7 * len(trials) == 7 * 21
    assert sorted(set(trials.values())) == ["best", "diverged", "finished", "pruned"]
    assert all(row["y"] < 0 for row in lines if row["kind"] == "diverged" and row["x"] == 6), "below the worst value"
    assert all(0 <= row["y"] <= 1 for row in lines if row["kind"] != "diverged")


def test_where_runs_diverge_counts_for_the_importance(tmp_path: Path) -> None:
    from epochal.experiments.sweeps.figures import importance

    tried = study(tmp_path / "s", Space(MANY.parameters[:2]), sampler="random", n_trials=40)
    while asked := tried.ask():  # nothing matters but that half of the learning rates diverge
        if float(asked.values["optimizer.lr"]) > 3e-3:
            tried.tell(asked, TrialState.FAIL, diverged="so")
        else:
            tried.tell(asked, TrialState.COMPLETE, [asked.number % 7 / 7])
    found = {row["parameter"]: row["fraction"] for row in rows_of(importance(tried))}
    assert found["optimizer.lr"] > 0.7


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_figures_of_a_search_are_files(tmp_path: Path, objectives: int) -> None:
    from epochal.experiments.sweeps.figures import draw

    both = (Objective("minimize", "val/loss"), Objective("minimize", "parameters"))[:objectives]
    tried = study(tmp_path / "s", MODELS, objectives=both, n_trials=99)
    while asked := tried.ask():
        if asked.number == 3:
            tried.tell(asked, TrialState.FAIL, diverged="so")
        else:
            tried.tell(asked, TrialState.COMPLETE, [10.0 ** (asked.number % 5), 1e5 * asked.number + 1][:objectives])
    names = draw(tried)
    assert names == ["history" if objectives == 1 else "front", "parameters", "parallel", "importance"]
    for name in names:
        assert (tried.folder / f"{name}.png").stat().st_size > 5000
        assert (tried.folder / f"{name}.svg").exists()


# ---- other searches and wrong words ----


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"space": [Parameter("optimizer.lr", low=1e-4, high=1.0, log=True)]},
            "it searched optimizer.lr=tag(log, interval(0.0001, 0.1))",
        ),
        ({"objectives": (Objective("maximize", "val/accuracy"),)}, "it was to minimize val/loss"),
        ({"config": {"model": {"name": "mlp"}}}, 'it had model.name="cnn"'),
        ({"config": {"model": {"name": "cnn"}, "seed": 2}}, "it had no seed"),
    ],
)
def test_a_study_of_another_search_is_refused(tmp_path: Path, changes: Any, says: str) -> None:
    study(tmp_path / "s")
    with pytest.raises(ConfigError) as refusal:
        study(tmp_path / "s", **changes)
    assert says in str(refusal.value)
    assert "sweep.study=<name>" in str(refusal.value)


def test_a_study_goes_on_with_another_sampler_and_more_trials(tmp_path: Path) -> None:
    study(tmp_path / "s")
    study(tmp_path / "s", sampler="random", pruner="hyperband", n_trials=99, seed=7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sweep=lr", "optimizer.lr=0.1"), "There is nothing to search"),
        (("sweep=search",), "There is nothing to search"),
        (("sweep=lrr",), "sweep=lrr is no sweep. Did you mean lr?"),
        (("sweep=lr", "sweep.n_trials=0"), "sweep.n_trials=0 must be a whole number from 1 on."),
        (("sweep=lr", "sweep.n_trails=9"), "There is no key sweep.n_trails. Did you mean sweep.n_trials?"),
        (("sweep=lr", "sweep.sampler=tpp"), "sweep.sampler=tpp is no sampler. Did you mean tpe?"),
        (("sweep=lr", "sweep.pruner=medain"), "sweep.pruner=medain is no pruner. Did you mean median?"),
        (("sweep=lr", "sweep.objectives=[]"), "sweep.objectives is empty"),
        (("sweep=lr", "sweep.objectives=[val/accuracy]"), "an objective is a direction and a name"),
        (("sweep=lr", "sweep.objectives=[maximize test/accuracy]"), "take val/accuracy"),
        (("sweep=lr", "sweep.objectives=[minimize parametres]"), "Did you mean parameters?"),
        (("sweep=lr", "sweep.objectives=[minimize parameters]"), "add sweep.pruner=none"),
        (("sweep=tradeoff", "sweep.pruner=median"), "judges by one objective and there are 2"),
        (("sweep=lr", "model=gan"), "sweep.objectives=auto is the metric that chooses the best checkpoint"),
        (("sweep=lr", "optimizer.lr=interval(1,0)"), "has nothing between its ends"),
        (("sweep=lr", "optimizer.lr=tag(log,interval(0,1))"), "must begin above zero"),
        (("sweep=lr", "optimizer.lr=tag(log,choice(1,2))"), "the only tag is log"),
        (("sweep=lr", "optimizer.lr=range(1,1)"), "is empty"),
        (("sweep=lr", "dataset.batch_size=interval(16,64)"), "int(interval(16, 64))"),
        (("sweep=lr", "model.widht=choice(1,2)"), "There is no key model.widht."),
        (("sweep=lr", "model=lenet,gpt"), "reads tokens"),
        (
            ("sweep=lr", "model=mlp,cnn", "model.channels=1,2"),
            "There is no key model.channels with any of model=mlp,cnn; model=captioner would have it.",
        ),
        (("sweep=lr", "model=mlp,cnn", "model.filtres=choice([1],[2])"), "Did you mean model.filters?"),
        (("sweep=lr", "dataset.batch_size=choice(32,0)"), "dataset.batch_size=0 must be above zero."),
    ],
)
def test_a_search_that_is_none_ends_in_a_sentence_before_any_run(refuse: Any, arguments: Any, says: str) -> None:
    lines = 2 if says in ("reads tokens", "dataset.batch_size=0 must be above zero.") else 1
    refuse("train", *arguments, "logger=none", says=[says], lines=lines)


def test_a_journal_that_cannot_be_read_ends_in_a_sentence(command: Any, home: Path) -> None:
    folder = home / "outputs" / "sweeps" / "cnn_digits"
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_text("no study\n")
    outcome = command("train", *SEARCH)
    assert outcome.status == 2
    assert "cannot be read as a study" in outcome.error
    assert (folder / JOURNAL).read_text() == "no study\n"


def test_a_metric_that_nothing_measures_ends_the_search_and_leaves_no_study(command: Any, home: Path) -> None:
    outcome = command("train", *SEARCH, "sweep.objectives=[maximize val/acuracy]")
    assert outcome.status == 2
    assert "Did you mean val/accuracy?" in outcome.error
    assert not (home / "outputs" / "sweeps" / "cnn_digits" / JOURNAL).exists()


# ---- whole searches ----


def test_a_search_prunes_and_reports(command: Any, home: Path) -> None:
    arguments = (*SEARCH, "duration=3epochs", "sweep.startup=2", "optimizer.lr=tag(log,interval(1e-5,1e-1))")
    outcome = command("train", *arguments, "sweep.n_trials=8", "model.hidden=choice(8,16)")
    assert outcome.status == 0, outcome.error
    folder = home / "outputs" / "sweeps" / "cnn_digits"
    states = [row["state"] for row in rows(folder)]
    assert len(states) == 8 and "pruned" in states
    assert f"{states.count('finished')} finished, {states.count('pruned')} pruned." in outcome.out
    assert f"optuna-dashboard outputs/sweeps/cnn_digits/{JOURNAL}" in outcome.out
    assert {"history.png", "history.svg"} <= {path.name for path in folder.iterdir()}
    assert len(list(folder.glob("*_cnn_digits_s1*"))) == 8

    pruned = next(run for run in folder.glob("*_s1*") if '"status": "pruned"' in (run / "summary.json").read_text())
    alone = command("train", f"resume={pruned}")
    assert alone.status == 0 and '"status": "finished"' in (pruned / "summary.json").read_text(), alone.error

    again = command("train", *arguments, "sweep.n_trials=8", "model.hidden=choice(8,16)")
    assert "There is nothing left to try" in again.out
    more = command("train", *arguments, "sweep.n_trials=9", "model.hidden=choice(8,16)")
    assert more.status == 0 and len(rows(folder)) == 9
    other = command("train", *arguments, "model.hidden=16")
    assert other.status == 2 and "is the study of another search" in other.error


def search_until_killed(home: str, arguments: Sequence[str], where: str | None, after: int) -> None:
    """Searches in this process, which kills itself in its trial number `after` at a hook of the callback."""
    import runpy

    from epochal.experiments.sweeps.prune import Prune

    os.chdir(home)
    if where is not None:
        original = getattr(Prune, where)

        def die(self: Any, *rest: Any) -> None:
            original(self, *rest)
            if self.trial == after:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(Prune, where, die)
    sys.argv = ["train.py", *arguments]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


@pytest.mark.slow
def test_a_search_killed_twice_tries_and_finds_the_same(tmp_path: Path) -> None:
    arguments = (*SEARCH, "sweep.n_trials=5", "sweep.startup=2", "duration=3epochs")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert in_new_process(search_until_killed, str(tmp_path / "whole"), arguments, None, 0) == 0
    for where, after in (("on_validation_end", 0), ("on_train_batch_start", 3)):
        code = in_new_process(search_until_killed, str(tmp_path / "killed"), arguments, where, after)
        assert code == -signal.SIGKILL
    assert in_new_process(search_until_killed, str(tmp_path / "killed"), arguments, None, 0) == 0
    folders = [tmp_path / name / "outputs" / "sweeps" / "cnn_digits" for name in ("whole", "killed")]
    assert rows(folders[0]) == rows(folders[1])
    assert [len(list(folder.glob("*_s1*"))) for folder in folders] == [5, 5], "a run was begun twice"


def test_a_diverged_trial_is_told_apart_and_the_search_goes_on(command: Any, home: Path) -> None:
    arguments = ("optimizer.lr=choice(1e-3,1e30)", "optimizer=sgd", "sweep.sampler=random", "sweep.n_trials=5")
    outcome = command("train", *SEARCH, *arguments)
    states = [row["state"] for row in rows(home / "outputs" / "sweeps" / "cnn_digits")]
    assert sorted(states) == ["diverged", "finished"]
    assert outcome.status == 0, outcome.error
    assert "The loss is" in outcome.out or "no longer finite" in outcome.out
    best = outcome.out.partition("The best trials")[2].partition("figure")[0]
    assert "1e+30" not in best.partition("2 trials:")[0]


@pytest.mark.slow
def test_accuracy_against_parameters_gives_a_front(command: Any, home: Path) -> None:
    arguments = ("sweep=tradeoff", *SEARCH[1:4], "sweep.n_trials=6", "sweep.startup=4")
    outcome = command("train", *arguments)
    assert outcome.status == 0, outcome.error
    folder = home / "outputs" / "sweeps" / "tradeoff_digits"
    assert "The Pareto front" in outcome.out
    assert (folder / "front.svg").exists()
    assert all(float(row["parameters"]) > 100 for row in rows(folder))


@pytest.mark.slow
def test_hyperband_prunes(command: Any, home: Path) -> None:
    arguments = (*SEARCH, "sweep.pruner=hyperband", "sweep.sampler=random", "sweep.n_trials=8", "duration=4epochs")
    assert command("train", *arguments, "optimizer.lr=tag(log,interval(1e-5,1e-1))").status == 0
    assert "pruned" in [row["state"] for row in rows(home / "outputs" / "sweeps" / "cnn_digits")]


def test_a_config_with_a_search_loads_no_optuna() -> None:
    code = (
        "import sys, runpy; sys.argv = ['train.py', 'sweep=lr', '--cfg', 'job']\n"
        f"try: runpy.run_path('{ROOT / 'train.py'}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end\n"
        "heavy = {'optuna', 'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "n_trials" in done.stdout


def test_what_a_wandb_agent_starts_is_a_run_of_ours(home: Path) -> None:
    sweep = yaml.safe_load((ROOT / "docs" / "wandb_sweep.yaml").read_text())
    lows = {"optimizer.lr": 0.0001, "model.filters": "[4,8]", "model.hidden": 16}
    assert set(lows) == set(sweep["parameters"])
    agent = create_sweep_command_args({"args": {name: {"value": value} for name, value in lows.items()}})
    words = [
        agent.get(word.strip("${}"), [word]) for word in sweep["command"] if word not in ("${env}", "${interpreter}")
    ]
    program, *overrides = [argument for found in words for argument in found]
    assert program == "${program}" and sweep["program"] == "train.py"
    config = composed(*overrides)
    validate(config)
    assert config.optimizer.lr == 0.0001 and config.model.filters == [4, 8]
    assert Settings.read(composed("sweep=cnn")).objectives == ()  # auto, which is what the sweep names:
    assert sweep["metric"] == {"name": Classification.reports[0], "goal": "maximize"}


# ---- the long form ----


@pytest.mark.slow
def test_a_killed_and_pruned_search_is_no_worse_than_chance(home: Path) -> None:
    common = ("sweep=cnn", "dataset=digits", "duration=5epochs", "sweep.n_trials=24", "logger=none", "trainer=cpu")
    common += ("sweep.seed=3",)  # docs/sweeps.md has five seeds; in this one the two are furthest apart
    searches = {
        "tpe": common,
        "random": (*common, "sweep.sampler=random", "sweep.pruner=none"),
    }
    kills = 0
    for name, arguments in searches.items():
        line = [sys.executable, str(ROOT / "train.py"), *arguments, f"sweep.study={name}"]
        folder = home / "outputs" / "sweeps" / name
        for begun in (6, 14) if name == "tpe" else ():  # killed with all its children in the midst of a trial
            process = subprocess.Popen(line, start_new_session=True, cwd=home)
            while len(list(folder.glob("*_s1*"))) < begun and process.poll() is None:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        assert subprocess.run(line, cwd=home).returncode == 0
    assert kills == 2
    tried = {name: rows(home / "outputs" / "sweeps" / name) for name in searches}
    best = {
        name: max(float(row["val/accuracy"]) for row in found if row["state"] == "finished")
        for name, found in tried.items()
    }
    assert [len(found) for found in tried.values()] == [24, 24]
    assert sum(row["state"] == "pruned" for row in tried["tpe"]) >= 6
    assert best["tpe"] >= best["random"]
