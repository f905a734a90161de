"""Many runs: all are checked before the first starts, each prints a line when it ends, then they are compared."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from epochal.config.compose import own_folders
from epochal.core.errors import ConfigError, EpochalError
from epochal.core.format import verbatim
from epochal.core.multirun import family
from epochal.core.program import command_line, typed
from epochal.experiments.launchers import elsewhere, launcher, lost_runs
from epochal.experiments.outcome import Outcome, ended, split


def run(
    config: DictConfig, jobs: Sequence[Sequence[str]], configs: Sequence[DictConfig], launch: Callable[[], Any]
) -> Any:
    """Runs a grid and prints how it went.

    Args:
        config: Of the grid, the `hydra` node included.
        jobs: The choices of each run.
        configs: What they make.
        launch: Runs them all, in this process or others, and gives Hydra's returns.

    Raises:
        ConfigError: If one of the runs is impossible; none has started then.
        EpochalError: If some failed, after all others have ended.
    """
    if not jobs:
        raise ConfigError("There is nothing to run: a range or a glob is empty.")
    console = Console()
    varying = [name for name in dict.fromkeys(split(o)[0] for job in jobs for o in job) if _varies(name, jobs)]
    names = [" ".join(o for o in job if split(o)[0] in varying) for job in jobs]
    check(configs, names, jobs)
    if len(jobs) > 1 or elsewhere(config):
        how = f"{at_once} at once" if (at_once := jobs_at_once(config)) > 1 else "one after the other"
        count = f"{len(jobs)} runs" if len(jobs) > 1 else "1 run"
        console.print(f"{count}, {f'handed to {launcher(config)}' if elsewhere(config) else how}.")
        console.print(verbatim((f"To watch them: {watch(config)}", "dim")), soft_wrap=True)
        with family(config, varying), lost_runs(config):
            returns = launch()
    else:
        returns = launch()
    outcomes = [r.return_value for r in returns]
    ended[:] = outcomes
    finish(config, outcomes, names, console)
    return returns


def tuned(written: Any, jobs: Sequence[Sequence[str]], trials: Sequence[str | None]) -> list[list[str]]:
    """The runs that decide, each with the best values of its own trials unless it sets these itself.

    Args:
        written: `hydra.sweeper.tune`.
        jobs: The overrides of each run.
        trials: The folders of all earlier runs, the trials among them; None for a run that has none.

    Raises:
        EpochalError: If all trials of a run ended without a value.
    """
    from epochal.compare.scan import read
    from epochal.compare.tuning import Tuning

    tuning = Tuning.of(written)
    assert tuning is not None
    records, _ = read([folder for folder in trials if folder])
    chosen = tuning.chosen({tuning.point(job) for job in jobs}, records)
    found = []
    for job in jobs:
        point = tuning.point(job)
        if point not in chosen and not tuning.is_set(job):
            raise EpochalError(f"No trial of {' '.join(point)} has a {tuning.metric}; mend that and run it again.")
        found.append([*job, *chosen.get(point, ())])
    return found


def check(configs: Sequence[DictConfig], names: Sequence[str], jobs: Sequence[Sequence[str]]) -> None:
    """Raises ConfigError with everything that is wrong with any of the configs; loads each data set once."""
    from epochal.compare.claims import load_claim
    from epochal.config.schema import check_values
    from epochal.training.preflight import check as check_run

    if configs[0].get("claim") is not None:
        load_claim(configs[0].experiment, configs[0].budget)
    resume = next((config.resume for config in configs if config.resume not in (None, "auto")), None)
    if resume is not None and len(configs) > 1:
        raise ConfigError(f"resume={resume} goes on with one run; resume=auto with every run of a grid.")
    problems: dict[str, list[str]] = {}
    seen: dict[str, Any] = {}
    for config, name, job in zip(configs, names, jobs):
        try:
            check_values(config, list(job))
            check_run(config, seen)
        except ConfigError as error:
            problems.setdefault(str(error), []).append(name)
    if not problems:
        return
    if len(configs) == 1:
        raise ConfigError(next(iter(problems)))
    lines = [f"{error}  ({_few(where, len(configs))})" for error, where in problems.items()]
    raise ConfigError("\n".join([*lines, "No run was started."]))


def _few(names: list[str], count: int) -> str:
    if len(names) == count:
        return f"all {count} runs"
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def finish(config: DictConfig, outcomes: Sequence[Outcome], names: Sequence[str], console: Console) -> None:
    """Prints the comparison of the runs, then names those that failed.

    Raises:
        EpochalError: If there are any of these.
    """
    from epochal.compare import command
    from epochal.compare.tuning import Tuning

    tuning = Tuning.of(OmegaConf.select(config, "hydra.sweeper.tune"))
    failures = [
        (name, outcome)
        for name, outcome in zip(names, outcomes)
        if outcome["status"] == "failed"
        and not (tuning is not None and outcome["diverged"] and f"seed={tuning.seed}" in outcome["overrides"])
    ]  # that a setting of a space diverges is a result
    folders = [Path(outcome["folder"]) for outcome in outcomes if outcome["folder"]]
    try:
        if config.get("claim") is not None and folders:
            command.compare_experiment(config.experiment, config.budget, Path(config.output_dir), console)
        elif len(folders) > 1:
            command.compare_runs(folders, console)
    finally:
        if failures:
            listed = [f"    {name}: {outcome['error']}" for name, outcome in failures]
            count = f"{len(failures)} of {len(outcomes)} runs failed:"
            text = "\n".join([count, *listed]) if len(outcomes) > 1 else str(failures[0][1]["error"])
            ending = EpochalError(text)
            ending.exit_status = failures[0][1]["exit_status"] or 1
            raise ending


def _varies(name: str, jobs: Sequence[Sequence[str]]) -> bool:
    return len({value for job in jobs for key, value in map(split, job) if key == name}) > 1


def jobs_at_once(config: DictConfig) -> int:
    """How many runs the launcher starts at once; 1 if it has no such option."""
    from joblib import effective_n_jobs

    count = OmegaConf.select(config, "hydra.launcher.n_jobs")
    return effective_n_jobs(count) if count is not None else 1


def watch(config: DictConfig) -> str:
    """The command that shows these runs live."""
    where = "" if config.output_dir == "outputs" else " " + typed("output_dir", config.output_dir)
    if config.get("claim") is not None:
        budget = f" budget={config.budget}" if config.budget is not None else ""
        own = "".join(f" --config-dir {shlex.quote(f.removeprefix('file://'))}" for f in own_folders())
        return command_line("compare", f"experiment={config.experiment}{budget}{where}{own} --live")
    return command_line("compare", f"{shlex.quote(str(Path(config.output_dir) / 'runs'))} --live")
