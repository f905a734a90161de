"""What is compared: the runs, what is plotted against what, and the claim they test, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from epochal.compare.labels import label, title
from epochal.compare.records import TRAINING_FLOPS, Record, Skipped, Value
from epochal.compare.sides import matching
from epochal.compare.statistics import Verdict
from epochal.core.files import AXES
from epochal.core.format import count_text

Kind = Literal["curves", "points", "bars", "profile"]


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        x: An axis of learning curves, a config key, a cost or a metric; "" for one bar a group, and for profiles.
        y: A metric or cost; of a profile its name.
        group: Runs with the same values of these keys are one line, with their mean and spread.
        kind: Learning curves, points over a number, bars over categories, or a profile (values by position).
        where: Keys and values of the runs that are drawn; empty for all runs.
        fit: Draw power laws, see `fits`.
    """

    x: str
    y: str
    group: tuple[str, ...]
    kind: Kind
    where: tuple[tuple[str, Value], ...] = ()
    fit: bool = False

    def chosen(self, records: Sequence[Record]) -> list[Record]:
        """The runs that are drawn; of points and bars only the finished ones, once there are any."""
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
        """`Test error by depth (scan pixels)`."""
        by = [self.x] if self.x else ["position"] if self.kind == "profile" else [*self.group] or ["run"]
        return self._heading(title(self.y), [title(key) for key in by])

    def heading(self, records: Sequence[Record]) -> str:
        """The title; of a profile with the words on its axes: `Test error by shift in pixels`."""
        found = (record.profile(self.y) for record in self.chosen(records)) if self.kind == "profile" else ()
        profile = next((profile for profile in found if profile is not None), None)
        return self.title if profile is None else self._heading(profile.y_label, [profile.x_label])

    def _heading(self, y: str, by: Sequence[str]) -> str:
        where = f" ({label(dict(self.where))})" if self.where else ""
        words = f"{y} by {' and '.join(by)}{where}"
        return words[0].upper() + words[1:]


class Reference(NamedTuple):
    """Results of a paper, or of a method without a network, drawn in the plots with the same x and y.

    Attributes:
        label: What they are, and whose.
        x, y: Of a plot.
        points: Pairs of them.
        where: Keys and values that the plot's runs have, if it shows only some of the claim's.
    """

    label: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]
    where: tuple[tuple[str, Any], ...] = ()

    def fits(self, plot: Plot) -> bool:
        """Whether they are drawn in a plot."""
        return (self.x, self.y) == (plot.x, plot.y) and all(pair in plot.where for pair in self.where)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The runs that are compared, how they are ranked and drawn, and the verdict. A notebook shows it as HTML.

    Attributes:
        records: The runs.
        skipped: Folders that hold no run, and why.
        drawn: The runs that the plots show; with a claim only those of the experiment's own grid.
        keys: The config keys in which the runs differ.
        named: Those by which a claim tells its runs apart; see `varying`.
        y: The value they are ranked by.
        plots: The first is the main one.
        title: The claim, or the models and data sets.
        folder: Where the report is written.
        footnote: Budget, number of runs and seeds, and the statistical rule.
        experiment, budget: That the claim is of, or None.
        trials: Runs of the experiment that only served to choose a value, such as the learning rate; not in `records`.
        claim: The experiment's, or None.
        references: Results of others beside the runs.
        verdict: On the claim; None without a claim that has tests.
        parts: Where nothing was asked and the runs are of several tasks or data sets, or some are trials: a comparison
            of each, as unlike runs are not ranked together. Else empty.
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
    experiment: str | None = None
    budget: str | None = None
    named: frozenset[str] = frozenset()
    trials: list[Record] = field(default_factory=list)
    claim: dict[str, Any] | None = None
    references: list[Reference] = field(default_factory=list)
    verdict: Verdict | None = None
    parts: list[Comparison] = field(default_factory=list)

    @property
    def source(self) -> str | None:
        """Where the claim was published, or None."""
        return None if self.claim is None else self.claim.get("source")

    def _repr_html_(self) -> str:
        """The table, the verdict and the figures, for a notebook."""
        from epochal.compare.report.notebook import html_text

        return html_text(self)


def plot(x: str, y: str, group: Sequence[str] | None, records: Sequence[Record], keys: Sequence[str]) -> Plot:
    """The kind of plot that fits x.

    Args:
        x, y: What against what.
        group: The keys of the lines. None takes the other varying keys; where x is a metric or cost, only the
            categorical ones, so that runs of different sizes are points of one line.
        records: The runs.
        keys: The config keys in which they differ.
    """
    if x in (*AXES, TRAINING_FLOPS):
        kind: Kind = "curves"
    else:
        kind = "points" if is_numeric(x, records) else "bars"
    if group is None:
        group = [key for key in keys if key != x]
        if kind == "points" and x not in keys:
            group = [key for key in group if not is_numeric(key, records)]
    return Plot(x, y, tuple(group), kind)


def claimed_plot(entry: Mapping[str, Any], records: Sequence[Record]) -> Plot:
    """One of a claim's `plots`."""
    group = entry.get("group") or ()
    group = (group,) if isinstance(group, str) else tuple(group)
    where = tuple((entry.get("where") or {}).items())
    if "profile" in entry:
        return Plot("", entry["profile"], group, "profile", where)
    return replace(plot(entry["x"], entry["y"], group, records, ()), where=where, fit=entry.get("fit") is not None)


def reference(entry: Mapping[str, Any]) -> Reference:
    """One of a claim's `references`."""
    points, where = tuple((x, y) for x, y in entry["points"]), tuple((entry.get("where") or {}).items())
    return Reference(entry["label"], entry["x"], entry["y"], points, where)


def is_numeric(name: str, records: Sequence[Record]) -> bool:
    """Whether the value is a number in every run that has one."""
    values = [value for record in records if (value := record.value(name)) is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def footnote(
    records: Sequence[Record],
    claim: Mapping[str, Any] | None,
    budget: str | None,
    verdict: Verdict | None,
    left_out: Mapping[str, int] | None = None,
    tuned: str = "",
) -> str:
    """What a reader of the figure has to know about the numbers.

    Args:
        records: The runs that are drawn.
        claim: The experiment's, or None.
        budget: The experiment's, or None.
        verdict: On the claim, or None.
        left_out: How runs differ from the experiment's design, and how many do so.
        tuned: What was tuned, in a sentence; empty for nothing.
    """
    finished = [record for record in records if record.status == "finished"]
    seeds = {record.seed for record in finished}
    sentences = [f"{count_text(len(finished), 'finished run')}, {count_text(len(seeds), 'seed')}."]
    setting = (claim or {}).get("setting")
    if budget is not None:
        sentences.insert(0, f"Budget {budget}{f': {setting}' if setting else ''}.")
    elif setting:
        sentences.insert(0, f"{setting}.")
    if tuned:
        sentences.append(tuned)
    if changed := sum(record.summary.get("same_config") is False for record in records):
        sentences.append(f"{count_text(changed, 'run')} of a record had another config than the experiment has now.")
    if left_out:
        why = "; ".join(f"{count_text(count, 'run')}: {reason}" for reason, count in left_out.items())
        of = "figures" if verdict is None else "verdict"
        sentences.append(f"Left out of the {of}, as of another design: {why}.")
    if verdict is not None and any(test.mean is not None for test in verdict.tests):
        sentences.append(f"Verdict: {verdict.verdict}; the rule: {verdict.rule}.")
    return " ".join(sentences)
