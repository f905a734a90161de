"""The study of a search: a journal file that survives killed processes and that several processes may share."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from epochal.config.compose import flat
from epochal.core.errors import ConfigError
from epochal.core.files import relative
from epochal.experiments.sweeps import JOURNAL
from epochal.experiments.sweeps.settings import Objective, Settings
from epochal.experiments.sweeps.space import Parameter, Value

IDENTITY = "epochal"  # user attribute of the study: its space, objectives and config

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*already reported")


@dataclass
class Asked:
    """A trial that this process runs; its lock is held until it ends or the process dies."""

    trial: Trial
    values: dict[str, Value]
    again: bool  # whether another process began it and died
    lock: FileLock

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """The trials of all processes, and the choice of the next one.

    Each trial is sampled with a seed made from (seed, its number), so that a resumed study tries the same values as an
    uninterrupted one, and no process repeats a trial of another.

    Args:
        folder: Holds the journal; created if needed.
        space: The searched parameters.
        objectives: What is maximized or minimized.
        settings: Sampler, pruner and number of trials.
        config: What is the same in every trial; together with space and objectives it identifies the search.

    Raises:
        ConfigError: If the folder holds the study of another search, cannot be written, or cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        space: Sequence[Parameter],
        objectives: Sequence[Objective],
        settings: Settings,
        config: Mapping[str, Any],
    ) -> None:
        self.folder, self.space, self.objectives, self.settings = folder, space, objectives, settings
        self._locks = folder / ".locks"
        identity = {
            "searches": [str(parameter) for parameter in sorted(space, key=lambda p: p.name)],
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

    def ask(self) -> Asked | None:
        """The next trial: one that a dead process left, else a new one; None if there are `n_trials`."""
        with self._next:
            for left in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if (lock := self._hold(left.number)) is None:
                    continue
                if self.trials()[left.number].state == TrialState.RUNNING:
                    return self._asked(Trial(self.optuna, left._trial_id), again=True, lock=lock)
                lock.release()  # it has just ended
            number = len(self.trials())
            if number >= self.settings.n_trials:
                return None
            self.optuna.sampler = sampler(self.settings, number)
            trial = self.optuna.ask()
            lock = self._hold(trial.number)
            assert lock is not None  # this process alone is in here, and the trial is new
            return self._asked(trial, again=False, lock=lock)

    def _asked(self, trial: Trial, *, again: bool, lock: FileLock) -> Asked:
        return Asked(trial, {p.key: p.suggest(trial) for p in self.space}, again, lock)

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
            attributes: Stored with it, unless None.
        """
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

    def best(self, count: int) -> list[FrozenTrial]:
        """The best finished trials, best first; with several objectives the whole Pareto front, sorted by the first."""
        many = len(self.objectives) > 1
        trials = self.optuna.best_trials if many else self.trials(TrialState.COMPLETE)
        sign = 1 if self.objectives[0].direction == "minimize" else -1
        found = sorted(trials, key=lambda trial: sign * trial.values[0])
        return found if many else found[:count]


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
    return optuna.load_study(study_name=folder.name, storage=storage, sampler=sampler, pruner=pruner(settings))


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


def sampler(settings: Settings, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of the trial with this number; its seed depends on that number and the study's seed alone."""
    seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=settings.startup, multivariate=True, constant_liar=True
    )


def pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """The pruner of the settings; its steps are percent of the training."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, settings.warmup), max_resource=100)
    return optuna.pruners.NopPruner()


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
