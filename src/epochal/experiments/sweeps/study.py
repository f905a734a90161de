"""The study behind a search: a journal file that survives kills and that several processes may work on."""

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

IDENTITY = "epochal"  # the attribute of a study that says which search it is

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
warnings.filterwarnings("ignore", message=".*already reported")


@dataclass
class Asked:
    """A trial that this process is to run, and holds as long as it lives."""

    trial: Trial
    values: dict[str, Value]
    again: bool  # another process began it and died
    lock: FileLock

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """The trials of all processes, and what to try next.

    Each trial is drawn by chance of (seed, its number), so that a study killed and resumed tries what it would have
    tried, and no process repeats another's.

    Args:
        folder: Holds the journal; made if need be.
        space: What is searched.
        objectives: What for.
        settings: How.
        config: What is the same in every trial: with space and objectives, what makes it this search and no other.

    Raises:
        ConfigError: If the folder holds the study of another search, or one that cannot be read.
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
        """The next trial: one that a dead process left, else a new one; None when there are enough."""
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
            assert lock is not None  # no other process is in here, and nobody held a trial that there was not
            return self._asked(trial, again=False, lock=lock)

    def _asked(self, trial: Trial, *, again: bool, lock: FileLock) -> Asked:
        return Asked(trial, {p.key: p.suggest(trial) for p in self.space}, again, lock)

    def _hold(self, number: int) -> FileLock | None:
        """The lock of a trial, unless another living process has it."""
        lock = FileLock(self._locks / str(number))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        return lock

    def tell(
        self, asked: Asked, state: TrialState, values: Sequence[float] | None = None, **facts: str | None
    ) -> FrozenTrial:
        """How a trial ended, and what else to remember of it; lets go of it."""
        for name, fact in facts.items():
            if fact is not None:
                asked.trial.set_user_attr(name, fact)
        told = self.optuna.tell(asked.trial, values, state=state)
        asked.lock.release()
        (self._locks / str(asked.number)).unlink(missing_ok=True)
        return told

    def discard(self) -> None:
        """Takes away a study whose only trials failed for the same wrong word, so that it can be mended and typed again."""
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Of all processes, in the order they began."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def best(self, count: int) -> list[FrozenTrial]:
        """The best finished trials, the best first; with several objectives the Pareto front, by the first of them."""
        many = len(self.objectives) > 1
        trials = self.optuna.best_trials if many else self.trials(TrialState.COMPLETE)
        sign = 1 if self.objectives[0].direction == "minimize" else -1
        found = sorted(trials, key=lambda trial: sign * trial.values[0])
        return found if many else found[:count]


def check_same(folder: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError where the study in a folder is another search than the one that is wanted."""
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
    """The study of a folder, made if there is none.

    Raises:
        ConfigError: If its journal cannot be read.
    """
    journal = folder / JOURNAL
    lock = KernelLock(journal.with_name(".locks") / "journal")
    try:
        with lock:
            mend(journal)
        return optuna.create_study(
            study_name=folder.name,
            storage=JournalStorage(JournalFileBackend(str(journal), lock)),  # type: ignore[arg-type]  # duck
            directions=[StudyDirection[direction.upper()] for direction in directions],
            load_if_exists=True,
        )
    except OSError:
        raise
    except Exception as error:  # whatever Optuna makes of other bytes, the file is at fault
        raise ConfigError(
            f"{relative(journal)} cannot be read as a study; remove it, or give another name with sweep.study=<name>."
        ) from error


def open_study(folder: Path, settings: Settings) -> optuna.Study:
    """The study of a folder in which a search goes on, for one of its trials."""
    lock = KernelLock(folder / ".locks" / "journal")
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL), lock))  # type: ignore[arg-type]  # duck
    drawn = optuna.samplers.RandomSampler()  # draws nothing: the trial has its values
    return optuna.load_study(study_name=folder.name, storage=storage, sampler=drawn, pruner=pruner(settings))


class KernelLock:
    """Of the journal: unlike Optuna's own it is free at once when its process is killed, not half a minute later."""

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


def mend(journal: Path) -> None:
    """Cuts off a last line that a kill left half written; Optuna would refuse the whole file once another follows it.

    Raises:
        ValueError: If the last line is no journal's.
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
    """Draws the trial of this number; chance comes from it and the seed alone."""
    seed = int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0])
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=settings.startup, multivariate=True, constant_liar=True
    )


def pruner(settings: Settings) -> optuna.pruners.BasePruner:
    """Judges a trial by its validations; a step is a percent of the training."""
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, settings.warmup), max_resource=100)
    return optuna.pruners.NopPruner()


def report(study: optuna.Study, number: int, percent: int, value: float) -> bool:
    """Adds a validation to a trial, and says whether the trial is hopeless."""
    found = study.get_trials(deepcopy=False)[number]
    if found.state.is_finished():  # a person goes on with the run by itself
        return False
    trial = Trial(study, found._trial_id)
    if math.isfinite(value):
        trial.report(value, percent)  # a resumed run's first is there already, and stays
    return trial.should_prune()
