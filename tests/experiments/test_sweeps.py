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
from epochal.experiments.sweeps.space import Parameter, read_space
from epochal.experiments.sweeps.study import Asked, Study, repair
from epochal.tasks.classification import Classification
from helpers.training import composed, in_new_process

LR = Parameter("optimizer.lr", low=1e-4, high=1e-1, log=True)
SEARCH = ("sweep=cnn", "logger=none", "trainer=cpu", "duration=2epochs", "model.filters=[4]", "model.hidden=16")


def settings(**changes: Any) -> Settings:
    plain = dict(study="s", n_trials=20, n_jobs=None, sampler="tpe", objectives=(), pruner="none", startup=5, warmup=10)
    return Settings(**(plain | {"seed": 1} | changes))  # type: ignore[arg-type]


def study(folder: Path, space: Sequence[Parameter] = (LR,), config: Any = None, **changes: Any) -> Study:
    objectives = changes.pop("objectives", (Objective("minimize", "val/loss"),))
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


def test_a_diverged_trial_fails_and_the_search_goes_on(command: Any, home: Path) -> None:
    arguments = ("optimizer.lr=choice(1e-3,1e30)", "optimizer=sgd", "sweep.sampler=random", "sweep.n_trials=5")
    outcome = command("train", *SEARCH, *arguments)
    states = [row["state"] for row in rows(home / "outputs" / "sweeps" / "cnn_digits")]
    assert {"finished", "failed"} == set(states)
    assert outcome.status == 0, outcome.error
    assert "The loss is" in outcome.out or "no longer finite" in outcome.out


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
