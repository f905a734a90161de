"""Runs a search: asks the study for trials, launches their runs, and tells the study the results."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from epochal.config.finalize import finalize
from epochal.config.instantiate import target_class
from epochal.config.schema import check_values
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import relative
from epochal.core.format import count_text, verbatim
from epochal.core.multirun import family
from epochal.core.program import command_line
from epochal.experiments.grid import jobs_at_once
from epochal.experiments.launchers import lost_runs
from epochal.experiments.outcome import Outcome
from epochal.experiments.sweeps.report import report
from epochal.experiments.sweeps.settings import Objective, Settings
from epochal.experiments.sweeps.space import Parameter, Setting, Space, Value, read_space, setting_text
from epochal.experiments.sweeps.study import DIVERGED, Asked, Study
from epochal.training.preflight import check
from epochal.training.run_folder import comparable, sweep_folder

PATIENCE = 5  # failed runs in a row that stop a search: a full disk fails them all
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Any]]


def search(
    config: DictConfig, overrides: Iterable[Override], compose: Callable[[Sequence[str]], DictConfig], launch: Launch
) -> Sequence[Any]:
    """Runs trials until the study has `sweep.n_trials` of them, and reports what it found.

    Args:
        config: Of the search, including the `hydra` node.
        overrides: Those of the config, then those of the command line; later ones win.
        compose: Makes the config of a run from its overrides.
        launch: Runs a batch of jobs, given their overrides and the number of the first, and returns Hydra's results.

    Raises:
        ConfigError: Before any run, if the search is invalid or its folder holds another study.
        EpochalError: If no trial finished, or one after the other failed.
    """
    console = Console()
    settings = Settings.read(config)
    parameters, fixed = read_space(overrides, config)
    folder = sweep_folder(named(config, parameters))
    assert folder is not None  # a search has one
    fixed.append(f"sweep.study={folder.name}")  # the name may depend on a searched key
    space = Space.of(parameters, fixed, compose)
    objectives = check_runs(space, settings, compose)
    shared = comparable(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    study = Study(folder, space, objectives, settings, shared)
    at_once = settings.n_jobs or jobs_at_once(config)
    announce(study, console)

    returns: list[Any] = []
    failed = 0  # runs one after the other
    varying = [parameter.name for parameter in parameters if parameter.size > 1]
    again = OmegaConf.merge(config, {"resume": "auto"})  # as a search always resumes
    assert isinstance(again, DictConfig)
    with goes_on(study, console), family(config, varying), lost_runs(again):
        while failed < PATIENCE and (batch := [asked for _ in range(at_once) if (asked := study.ask()) is not None]):
            done = launch([job(asked, space) for asked in batch], batch[0].number)
            returns += done
            outcomes = [result.return_value for result in done]
            for asked, outcome in zip(batch, outcomes, strict=True):
                failed = failed + 1 if tell(study, asked, outcome).state == TrialState.FAIL else 0
            stop_if_nothing_works(study, outcomes)
    report(study, console)
    end(study, failed)
    return returns


@contextmanager
def goes_on(study: Study, console: Console) -> Iterator[None]:
    """Reports what was found before a Ctrl-C or a SIGTERM, and that the same line goes on, without `resume=auto`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, KeyboardInterrupt) and study.finished():
            report(study, console)
        console.print("\nThe same line typed again goes on with this search.", highlight=False)
        stop.begins_anew = True  # type: ignore[union-attr]  # all is said that the command would say of a run
        raise


def named(config: DictConfig, parameters: Sequence[Parameter]) -> DictConfig:
    """The config with the options of searched groups as names, which the study's may contain: `search_mlp-cnn_digits`."""
    config = copy.deepcopy(config)
    for parameter in parameters:
        if (
            isinstance(config.get(parameter.name), DictConfig)
            and parameter.choices
            and "name" in config[parameter.name]
        ):
            options = list(map(str, parameter.choices))
            config[parameter.name].name = (
                "-".join(options) if len(options) <= 4 else f"{len(options)}-{parameter.name}s"
            )
    return config


def announce(study: Study, console: Console) -> None:
    """Prints what is going to be tried, and how to watch it."""
    size, n_trials, folder = study.space.size, study.settings.n_trials, relative(study.folder)
    ended = sum(trial.state != TrialState.RUNNING for trial in study.trials())
    count = f"{n_trials} trials" if size > n_trials else f"{study.space.count_text}, a trial each,"
    console.print(verbatim(f"{count} in {folder}, {ended} of them ended before."), soft_wrap=True)
    again = sum(trial.state == TrialState.FAIL for trial in study.trials())
    begun = bool(study.trials(TrialState.RUNNING))  # by a process that goes on, or one that was killed
    if study.exhausted and not begun:
        console.print("There is nothing left to try: each of them was tried.", highlight=False)
    elif len(study.counted) >= n_trials and not begun:
        console.print(f"There is nothing left to try; more: sweep.n_trials={2 * n_trials}.", highlight=False)
    else:
        if again:
            text = f"{count_text(again, 'trial')} failed before and did not count; others take their place."
            console.print(text, highlight=False)
        line = command_line("compare", f"{shlex.quote(folder)} --live")
        console.print(verbatim((f"To watch them: {line}", "dim")), soft_wrap=True)


def end(study: Study, failed: int) -> None:
    """Ends a search that found nothing with an error.

    Raises:
        EpochalError: If the search stopped because run after run failed, or if no trial finished.
    """
    if failed >= PATIENCE:
        reason = study.trials(TrialState.FAIL)[-1].user_attrs.get("error")
        raise EpochalError(
            f"The search stopped after {failed} failed trials in a row, the last one because: {reason}\n"
            "When that is mended, the same line typed again goes on; failed trials do not count then."
        )
    if not study.finished() and not study.trials(TrialState.PRUNED, TrialState.RUNNING):
        if study.diverged():
            raise EpochalError("Every trial diverged; search where the learning rate is smaller.")
        raise EpochalError("Not one trial came to an end.")


def check_runs(
    space: Space, settings: Settings, compose: Callable[[Sequence[str]], DictConfig]
) -> tuple[Objective, ...]:
    """Checks the configs at the ends of each range and at each choice, one key at a time, and returns the objectives.

    Raises:
        ConfigError: If one of them is invalid.
    """
    seen: dict[str, Any] = {}
    objectives = None
    for setting in corners(space):
        overrides = space.overrides(setting)
        try:
            config = compose(overrides)
            check_values(config, overrides)
            check(config, seen)
        except ConfigError as error:
            raise ConfigError(f"{error}  ({setting_text(setting)})\nNo run was started.") from error
        found = settings.resolved(target_class(finalize(config).task._target_).reports)
        if objectives is not None and found != objectives:
            names = " and ".join(f"{o.direction} {o.name}" for o in (objectives[0], found[0]))
            raise ConfigError(
                f"sweep.objectives=auto would {names}, which do not compare; give one that all trials measure, "
                "e.g. 'sweep.objectives=[minimize val/loss]'."
            )
        objectives = found
    assert objectives is not None  # there is at least one corner
    return objectives


def corners(space: Space) -> Iterator[Setting]:
    """A setting for each branch, then for each other choice and end of a range: once, or once for each option of its group."""
    first = [
        dict(branch.options)
        | {p.name: p.corners()[0] for p in space.parameters if branch.has(p) and p.name not in branch.options}
        for branch in space.branches
    ]
    yield from first
    for parameter in space.parameters:
        group = parameter.name.partition(".")[0]
        owners: set[Value | None] = set()
        for setting in first:
            owner = setting.get(group)
            if parameter.name not in setting or parameter.name in space.branches[0].options or owner in owners:
                continue
            owners.add(owner)
            yield from ({**setting, parameter.name: value} for value in parameter.corners()[1:])


def job(asked: Asked, space: Space) -> list[str]:
    """The overrides of a trial's run; a run whose process died resumes from its checkpoint."""
    resume = ["resume=auto"] if asked.again else []
    return [*space.overrides(asked.values), f"sweep.trial={asked.number}", *resume]


def tell(study: Study, asked: Asked, outcome: Outcome) -> FrozenTrial:
    """Tells the study how a trial's run ended; stores in `outcome` why a finished run has no valid objective."""
    summary, folder = outcome["summary"], outcome["folder"]
    run = Path(folder).name if folder else None
    state, values = TrialState.FAIL, None
    diverged = study.trials()[asked.number].user_attrs.get(DIVERGED)  # noted by the callback of the run
    if "pruned" in (outcome["status"], summary.get("status")):
        state, diverged = TrialState.PRUNED, None
    elif outcome["status"] in ("finished", "already"):
        diverged = None
        try:
            found = [objective.value(summary) for objective in study.objectives]
        except KeyError as error:
            outcome["error"], outcome["exit_status"] = f"The run has no {error.args[0]}.", 2
        else:
            if all(value is not None and math.isfinite(value) for value in found):
                state, values = TrialState.COMPLETE, [float(value) for value in found if value is not None]
            else:
                diverged = outcome["error"] = "What the search is for is not a finite number."
    return study.tell(asked, state, values, run=run, error=outcome["error"], diverged=diverged)


def stop_if_nothing_works(study: Study, outcomes: Sequence[Outcome]) -> None:
    """Stops a search if all trials so far failed with a config error, such as a metric that does not exist.

    Raises:
        ConfigError: That of the first one.
    """
    if any(outcome["exit_status"] != ConfigError.exit_status for outcome in outcomes):
        return
    if not all(trial.state == TrialState.FAIL for trial in study.trials()):
        return
    study.discard()
    raise ConfigError(str(outcomes[0]["error"]))
