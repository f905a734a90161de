"""The study of a search: a journal file that survives killed processes and that several processes may share."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from epochal.config.compose import flat
from epochal.core.errors import ConfigError
from epochal.core.files import relative
from epochal.experiments.sweeps import JOURNAL
from epochal.experiments.sweeps.settings import Objective, Settings
from epochal.experiments.sweeps.space import Parameter, Setting, Space, Value, setting_text

DIVERGED = "diverged"  # user attribute of a trial: why its loss, weights or objective were not finite
ATTEMPTS = 8  # of the sampler to find a setting that was not tried, before one is drawn from those that are left
COUNTED = 100_000  # settings of a space that are counted one by one
IDENTITY = "epochal"  # user attribute of the study: its space, objectives and config

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*already reported")


@dataclass
class Asked:
    """A trial that this process runs; its lock is held until it ends or the process dies."""

    trial: Trial
    values: Setting
    again: bool  # whether another process began it and died
    lock: FileLock

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """The trials of all processes, and the choice of the next one.

    Each trial is sampled with a seed made from (seed, its number), so that a resumed study tries the same values as an
    uninterrupted one. No setting is tried twice, by whichever process, and a finite space ends the search when all of it
    was tried. A trial that failed taught nothing: for a study opened later it neither counts nor was its setting tried.

    Args:
        folder: Holds the journal; created if needed.
        space: The searched keys.
        objectives: What is maximized or minimized.
        settings: Sampler, pruner and number of trials.
        config: What is the same in every trial; together with space and objectives it identifies the search.

    Raises:
        ConfigError: If the folder holds the study of another search, cannot be written, or cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        objectives: Sequence[Objective],
        settings: Settings,
        config: Mapping[str, Any],
    ) -> None:
        self.folder, self.space, self.objectives, self.settings = folder, space, objectives, settings
        self._locks = folder / ".locks"
        identity = {
            "searches": [str(parameter) for parameter in sorted(space.parameters, key=lambda p: p.name)],
            "objectives": [f"{objective.direction} {objective.name}" for objective in objectives],
            "config": flat(config),
        }
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            self._next = FileLock(self._locks / "next")
            with self._next:  # one process at a time decides what comes next
                self.optuna = _open(folder, [objective.direction for objective in objectives])
                directions = [direction.name.lower() for direction in self.optuna.directions]
                new = IDENTITY not in self.optuna.user_attrs and not self.optuna.trials
                if new and directions == [objective.direction for objective in objectives]:
                    self.optuna.set_user_attr(IDENTITY, identity)
        except OSError as error:
            raise ConfigError(
                f"The sweep's folder {folder} cannot be written ({error.strerror}); choose another with output_dir=<folder>."
            ) from error
        check_same(folder, self.optuna.user_attrs.get(IDENTITY), identity)
        self._first = len(self.trials())  # of the trials that begin after this

    @property
    def counted(self) -> list[FrozenTrial]:
        """The trials that `n_trials` counts."""
        return [t for t in self.trials() if t.state != TrialState.FAIL or t.number >= self._first]

    @property
    def exhausted(self) -> bool:
        """Whether each setting of a finite space was tried, or is being tried."""
        if self.space.size > min(COUNTED, len(self.counted)):
            return False
        tried = self._tried()
        return all(setting_text(setting) in tried for setting in self.space.settings())

    def _tried(self) -> set[str]:
        return {setting_text(trial.params) for trial in self.counted}

    def ask(self) -> Asked | None:
        """The next trial: one that a dead process left, else a new one; None if `n_trials` or all settings were tried."""
        with self._next:
            for left in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if (lock := self._hold(left.number)) is None:
                    continue
                if self.trials()[left.number].state == TrialState.RUNNING:
                    return self._asked(left.number, left._trial_id, lock)
                lock.release()  # it has just ended
            if len(self.counted) >= self.settings.n_trials or self.exhausted:
                return None
            number = len(self.trials())
            lock = self._hold(number)
            assert lock is not None  # this process alone is in here, and the trial is new
            return self._asked(number, None, lock)

    def _asked(self, number: int, trial_id: int | None, lock: FileLock) -> Asked:
        """The trial with its values, a new one without an id; those that a process drew before it died are kept."""
        tried = {setting_text(trial.params) for trial in self.counted if trial.number != number}
        self.optuna.sampler = Untried(self.space, self.settings, number, tried)
        trial = self.optuna.ask() if trial_id is None else Trial(self.optuna, trial_id)
        values = self.space.draw(lambda parameter: parameter.suggest(trial))
        return Asked(trial, values, trial_id is not None, lock)

    def _hold(self, number: int) -> FileLock | None:
        """The lock of a trial; None if another living process holds it."""
        lock = FileLock(self._locks / str(number))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def tell(
        self, asked: Asked, state: TrialState, values: Sequence[float] | None = None, **attributes: str | None
    ) -> FrozenTrial:
        """Ends a trial and releases it.

        Args:
            asked: The trial.
            state: How it ended.
            values: Of the objectives, if it finished.
            attributes: Stored with it, unless None. One that diverged finished with the worst value that there is.
        """
        if attributes.get(DIVERGED) is not None:  # the sampler learns from it; it would pass over a failed one
            state, values = TrialState.COMPLETE, [objective.worst for objective in self.objectives]
        for name, attribute in attributes.items():
            if attribute is not None:
                asked.trial.set_user_attr(name, attribute)
        told = self.optuna.tell(asked.trial, values, state=state)
        asked.lock.release()
        (self._locks / str(asked.number)).unlink(missing_ok=True)
        return told

    def discard(self) -> None:
        """Deletes the journal, so that the command can be corrected and typed again."""
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials of all processes, in the order they began; those of some states if given."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def finished(self) -> list[FrozenTrial]:
        """The trials that finished with finite values."""
        return [trial for trial in self.trials(TrialState.COMPLETE) if not has_diverged(trial)]

    def diverged(self) -> list[FrozenTrial]:
        """The trials whose loss, weights or objectives were not finite."""
        return [trial for trial in self.trials(TrialState.COMPLETE) if has_diverged(trial)]

    def best(self, count: int) -> list[FrozenTrial]:
        """The best finished trials, best first; with several objectives the whole Pareto front, sorted by the first."""
        many = len(self.objectives) > 1
        front = {trial.number for trial in self.optuna.best_trials} if many else set()
        trials = [trial for trial in self.finished() if not many or trial.number in front]
        sign = 1 if self.objectives[0].direction == "minimize" else -1
        found = sorted(trials, key=lambda trial: sign * trial.values[0])
        return found if many else found[:count]


def has_diverged(trial: FrozenTrial) -> bool:
    """Whether a trial was told as the worst that there is."""
    return trial.state == TrialState.COMPLETE and not all(map(math.isfinite, trial.values))


def check_same(folder: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    """Checks that a folder's study is of this search.

    Args:
        folder: Of the study.
        found: The identity stored in it.
        wanted: That of this search.

    Raises:
        ConfigError: If it is another search's.
    """
    if found == wanted:
        return
    if not isinstance(found, dict):
        why = "it is none of Epochal's"
    elif found["searches"] != wanted["searches"]:
        why = f"it searched {' '.join(found['searches'])}"
    elif found["objectives"] != wanted["objectives"]:
        why = f"it was to {' and '.join(found['objectives'])}"
    else:
        old, new = found["config"], wanted["config"]
        key = next(key for key in (*old, *new) if old.get(key) != new.get(key))
        why = f"it had {key}={json.dumps(old[key])}" if key in old else f"it had no {key}"
    raise ConfigError(
        f"{relative(folder)} is the study of another search ({why}); give this one a name of its own with sweep.study=<name>."
    )


def _open(folder: Path, directions: Sequence[str]) -> optuna.Study:
    """The study of a folder, created if there is none.

    Raises:
        ConfigError: If its journal cannot be read.
    """
    journal = folder / JOURNAL
    lock = KernelLock(journal.with_name(".locks") / "journal")
    try:
        with lock:
            repair(journal)
        return optuna.create_study(
            study_name=folder.name,
            storage=JournalStorage(JournalFileBackend(str(journal), lock)),  # type: ignore[arg-type]  # it has the methods that are called
            directions=[StudyDirection[direction.upper()] for direction in directions],
            load_if_exists=True,
        )
    except OSError:
        raise
    except Exception as error:  # Optuna raises many types for a file that is no journal
        raise ConfigError(
            f"{relative(journal)} cannot be read as a study; remove it, or give another name with sweep.study=<name>."
        ) from error


def open_study(folder: Path, settings: Settings) -> optuna.Study:
    """The study of a running search, opened by the process of one of its trials."""
    lock = KernelLock(folder / ".locks" / "journal")
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock))  # type: ignore[arg-type]  # it has the methods that are called
    sampler = optuna.samplers.RandomSampler()  # never used: the trial has its values
    study = optuna.load_study(study_name=folder.name, storage=storage, sampler=sampler)
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    study.pruner = pruner(settings, diverged=sum(map(has_diverged, ended)))
    return study


class KernelLock:
    """A lock of the journal that the kernel releases when its process dies; Optuna's own stays for half a minute."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> KernelLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def repair(journal: Path) -> None:
    """Removes an unfinished last line, left by a killed process; Optuna rejects the file once another line follows it.

    Raises:
        ValueError: If the file is no journal.
    """
    if not journal.exists() or not journal.stat().st_size:
        return
    with journal.open("r+b") as stream:
        lines = stream.read().splitlines(keepends=True)
        if not lines[-1].startswith(b"{"):
            raise ValueError("not a journal")
        if not lines[-1].endswith(b"\n"):
            stream.truncate(sum(map(len, lines[:-1])))


class Untried(optuna.samplers.BaseSampler):
    """Samples a trial as the sampler of the settings does, but no setting that was tried.

    Args:
        space: The searched keys.
        settings: Of the search.
        number: Of the trial; seeds depend on it and on the study's seed alone.
        tried: Settings as text.
    """

    def __init__(self, space: Space, settings: Settings, number: int, tried: Collection[str]) -> None:
        self.space, self.settings, self.number, self.tried = space, settings, number, tried

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {parameter.name: parameter.distribution for parameter in self.space.parameters}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A setting: the sampler's first one that was not tried; one of those that are left if it finds none."""
        for attempt in range(ATTEMPTS):
            setting = self._drawn(study, trial, attempt)
            if setting_text(setting) not in self.tried:
                return setting
        if self.space.size <= COUNTED:
            left = [
                s
                for s in self.space.settings()
                if setting_text(s) not in self.tried and trial.params.items() <= s.items()
            ]
            if left:
                return left[int(np.random.default_rng((self.settings.seed, self.number)).integers(len(left)))]
        return setting

    def _drawn(self, study: optuna.Study, trial: FrozenTrial, attempt: int) -> Setting:
        """A setting of the sampler itself."""
        chosen = sampler(self.settings, self.number, attempt, conditional=len(self.space.branches) > 1)
        relative = chosen.sample_relative(study, trial, chosen.infer_relative_search_space(study, trial))

        def value(parameter: Parameter) -> Value:
            name, distribution = parameter.name, parameter.distribution
            if name in trial.params:
                return trial.params[name]
            if distribution.single():
                return next(parameter.values())
            return relative[name] if name in relative else chosen.sample_independent(study, trial, name, distribution)

        return self.space.draw(value)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        chosen = sampler(self.settings, self.number)  # of a trial whose process died while it drew
        return chosen.sample_independent(study, trial, param_name, param_distribution)


def sampler(
    settings: Settings, number: int, attempt: int = 0, *, conditional: bool = False
) -> optuna.samplers.BaseSampler:
    """The sampler of the trial with this number; its seed depends on that number and the study's seed alone.

    Args:
        settings: Of the search.
        number: Of the trial.
        attempt: At a setting that was not tried.
        conditional: Whether trials have different keys.
    """
    entropy = (settings.seed, number, *([attempt] if attempt else []))
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=settings.startup, multivariate=True, group=conditional, constant_liar=True
    )


def pruner(settings: Settings, diverged: int = 0) -> optuna.pruners.BasePruner:
    """The pruner of the settings; its steps are percent of the training.

    Args:
        settings: Of the search.
        diverged: Trials that did; they are no measure for others.
    """
    if settings.pruner == "median":
        startup = settings.startup + diverged  # Optuna counts these too
        return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=settings.warmup)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, settings.warmup), max_resource=100)
    return optuna.pruners.NopPruner()


def mark_diverged(study: optuna.Study, number: int, why: str) -> None:
    """Notes in a running trial that it diverged, for the process that tells its end."""
    found = study.get_trials(deepcopy=False)[number]
    if not found.state.is_finished():  # else its run was resumed on its own
        Trial(study, found._trial_id).set_user_attr(DIVERGED, why)


def report(study: optuna.Study, number: int, percent: int, value: float) -> bool:
    """Adds a validation to a trial, and returns whether to prune it.

    Args:
        study: With the pruner.
        number: Of the trial.
        percent: Of the training that is done.
        value: Of the objective; not finite ones are not reported.
    """
    found = study.get_trials(deepcopy=False)[number]
    if found.state.is_finished():  # its run was resumed on its own
        return False
    trial = Trial(study, found._trial_id)
    if math.isfinite(value):
        trial.report(value, percent)  # Optuna keeps the first value at a step, as after a resume
    return trial.should_prune()
