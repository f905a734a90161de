"""Runs a search: asks the study for trials, launches their runs, and tells the study the results."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState
from rich.console import Console

from epochal.config.finalize import finalize
from epochal.config.instantiate import target_class
from epochal.config.schema import check_values
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.files import relative
from epochal.core.format import verbatim
from epochal.core.multirun import family
from epochal.core.program import command_line
from epochal.experiments.grid import jobs_at_once
from epochal.experiments.launchers import lost_runs
from epochal.experiments.outcome import Outcome
from epochal.experiments.sweeps.report import report
from epochal.experiments.sweeps.settings import Objective, Settings
from epochal.experiments.sweeps.space import Parameter, read_space
from epochal.experiments.sweeps.study import Asked, Study
from epochal.training.preflight import check
from epochal.training.run_folder import comparable, sweep_folder

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
        EpochalError: If no trial finished.
    """
    console = Console()
    settings = Settings.read(config)
    space, fixed = read_space(overrides, config)
    folder = sweep_folder(config)
    assert folder is not None  # a search has one
    fixed.append(f"sweep.study={folder.name}")  # the name may depend on a searched key
    objectives = check_runs(space, fixed, settings, compose)
    shared = comparable(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
    study = Study(folder, space, objectives, settings, shared)
    at_once = settings.n_jobs or jobs_at_once(config)
    ended = len(study.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    console.print(verbatim(f"{settings.n_trials} trials in {relative(folder)}, {ended} of them ended before."))
    if ended >= settings.n_trials:
        console.print(f"There is nothing left to try; more: sweep.n_trials={2 * ended}.", highlight=False)
    else:
        line = command_line("compare", f"{shlex.quote(relative(folder))} --live")
        console.print(verbatim((f"To watch them: {line}", "dim")), soft_wrap=True)

    returns: list[Any] = []
    with family(config, [parameter.name for parameter in space]), lost_runs(config):
        while batch := [asked for _ in range(at_once) if (asked := study.ask()) is not None]:
            done = launch([job(asked, space, fixed) for asked in batch], batch[0].number)
            returns += done
            outcomes = [result.return_value for result in done]
            for asked, outcome in zip(batch, outcomes, strict=True):
                tell(study, asked, outcome)
            stop_if_nothing_works(study, outcomes)
    report(study, console)
    if not study.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
        raise EpochalError("Not one trial came to an end.")
    return returns


def check_runs(
    space: Sequence[Parameter], fixed: list[str], settings: Settings, compose: Callable[[Sequence[str]], DictConfig]
) -> tuple[Objective, ...]:
    """Checks the configs at the ends of each range and at each choice, one key at a time, and returns the objectives.

    Raises:
        ConfigError: If one of them is invalid.
    """
    first = {parameter: parameter.corners()[0] for parameter in space}
    corners = [first, *({**first, p: value} for p in space for value in p.corners()[1:])]
    seen: dict[str, Any] = {}
    objectives = None
    for corner in corners:
        chosen = [parameter.override(value) for parameter, value in corner.items()]
        config = compose([*fixed, *chosen])
        try:
            check_values(config, [*fixed, *chosen])
            check(config, seen)
        except ConfigError as error:
            raise ConfigError(f"{error}  ({' '.join(chosen)})\nNo run was started.") from error
        objectives = objectives or settings.resolved(target_class(finalize(config).task._target_).reports)
    assert objectives is not None  # there is at least one corner
    return objectives


def job(asked: Asked, space: Sequence[Parameter], fixed: Sequence[str]) -> list[str]:
    """The overrides of a trial's run; a run whose process died resumes from its checkpoint."""
    chosen = [parameter.override(asked.values[parameter.key]) for parameter in space]
    resume = ["resume=auto"] if asked.again else []
    return [*fixed, *chosen, f"sweep.trial={asked.number}", *resume]


def tell(study: Study, asked: Asked, outcome: Outcome) -> None:
    """Tells the study how a trial's run ended; stores in `outcome` why a finished run has no valid objective."""
    summary, folder = outcome["summary"], outcome["folder"]
    run = Path(folder).name if folder else None
    state, values = TrialState.FAIL, None
    if "pruned" in (outcome["status"], summary.get("status")):
        state = TrialState.PRUNED
    elif outcome["status"] in ("finished", "already"):
        try:
            found = [objective.value(summary) for objective in study.objectives]
        except KeyError as error:
            outcome["error"], outcome["exit_status"] = f"The run has no {error.args[0]}.", 2
        else:
            if all(value is not None and math.isfinite(value) for value in found):
                state, values = TrialState.COMPLETE, [float(value) for value in found if value is not None]
            else:
                outcome["error"] = "What the search is for is not a finite number."
    study.tell(asked, state, values, run=run, error=outcome["error"])


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
