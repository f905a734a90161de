"""What is compared: which runs, what against what, and the claim they test, if any."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from epochal.compare.groups import key_text, label, value_text, varying
from epochal.compare.reading import COSTS, Record, Skipped, Value, read
from epochal.compare.statistics import FEW, Verdict, judge, matching
from epochal.errors import ConfigError, did_you_mean
from epochal.files import AXES, expanded, slug
from epochal.words import count_text

Kind = Literal["curves", "points", "bars", "profile"]
# what may be typed with a claim and leaves its runs what they are
FREE = {"experiment", "budget", "seed", "output_dir", "resume", "launcher", "threads", "allow"}
FREE_GROUPS = ("hydra", "logger", "trainer", "callbacks")
USUAL = ("val/loss", "test/loss", "train/loss")  # what runs are ranked by that do not share a best metric


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        x: An axis of learning curves, a config key, a cost or a metric; "" for one bar a group, and for profiles.
        y: A metric or cost; of a profile its name.
        group: Runs that agree in these are one line, with their mean and spread.
        kind: Learning curves, points over a number, bars over words, or a profile.
        where: Values of the only runs that are drawn; none: all.
    """

    x: str
    y: str
    group: tuple[str, ...]
    kind: Kind
    where: tuple[tuple[str, Value], ...] = ()

    def chosen(self, records: Sequence[Record]) -> list[Record]:
        """The runs that are drawn; as points and bars the finished ones, as soon as there are any."""
        matched = matching(records, dict(self.where))
        finished = [record for record in matched if record.status == "finished"]
        return finished if finished and self.kind in ("points", "bars") else matched

    def has_values(self, records: Sequence[Record]) -> bool:
        """Whether any run has something to draw."""
        chosen = self.chosen(records)
        if self.kind == "curves":
            return any(record.curve(self.y, self.x) is not None for record in chosen)
        if self.kind == "profile":
            return any(self.y in record.profiles for record in chosen)
        return any(record.value(self.y) is not None for record in chosen)

    @property
    def title(self) -> str:
        """`test error by depth (scan pixels)`."""
        where = f" ({label(dict(self.where))})" if self.where else ""
        x = key_text(self.x) if self.x else "position" if self.kind == "profile" else "run"
        return f"{key_text(self.y)} by {x}{where}"


class Published(NamedTuple):
    """A paper's own points, drawn in the plots with the same x and y."""

    label: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs, and what is to be seen of them.

    Attributes:
        records, skipped: The runs, and what was found beside them.
        drawn: The runs that the plots show; of a claim those of its own grid alone.
        keys: The config keys in which they differ.
        y: The value they are ranked by.
        plots: The first is the main one.
        title: The claim, or what is compared.
        folder: Where the report goes.
        claim: The experiment's, or None.
        published: The papers' points.
        verdict: On the claim.
        footnote: Budget, how many runs and seeds, the test used.
    """

    records: list[Record]
    skipped: list[Skipped]
    drawn: list[Record]
    keys: list[str]
    y: str
    plots: list[Plot]
    title: str
    folder: Path
    footnote: str
    claim: dict[str, Any] | None = None
    published: list[Published] = field(default_factory=list)
    verdict: Verdict | None = None

    @property
    def sentence(self) -> str | None:
        """The claim's."""
        return None if self.claim is None else str(self.claim["sentence"])

    @property
    def source(self) -> str | None:
        """Where the claim was published."""
        return None if self.claim is None else self.claim.get("source")


@dataclass(frozen=True)
class Request:
    """What a person asks to compare; `compare` looks, as often as it is called.

    Attributes:
        paths: Run folders, folders of them, patterns; none means the experiment's folder, or `runs`, in `output_dir`.
        x, y, group: Of the plot; None chooses what fits the runs.
        experiment, budget: A claim and the size of its runs; budget None is the experiment's own.
        output_dir: Where runs are.
        to: Where the report goes; None: a folder in `output_dir`/comparisons, named after all this.
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
        """Reads the runs; those of an earlier call that did not change since are not read again.

        Raises:
            ConfigError: If no run is found, or a name is none of theirs.
        """
        experiment = self.experiment
        claim, budget = load_claim(experiment, self.budget) if experiment else (None, self.budget)
        records, skipped = self._read(known, budget)
        if experiment is None:
            experiment, claim, budget = self._shared(records) or (None, None, budget)
        keys = varying(records)
        y = self._y(records, claim)
        counted = records
        if experiment is not None and claim is not None:
            counted = [record for record in records if not has_own_settings(record, grid_keys(experiment))]
        plots = self._plots(records, keys, y) if claim is None or self._chooses else []
        if claim is not None and not self._chooses:
            plots = [claimed_plot(entry, counted) for entry in claim["plots"]]
            plots = [plot for plot in plots if plot.has_values(counted)]  # early on, no run has been tested
        verdict = judge(claim, counted) if claim is not None and claim.get("tests") else None
        if verdict is not None and any(record.shown_status == "running" for record in counted):
            verdict = replace(verdict, sentence=f"Runs are still going on. {verdict.sentence}")
        if verdict is not None and budget == "smoke":
            sentence = (
                "The budget smoke shows that everything works; it is too small to decide anything, and decides nothing."
            )
            verdict = replace(verdict, verdict="inconclusive", sentence=sentence)
        drawn = records if self._chooses else counted
        return Comparison(
            records=records,
            skipped=skipped,
            drawn=drawn,
            keys=keys,
            y=y,
            plots=plots,
            title=claim["sentence"] if claim is not None else described(records),
            folder=self._folder((experiment, budget) if experiment else None),
            footnote=footnote(drawn, claim, budget, verdict, left_out=len(records) - len(counted)),
            claim=claim,
            published=[published(entry) for entry in (claim or {}).get("published") or []],
            verdict=verdict,
        )

    @property
    def _chooses(self) -> bool:
        return (self.x, self.y, self.group) != (None, None, None)

    def _read(self, known: Iterable[Record], budget: str | None) -> tuple[list[Record], list[Skipped]]:
        place = Path(self.output_dir) / (self.experiment or "runs")
        if not self.paths and not os.path.isdir(place):
            size = f" budget={budget}" if budget else ""
            command = f"experiment={self.experiment}{size}" if self.experiment else ""
            raise ConfigError(
                f"There are no runs in {place} yet; make some with python train.py {command}".rstrip()
                + ", or give their folders."
            )
        records, skipped = read(self.paths or (str(place),), known)
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
        """The experiment that all runs belong to, its claim and budget, if these are still there: nobody typed them."""
        pairs = {(record.value("experiment"), record.value("budget")) for record in records}
        experiment, budget = pairs.pop()
        if pairs or not isinstance(experiment, str):
            return None
        try:
            return experiment, *load_claim(experiment, None if budget is None else str(budget))
        except ConfigError:
            return None

    def _y(self, records: Sequence[Record], claim: Mapping[str, Any] | None) -> str:
        if self.y is not None:
            return known_name(self.y, records, "y")
        if claim is not None:
            return next((plot["y"] for plot in claim["plots"] if "y" in plot), USUAL[0])
        best = {str((record.summary.get("best") or {}).get("metric") or "") for record in records} - {""}
        if len(best) == 1:
            return best.pop()
        return next((name for name in USUAL if any(r.value(name) is not None for r in records)), USUAL[0])

    def _plots(self, records: Sequence[Record], keys: Sequence[str], y: str) -> list[Plot]:
        """The plot asked for, or those that fit: y by the one number in which the runs differ, and learning curves."""
        group = None if self.group is None else tuple(known_name(name, records, "group") for name in self.group)
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
        if self.to is not None:
            folder = expanded(self.to)
            if os.path.exists(folder) and not os.path.isdir(folder):
                raise ConfigError(f"to={self.to} is a file; the report goes into a folder.")
            if any(os.path.isfile(place / "config.yaml") for place in (folder.absolute(), *folder.absolute().parents)):
                raise ConfigError(f"to={self.to} is in a run folder, and these are only read; choose another.")
            return folder
        parts = ["_".join(part for part in experiment if part)] if experiment else _short(self.paths)
        parts += [self.y or "", f"by_{self.x}" if self.x else "", *(self.group or ())] if self._chooses else []
        return Path(self.output_dir) / "comparisons" / slug("_".join(part for part in parts if part) or "runs")


def plot(x: str, y: str, group: Sequence[str] | None, records: Sequence[Record], keys: Sequence[str]) -> Plot:
    """The kind of plot that fits x. Without a group, lines are told apart by what else varies in words; over a config
    key by all else that varies."""
    if x in AXES:
        kind: Kind = "curves"
    else:
        kind = "points" if is_numeric(x, records) else "bars"
    if group is None:
        others = [key for key in keys if key != x]
        group = (
            [key for key in others if not is_numeric(key, records)] if kind == "points" and x not in keys else others
        )
    return Plot(x, y, tuple(group), kind)


def claimed_plot(entry: Mapping[str, Any], records: Sequence[Record]) -> Plot:
    """One of a claim's `plots`."""
    group = entry.get("group") or ()
    group = (group,) if isinstance(group, str) else tuple(group)
    where = tuple((entry.get("where") or {}).items())
    if "profile" in entry:
        return Plot("", entry["profile"], group, "profile", where)
    return replace(plot(entry["x"], entry["y"], group, records, ()), where=where)


def published(entry: Mapping[str, Any]) -> Published:
    return Published(entry["label"], entry["x"], entry["y"], tuple((x, y) for x, y in entry["points"]))


def is_numeric(name: str, records: Sequence[Record]) -> bool:
    """Whether all runs that have a value by this name have a number."""
    values = [value for record in records if (value := record.value(name)) is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def known_name(name: str, records: Sequence[Record], role: str) -> str:
    """A name that some run has a value by; `model` stands for model.name.

    Raises:
        ConfigError: If none has.
    """
    names = {known for record in records for known in record.names}
    if role == "x":
        names |= set(AXES)
    if name not in names and f"{name}.name" in names:
        name = f"{name}.name"
    if role == "y" and not is_numeric(name, records):
        names = {known for known in names if "/" in known or known in COSTS}
    if name not in names:
        metrics = " ".join(sorted(known for known in names if "/" in known))
        has = f" They logged: {metrics}." if role == "y" and metrics else ""
        raise ConfigError(f"{role}={name}: no run has {name}.{did_you_mean(name, sorted(names))}{has}")
    return name


@cache
def load_claim(experiment: str, budget: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """An experiment's claim, resolved, and its budget, None if it has none; (None, budget) where it makes no claim.

    Raises:
        ConfigError: If there is no such experiment, it has no such budget, or its claim is wrong.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from epochal.cli import compose
    from epochal.validate import conf_folder

    there = experiments()
    if experiment not in there:
        listed = f" There are: {' '.join(there)}" if there else " There are none."
        raise ConfigError(f"experiment={experiment} is no experiment.{did_you_mean(experiment, there)}{listed}")
    try:
        config = compose([f"experiment={experiment}"], "train", conf_folder())
        budgets = [str(name) for name in config.get("budgets") or {}]
        if budget is not None and budget not in budgets:
            listed = f" There are: {' '.join(budgets)}" if budgets else " It has none."
            raise ConfigError(
                f"budget={budget} is no budget of experiment={experiment}.{did_you_mean(budget, budgets)}{listed}"
            )
        if budget is not None:
            config = compose([f"experiment={experiment}", f"budget={budget}"], "train", conf_folder())
        claim: Any = config.get("claim")
        if claim is None:
            return None, budget
        claim = OmegaConf.to_container(claim, resolve=True) if OmegaConf.is_config(claim) else claim
        chosen = None if config.budget is None else str(config.budget)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"experiment={experiment} cannot be read: {' '.join(str(error).split())}") from error
    check_claim(experiment, claim)
    return claim, chosen


def check_claim(experiment: str, claim: Any) -> None:
    """Says what is wrong with an experiment's claim before hours are spent on its runs.

    Raises:
        ConfigError: With the first thing that is wrong.
    """

    def require(right: bool, problem: str) -> None:
        if not right:
            raise ConfigError(f"The claim of experiment={experiment} is wrong: {problem}")

    def keys(what: str, entry: Any, needed: Sequence[str], others: Sequence[str] = ()) -> None:
        known = [*needed, *others]
        require(isinstance(entry, dict), f"{what} has no keys; it needs {' '.join(needed)}.")
        for key in entry:
            require(key in known, f"{what} has {key}.{did_you_mean(str(key), known)} There are: {' '.join(known)}")
        for key in needed:
            require(entry.get(key) is not None, f"{what} has no {key}.")

    def values(what: str, entry: Any) -> None:
        plain = isinstance(entry, dict) and all(isinstance(v, str | int | float | list | None) for v in entry.values())
        require(plain, f"{what} is no mapping of keys to values, such as {{model.depth: 8}}.")

    def entries(name: str) -> Iterable[tuple[str, Any]]:
        listed = claim.get(name) or []
        require(isinstance(listed, list), f"{name} is no list.")
        return ((f"{name}, number {number},", entry) for number, entry in enumerate(listed, start=1))

    keys("it", claim, ("sentence", "plots"), ("source", "setting", "published", "tests"))
    for what, entry in entries("plots"):
        drawn = ("profile",) if isinstance(entry, dict) and "profile" in entry else ("x", "y")
        keys(what, entry, drawn, ("group", "where"))
        values(f"where of {what}", entry.get("where") or {})
    for what, entry in entries("published"):
        keys(what, entry, ("label", "x", "y", "points"))
        pairs = isinstance(entry["points"], list) and all(isinstance(p, list) and len(p) == 2 for p in entry["points"])
        require(pairs, f"{what} has points that are no pairs such as [20, 0.0875].")
    for what, entry in entries("tests"):
        keys(what, entry, ("says", "y", "than"), ("more", "not_more", "margin"))
        require(("more" in entry) != ("not_more" in entry), f"{what} needs one of more and not_more.")
        for side in {"more", "not_more", "than"} & entry.keys():
            values(f"{side} of {what}", entry[side])
        require(isinstance(entry.get("margin", 0), int | float), f"{what} has a margin that is no number.")


@cache
def grid_keys(experiment: str) -> frozenset[str]:
    """What an experiment's grid gives values."""
    from omegaconf import OmegaConf

    from epochal.validate import conf_folder

    config = OmegaConf.load(conf_folder() / "experiment" / f"{experiment}.yaml")
    sweeper: Any = OmegaConf.to_container(
        OmegaConf.select(config, "hydra.sweeper") or OmegaConf.create(), resolve=False
    )
    budgets: Any = OmegaConf.to_container(OmegaConf.select(config, "budgets") or OmegaConf.create(), resolve=False)
    grids = [sweeper.get("params") or {}, *(sweeper.get("before") or [])]
    brought = [budget.get("along") or {} for budget in budgets.values()]
    keys = [
        *(key for grid in grids for key in grid),
        *(o for along in brought for many in along.values() for o in many),
    ]
    return frozenset(str(key).partition("=")[0].lstrip("+~") for key in keys)


def has_own_settings(record: Record, grid: Iterable[str]) -> bool:
    """Whether a person gave it a value that neither the grid gives nor leaves what is learned as it is."""
    others = record.typed - FREE - set(grid)
    return any(re.split("[./@]", key)[0] not in FREE_GROUPS for key in others)


def experiments() -> list[str]:
    """The names in conf/experiment."""
    from epochal.validate import conf_folder

    return sorted(file.stem for file in (conf_folder() / "experiment").glob("*.yaml"))


def described(records: Sequence[Record]) -> str:
    """`lenet and mlp on digits`."""
    models, datasets = (_listed({str(r.value(f"{g}.name")) for r in records}) for g in ("model", "dataset"))
    return f"{models} on {datasets}"


def footnote(
    records: Sequence[Record],
    claim: Mapping[str, Any] | None,
    budget: str | None,
    verdict: Verdict | None,
    left_out: int = 0,
) -> str:
    """What a reader of the figure has to know of the numbers."""
    finished = [record for record in records if record.status == "finished"]
    seeds = {record.seed for record in finished}
    sentences = [f"{count_text(len(finished), 'finished run')}, {count_text(len(seeds), 'seed')}."]
    if budget is not None:
        setting = (claim or {}).get("setting")
        sentences.insert(0, f"Budget {budget}{f': {setting}' if setting else ''}.")
    if left_out:
        are = "with settings of its own is" if left_out == 1 else "with settings of their own are"
        of = "figures" if verdict is None else "verdict"
        sentences.append(f"{count_text(left_out, 'run')} {are} left out of the {of}.")
    if verdict is not None and any(test.pairs for test in verdict.tests):
        exact = any(test.pairs >= FEW for test in verdict.tests)
        rule = (
            "exact sign-flip test, Holm-corrected, at 0.05"
            if exact
            else "all pairs agree and their mean exceeds two standard deviations"
        )
        sentences.append(f"Verdict: {verdict.verdict}; the rule: {rule}.")
    return " ".join(sentences)


def _why(skipped: Sequence[Skipped]) -> str:
    """The first reason."""
    if not skipped:
        return ""
    if len(skipped) == 1:
        return f": {skipped[0].path.name} is {skipped[0].reason}"
    return f": {skipped[0].path.name} is {skipped[0].reason}; and {len(skipped) - 1} more"


def _present(records: Sequence[Record], keys: Sequence[str]) -> str:
    """`are 12 of budget=smoke`."""
    counts = Counter(" ".join(f"{key}={value_text(record.value(key)) or 'null'}" for key in keys) for record in records)
    return "are " + " and ".join(f"{count} of {what}" for what, count in counts.most_common(3))


def _listed(words: Iterable[str], most: int = 4) -> str:
    ordered = sorted(words)
    if len(ordered) > most:
        ordered = [*ordered[: most - 1], f"{len(ordered) - most + 1} others"]
    return " and ".join([", ".join(ordered[:-1]), ordered[-1]]) if len(ordered) > 1 else ordered[0]


def _short(paths: Sequence[str]) -> list[str]:
    """A few names as they are, many by their number and what tells them from other lists as long."""
    names = [Path(path).name for path in paths]
    if len(names) <= 2 and not any(sign in name for name in names for sign in "*?["):
        return names
    return [f"{count_text(len(names), 'path')}", hashlib.sha256("\n".join(paths).encode()).hexdigest()[:6]]
