"""The section of a claim in docs/claims.md, its figure, and the record of its runs, all made from the run folders."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from epochal.compare.archive import archive_text
from epochal.compare.comparison import Comparison
from epochal.compare.design import Design
from epochal.compare.figures import figure
from epochal.compare.fits import fits
from epochal.compare.groups import kinds, varying
from epochal.compare.labels import key_text, value_text
from epochal.compare.records import Record, Value, usable_number
from epochal.compare.statistics import Tested
from epochal.compare.table import COST_COLUMNS, columns, rows, spread_cell
from epochal.core.errors import ConfigError
from epochal.core.files import write_atomically
from epochal.core.format import count_text, duration_text, number_text
from epochal.plots.vega import SCALE, svg

BEGIN, END = "<!-- made by: {command} -->", "<!-- end -->"


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the made part of the claim's section; what else stands in the section stays as it is.

    Args:
        comparison: Of one experiment.
        folder: `docs`, with a claims.md.

    Returns:
        The files that were written: claims.md, the figure, the record of the runs, and the README beside the folder if its
        table of claims has a row that links to the section.

    Raises:
        ConfigError: If the comparison is of no experiment, none of its runs counts or some have not ended, or the folder has
            no claims.md.
    """
    import vl_convert

    name, claims = comparison.experiment, folder / "claims.md"
    if name is None or comparison.claim is None:
        raise ConfigError("--docs writes the section of a claim; choose one with experiment=<name>.")
    if not comparison.drawn:
        raise ConfigError(f"No run of experiment={name} is of its own design, so that its section would be empty.")
    if going := sum(record.status == "running" for record in comparison.records):
        raise ConfigError(
            f"{count_text(going, 'run')} of experiment={name} {'has' if going == 1 else 'have'} not ended; the section would be of "
            "the others alone. The same line of training typed again goes on with what was killed."
        )
    if not claims.is_file():
        raise ConfigError(f"There is no {claims}; --docs is for a checkout of the repository, in its own folder.")
    stem = f"{name}_{comparison.budget}" if comparison.budget else name
    record, picture = folder / "records" / f"{stem}.csv", folder / "pictures" / f"{name}.png"
    for parent in (record.parent, picture.parent):
        parent.mkdir(exist_ok=True)
    design = Design(name, comparison.budget)
    archived = [*comparison.drawn, *comparison.trials]
    write_atomically(record, archive_text(archived, comparison.claim, design).encode())
    written = [claims, record]
    if comparison.plots:
        drawn = svg(figure(comparison, comparison.plots[0]))
        write_atomically(picture, small_png(vl_convert.svg_to_png(drawn, scale=SCALE)))
        written.append(picture)
    text = section(comparison, record.relative_to(folder), picture.relative_to(folder))
    write_atomically(claims, replaced(claims.read_text("utf-8"), name, comparison.title, text).encode())
    readme = folder.parent / "README.md"
    if readme.is_file() and (row := in_table(readme.read_text("utf-8"), name, comparison)) is not None:
        write_atomically(readme, row.encode())
        written.append(readme)
    return written


def small_png(image: bytes) -> bytes:
    """The image with a palette, a fifth of the size: a repository keeps each version of it."""
    small = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").quantize(dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def section(comparison: Comparison, record: Path, picture: Path) -> str:
    """The made part: runs, cost, code, figure, table, verdict and tests.

    Args:
        comparison: Of one experiment.
        record, picture: As they are linked.
    """
    verdict, claim = comparison.verdict, comparison.claim or {}
    budget = f" budget={comparison.budget}" if comparison.budget else ""
    runs = comparison.drawn
    lines = [
        BEGIN.format(command=f"python compare.py experiment={comparison.experiment}{budget} --docs"),
        f"- **Runs**: {comparison.footnote}",
        f"- **Cost**: {_cost(runs)}",
        f"- **Code**: commit {_listed(_commit(run) for run in runs)}."
        f" The values of each run: [{record.name}]({record.as_posix()}).",
    ]
    if source := claim.get("source"):
        lines.insert(1, f"- **Source**: {source}.")
    if comparison.plots:
        lines += ["", f"![{comparison.plots[0].heading(runs)}]({picture.as_posix()})"]
    if laws := [fit.sentence for plot in comparison.plots for fit in fits(plot, runs)]:
        lines += ["", " ".join(laws)]
    lines += ["", *_groups(comparison)]
    if verdict is not None:
        lines += ["", f"**Verdict: {verdict.verdict}.** {verdict.sentence}", "", *_tests(comparison)]
    return "\n".join([*lines, END])


def replaced(text: str, name: str, title: str, made: str) -> str:
    """The document with the made part in the section of the claim, which is added at the end if there is none."""
    match = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        return f"{text.rstrip()}\n\n## {name}\n\n> {title}\n\n{made}\n"
    old = re.search(rf"<!-- made by: .*?{re.escape(END)}", match[1], re.DOTALL)
    body = (
        f"{match[1].rstrip()}\n\n{made}\n\n" if old is None else match[1][: old.start()] + made + match[1][old.end() :]
    )
    return f"{text[: match.start(1)]}{body}{text[match.end(1) :]}".rstrip() + "\n"


def in_table(text: str, name: str, comparison: Comparison) -> str | None:
    """A document with the claim's verdict, cost and evidence in the last three cells of its row; None if it has no row."""
    row = re.search(rf"^(\|[^|]*\| \[{re.escape(name)}\]\([^)|]*\) \|).*$", text, re.MULTILINE)
    if row is None or comparison.verdict is None:
        return None
    cells = [comparison.verdict.verdict, _time(comparison), _evidence(comparison)]
    return f"{text[: row.end(1)]} {' | '.join(cells)} |{text[row.end() :]}"


def _evidence(comparison: Comparison) -> str:
    """The interval of the test that was decided most narrowly, or that keeps the claim from being decided."""
    assert comparison.verdict is not None and comparison.claim is not None

    def margin(test: Tested, entry: Mapping[str, Any]) -> float:
        given = float(entry.get("margin") or 0)
        return math.log(given) if test.log and given else given

    def clearance(pair: tuple[Tested, Mapping[str, Any]]) -> float:
        """By how many half-widths of its interval the difference is off the margin."""
        test, entry = pair
        if test.mean is None or test.interval is None:
            return -1.0
        half = (test.interval[1] - test.interval[0]) / 2
        return abs(test.mean - margin(test, entry)) / half if half else math.inf

    verdict, tests = comparison.verdict, list(zip(comparison.verdict.tests, comparison.claim["tests"], strict=True))
    test, entry = min((pair for pair in tests if pair[0].verdict == verdict.verdict), key=clearance)
    if test.mean is None or test.interval is None:
        return f"{test.says}: {test.sentence}"
    closest = f"closest of {len(tests)} tests: " if len(tests) > 1 else ""
    which = closest if verdict.verdict == "supported" else f"{test.says}: "
    off = f", margin {test.text(margin(test, entry))}" if margin(test, entry) else ""
    seeds = " and ".join(str(count) for count in dict.fromkeys(test.seeds))
    return f"{which}{test.text(test.mean)} ({test.interval_text(test.interval)}{off}), {seeds} seeds"


def _groups(comparison: Comparison) -> list[str]:
    """The runs that are drawn as a table; of several tasks or data sets one for each that has any of the values."""
    found: list[str] = []
    several = len(listed := kinds(comparison.drawn)) > 1
    for kind in listed:
        part = replace(comparison, records=list(kind.records), keys=varying(kind.records, comparison.named))
        names = [name for name in columns(part) if any(record.value(name) is not None for record in kind.records)]
        if several and not names:
            continue
        heading = [f"{kind.values['task.name']}, {kind.values['dataset.name']}:", ""] if several else []
        found += [*([""] if found else []), *heading, *_group_table(part, names)]
    return found


def _group_table(comparison: Comparison, names: Sequence[str]) -> list[str]:
    keys, listed = comparison.keys, rows(comparison)
    costs = [cost for cost in COST_COLUMNS[:2] if any(cost in row.spreads for row in listed)]
    body = [
        [
            *(value_text(_without_folder(row.values[key])) or "–" for key in keys),
            *(spread_cell(name, row.spreads.get(name)) for name in names),
            str(row.n),
            *(number_text(cost, row.spreads[cost].mean) if cost in row.spreads else "" for cost in costs),
        ]
        for row in listed
    ]
    return _table([*map(key_text, (*keys, *names)), "n", *map(key_text, costs)], body)


def _without_folder(value: Value) -> Value:
    """A run that is named by its folder on this machine by its name alone."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _tests(comparison: Comparison) -> list[str]:
    assert comparison.verdict is not None
    body = []
    for test in comparison.verdict.tests:
        mean = "" if test.mean is None else test.text(test.mean)
        ends = "" if test.interval is None else test.interval_text(test.interval)
        seeds = str(test.seeds[0]) if len({*test.seeds}) == 1 else f"{test.seeds[0]} and {test.seeds[1]}"
        verdict = f"{test.verdict}: {test.why}" if test.why else test.verdict
        body.append([test.says, key_text(test.y), mean, ends, seeds, verdict])
    logs = {test.log for test in comparison.verdict.tests}
    difference = "ratio" if logs == {True} else "difference or ratio (×)" if True in logs else "difference"
    return _table(["test", "of", difference, "95 % interval", "seeds a side", "verdict"], body)


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rows = [head, ["---"] * len(head), *body]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _cost(runs: Sequence[Record]) -> str:
    """How long training and validation took."""
    if not (seconds := _seconds(runs)):
        return "not recorded."
    span = f"{duration_text(min(seconds))} to {duration_text(max(seconds))}"
    return (
        f"{count_text(len(seconds), 'run')} with {span} of training and validation, {duration_text(sum(seconds))} together; "
        "the tests come on top."
    )


def _time(comparison: Comparison) -> str:
    """The same in short, of two runs at once, with the trials of the tuning."""
    runs, trials = comparison.drawn, comparison.trials
    count = count_text(len(runs), "run") + (f" and {count_text(len(trials), 'trial')}" if trials else "")
    return f"{count}, {duration_text(sum(_seconds([*runs, *trials])) / 2)}"


def _seconds(runs: Iterable[Record]) -> list[float]:
    return [value for run in runs if (value := usable_number(run.summary.get("seconds"))) is not None]


def _commit(run: Record) -> str:
    commit = str(run.summary.get("git_commit") or "unknown")
    return commit[:7] + (" with changes" if commit.endswith("+") else "")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
