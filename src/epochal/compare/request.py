"""What to compare, and the comparison made from it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from epochal.compare.archive import read_archive
from epochal.compare.claims import load_claim, named_keys
from epochal.compare.comparison import Comparison, Plot, claimed_plot, footnote, is_numeric, plot, reference
from epochal.compare.design import Design
from epochal.compare.groups import ALIKE, kinds, trial, varying
from epochal.compare.labels import value_text
from epochal.compare.records import TRAINING_FLOPS, Record, Skipped
from epochal.compare.scan import read
from epochal.compare.statistics import Verdict, judge
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import AXES, expanded, slug
from epochal.core.format import count_text, printable
from epochal.core.metrics import COSTS
from epochal.core.program import command_line

DATA = "dataset.name"
USUAL = ("val/loss", "test/loss", "train/loss")  # rank runs whose best checkpoints were chosen by different metrics
SMOKE = "The budget smoke shows that everything works; it is too small to decide anything, and decides nothing."

MAX_DIFFERENCES = 3  # from an experiment's design that are named


@dataclass(frozen=True)
class Request:
    """What to compare. `compare` reads the runs anew each time it is called.

    Attributes:
        paths: Run folders, folders of them, or patterns; empty for the experiment's folder, or `runs`, in `output_dir`.
        x, y, group: Of the plot; None chooses what fits the runs.
        experiment: Whose claim is tested; None for the one that all runs belong to, if any.
        budget: The size of its runs; None for the experiment's default.
        output_dir: Where runs are.
        to: Folder of the report; None for one in `output_dir`/comparisons, named after the request.
    """

    paths: tuple[str, ...] = ()
    x: str | None = None
    y: str | None = None
    group: tuple[str, ...] | None = None
    experiment: str | None = None
    budget: str | None = None
    output_dir: str = "outputs"
    to: str | None = None

    def compare(self, known: Iterable[Record] = ()) -> Comparison:
        """Reads the runs; records of an earlier call are reused if their files have not changed.

        Raises:
            ConfigError: If no run is found, or no run has a value by one of the names.
        """
        experiment = self.experiment
        claim, budget = load_claim(experiment, self.budget) if experiment else (None, self.budget)
        records, skipped = self._read(known, budget)
        if experiment is None:
            experiment, claim, budget = self._shared(records) or (None, None, budget)
        runs = _sorted_out(records, experiment, budget, claim)
        records = runs.deciding or records
        keys, y = varying(records, runs.keys), self._y(records, claim)
        plots = self._plots(records, keys, y) if claim is None or self._chooses else _claimed_plots(claim, runs.counted)
        verdict = _verdict(claim, runs.counted, budget)
        drawn = records if self._chooses else runs.counted
        whole = Comparison(
            records=records,
            skipped=skipped,
            drawn=drawn,
            keys=keys,
            named=runs.keys,
            y=y,
            plots=plots,
            title=(claim or {}).get("sentence") or described(records),
            folder=self._folder((experiment, budget) if experiment else None),
            footnote=footnote(drawn, claim, budget, verdict, runs.left_out, runs.tuned),
            experiment=experiment,
            budget=budget,
            trials=runs.trials,
            claim=claim,
            references=[reference(entry) for entry in (claim or {}).get("references") or []],
            verdict=verdict,
        )
        return self._divided(whole)

    def _divided(self, whole: Comparison) -> Comparison:
        """The same with a part for each task and data set, and for trials, if there are several."""
        found, parts = kinds(whole.records), []
        if len(found) == 1 or whole.claim is not None or self._chooses:
            return whole
        told = [*ALIKE, *(["trainer.name"] if any(map(trial, whole.records)) else [])]
        told = [key for key in told if len({record.value(key) for record in whole.records}) > 1]
        for kind in found:
            records, trainer = list(kind.records), trial(kind.records[0])
            where = tuple((key, records[0].value(key)) for key in told)
            keys, y = varying(records), self._y(records, None)
            title = f"{described(records)}, {records[0].value('task.name')}{f', trainer={trainer}' if trainer else ''}"
            plots = [replace(plot, where=where) for plot in self._plots(records, keys, y)]
            parts.append(
                replace(whole, records=records, drawn=records, skipped=[], keys=keys, y=y, plots=plots, title=title)
            )
        return replace(whole, parts=parts, plots=[plot for part in parts for plot in part.plots])

    @property
    def _chooses(self) -> bool:
        """Whether the plot was requested, which replaces those of the claim."""
        return (self.x, self.y, self.group) != (None, None, None)

    def _read(self, known: Iterable[Record], budget: str | None) -> tuple[list[Record], list[Skipped]]:
        """The runs of the paths that belong to the experiment and budget, and the folders that hold none."""
        place = expanded(self.output_dir) / (self.experiment or "runs")
        if not self.paths and not os.path.isdir(place):
            size = f" budget={budget}" if budget else ""
            command = f"experiment={self.experiment}{size}" if self.experiment else ""
            raise ConfigError(
                f"There are no runs in {place} yet; make some with {command_line('train', command)}"
                + ", or give their folders."
            )
        records, skipped = _all_runs(self.paths or (str(place),), known)
        if not records:
            where = " ".join(self.paths) or str(place)
            raise ConfigError(f"There is no run in {where}{_why(skipped)}.")
        wanted = {"experiment": self.experiment, "budget": budget} if self.experiment else {"budget": budget}
        chosen = [
            r for r in records if all(r.value(key) == value for key, value in wanted.items() if value is not None)
        ]
        if not chosen:
            asked = " ".join(f"{key}={value}" for key, value in wanted.items() if value is not None)
            raise ConfigError(
                f"None of {count_text(len(records), 'run')} is of {asked}; there {_present(records, tuple(wanted))}."
            )
        return chosen, skipped

    def _shared(self, records: Sequence[Record]) -> tuple[str, dict[str, Any] | None, str | None] | None:
        """The experiment that all runs belong to, its claim and budget; None if there is none, or it no longer exists."""
        pairs = {(record.value("experiment"), record.value("budget")) for record in records}
        experiment, budget = pairs.pop()
        if pairs or not isinstance(experiment, str):
            return None
        try:
            return experiment, *load_claim(experiment, None if budget is None else str(budget))
        except ConfigError:
            return None

    def _y(self, records: Sequence[Record], claim: Mapping[str, Any] | None) -> str:
        """The value that runs are ranked by."""
        if self.y is not None:
            return known_name(self.y, records, "y")
        if claim is not None:
            return next((plot["y"] for plot in claim["plots"] if "y" in plot), USUAL[0])
        best = {str((record.summary.get("best") or {}).get("metric") or "") for record in records} - {""}
        if len(best) == 1:
            return best.pop()
        return next((name for name in USUAL if any(r.value(name) is not None for r in records)), USUAL[0])

    def _plots(self, records: Sequence[Record], keys: Sequence[str], y: str) -> list[Plot]:
        """The requested plot, or those that fit: y by the only number in which the runs differ, and learning curves."""
        group = None if self.group is None else tuple(known_name(name, records, "group") for name in self.group)
        if group is not None and DATA not in (*group, self.x):  # no line goes from one data set to another
            drawn = {record.value(DATA) for record in records if record.value(y) is not None}
            group += (DATA,) if len(drawn) > 1 else ()
        if self.x is not None:
            return [plot(known_name(self.x, records, "x"), y, group, records, keys)]
        finished = [record for record in records if record.status == "finished"] or records
        differing = [key for key in keys if len({record.value(key) for record in finished}) > 1]
        numbers = [key for key in differing if is_numeric(key, finished)]
        plots = [plot(numbers[0], y, group, records, keys)] if len(numbers) == 1 else []
        if any((curve := record.curve(y)) is not None and len(curve[0]) > 1 for record in records):
            plots.append(plot("step", y, group, records, keys))
        return plots or [Plot("", y, tuple(keys) if group is None else group, "bars")]

    def _folder(self, experiment: tuple[str, str | None] | None) -> Path:
        """Where the report is written."""
        if self.to is not None:
            folder = expanded(self.to)
            if os.path.exists(folder) and not os.path.isdir(folder):
                raise ConfigError(f"to={self.to} is a file; the report goes into a folder.")
            if any(os.path.isfile(place / "config.yaml") for place in (folder.absolute(), *folder.absolute().parents)):
                raise ConfigError(f"to={self.to} is in a run folder, and these are only read; choose another.")
            return folder
        parts = ["_".join(part for part in experiment if part)] if experiment else _path_names(self.paths)
        parts += [self.y or "", f"by_{self.x}" if self.x else "", *(self.group or ())] if self._chooses else []
        return expanded(self.output_dir) / "comparisons" / slug("_".join(part for part in parts if part) or "runs")


def _claimed_plots(claim: Mapping[str, Any], records: Sequence[Record]) -> list[Plot]:
    """The plots of a claim for which there are values: early on, no run has been tested."""
    plots = [claimed_plot(entry, records) for entry in claim["plots"]]
    return [plot for plot in plots if plot.has_values(records)]


def _verdict(claim: Mapping[str, Any] | None, records: Sequence[Record], budget: str | None) -> Verdict | None:
    """On a claim that has tests; of the budget smoke always inconclusive."""
    if claim is None or not claim.get("tests"):
        return None
    verdict = judge(claim, records)
    if budget == "smoke":
        return replace(verdict, verdict="inconclusive", sentence=SMOKE)
    if any(record.shown_status == "running" for record in records):
        return replace(verdict, sentence=f"Runs are still going on. {verdict.sentence}")
    return verdict


def known_name(name: str, records: Sequence[Record], role: str) -> str:
    """Checks that some run has a value by a name, and completes it: `model` stands for model.name.

    Args:
        name: A config key, metric, cost or axis.
        records: The runs.
        role: x, y or group.

    Raises:
        ConfigError: If no run has one.
    """
    names = {known for record in records for known in record.names}
    if role == "x":
        names |= {*AXES, TRAINING_FLOPS}
    if name not in names and f"{name}.name" in names:
        name = f"{name}.name"
    if role == "y" and not is_numeric(name, records):
        names = {known for known in names if "/" in known or known in COSTS}
    if name not in names:
        metrics = " ".join(sorted(known for known in names if "/" in known))
        has = f" They logged: {metrics}." if role == "y" and metrics else ""
        raise ConfigError(f"{role}={name}: no run has {name}.{did_you_mean(name, sorted(names))}{has}")
    return name


def _all_runs(paths: Sequence[str], known: Iterable[Record]) -> tuple[list[Record], list[Skipped]]:
    """The runs in folders and in records of runs, and the folders that hold none."""
    archives = [path for path in paths if path.endswith(".csv") and os.path.isfile(expanded(path))]
    records, skipped = read([path for path in paths if path not in archives], known)
    return [*records, *(record for path in archives for record in read_archive(expanded(path)))], skipped


class Runs(NamedTuple):
    """The runs of a comparison by what they count for; without a claim all of them count.

    Attributes:
        deciding: All but the trials.
        trials: Those that only served to choose a value.
        counted: Of the deciding ones those of the experiment's own design.
        left_out: How the others differ from it, and how many do so.
        tuned: What was tuned, in a sentence.
        keys: By which the claim tells its runs apart, and those that were tuned.
    """

    deciding: list[Record]
    trials: list[Record]
    counted: list[Record]
    left_out: dict[str, int]
    tuned: str
    keys: frozenset[str] = frozenset()


def _sorted_out(
    records: list[Record], experiment: str | None, budget: str | None, claim: Mapping[str, Any] | None
) -> Runs:
    if experiment is None or claim is None:
        return Runs(records, [], records, {}, "")
    design, others = Design(experiment, budget, records), Counter[str]()
    keys = named_keys(claim) | set(design.tuning.space if design.tuning else ())
    runs = Runs([], [], [], {}, design.tuned, frozenset(keys))
    for record in records:
        if design.is_trial(record):
            runs.trials.append(record)
            continue
        runs.deciding.append(record)
        if found := design.differences(record):
            more = f"; and {len(found) - MAX_DIFFERENCES} more" if len(found) > MAX_DIFFERENCES else ""
            others["; ".join(found[:MAX_DIFFERENCES]) + more] += 1
        else:
            runs.counted.append(record)
    return runs._replace(left_out=dict(others))


def described(records: Sequence[Record]) -> str:
    """The models and data sets: `lenet and mlp on digits`."""
    models, datasets = (_listed({str(r.value(f"{g}.name")) for r in records}) for g in ("model", "dataset"))
    return f"{models} on {datasets}"


def _why(skipped: Sequence[Skipped]) -> str:
    """The reason why the first folder was skipped, for the end of a message."""
    if not skipped:
        return ""
    if len(skipped) == 1:
        return f": {printable(skipped[0].path.name)} is {skipped[0].reason}"
    return f": {printable(skipped[0].path.name)} is {skipped[0].reason}; and {len(skipped) - 1} more"


def _present(records: Sequence[Record], keys: Sequence[str]) -> str:
    """What the runs are of, for the end of a message: `are 12 of budget=smoke`."""
    counts = Counter(" ".join(f"{key}={value_text(record.value(key)) or 'null'}" for key in keys) for record in records)
    return "are " + " and ".join(f"{count} of {what}" for what, count in counts.most_common(3))


def _listed(words: Iterable[str], most: int = 4) -> str:
    """`gru, lstm and rnn`."""
    ordered = sorted(words)
    if len(ordered) > most:
        ordered = [*ordered[: most - 1], f"{len(ordered) - most + 1} others"]
    return " and ".join([", ".join(ordered[:-1]), ordered[-1]]) if len(ordered) > 1 else ordered[0]


def _path_names(paths: Sequence[str]) -> list[str]:
    """One or two names as they are; more, or patterns, by their number and a hash."""
    names = [Path(path).name for path in paths]
    if len(names) <= 2 and not any(sign in name for name in names for sign in "*?["):
        return names
    return [f"{count_text(len(names), 'path')}", hashlib.sha256("\n".join(paths).encode()).hexdigest()[:6]]
