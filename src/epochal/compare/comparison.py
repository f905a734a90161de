"""What is compared: which runs, what against what, and the claim they test, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from epochal.compare.labels import key_text, label
from epochal.compare.records import Record, Skipped, Value
from epochal.compare.statistics import FEW, Verdict, matching
from epochal.core.files import AXES
from epochal.core.format import count_text

Kind = Literal["curves", "points", "bars", "profile"]


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
