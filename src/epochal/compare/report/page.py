"""The report page: verdict, plots, runs, configs and pictures of a comparison in one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.compare.figures import figure
from epochal.compare.labels import run_label, title, value_text
from epochal.compare.records import STATUSES, Picture, Record, Value
from epochal.core.files import relative, write_atomically
from epochal.core.format import number_text
from epochal.core.metrics import COSTS, find

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison

MAX_BYTES = 6_000_000  # of all pictures and texts in the file, before base64 adds a third
MAX_WIDTH = 960  # pixels of a picture in the file
MAX_CHARACTERS = 20_000  # of a text in the file
MAX_STEPS = 8  # of which a run's pictures of one name are embedded
BEST = 6  # runs whose pictures are embedded first

Json = dict[str, Any]


def write(comparison: Comparison, path: Path) -> Path:
    """Writes the page atomically, and returns its path."""
    shown, left_out = embedded(ranked(comparison))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, document(contents(comparison, shown, left_out=left_out)))
    return path


def document(data: Json) -> str:
    """The HTML file with the data of `contents`.

    Its Content-Security-Policy allows its own two scripts and requests to its own origin, nothing else.
    """
    template = resources.files("epochal.compare.report").joinpath("page.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", template, re.DOTALL)[-1:]
    policy = (
        "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {_hash(_bundle())} {_hash(script)}"
    )
    filled = {
        "policy": policy,
        "title": html.escape(data["title"]),
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "bundle": _bundle(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], template)


def contents(comparison: Comparison, shown: Sequence[Json], *, left_out: int = 0, live: bool = False) -> Json:
    """Everything that the page shows, as JSON data.

    Args:
        comparison: What to show.
        shown: Pictures and texts, from `embedded` or `linked`.
        left_out: How many of them did not fit.
        live: Whether the page polls for updates.
    """
    records = ranked(comparison)
    names = run_names(records)
    common = _common(records)
    columns = _columns(comparison, records)
    return {
        "title": comparison.title,
        "source": comparison.source,
        "footnote": comparison.footnote,
        "written": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "live": live,
        "statuses": dict(sorted(Counter(r.shown_status for r in records).items(), key=lambda s: _status_rank(s[0]))),
        "verdict": _verdict(comparison),
        "plots": [{"heading": plot.title, "spec": figure(comparison, plot)} for plot in comparison.plots],
        "columns": [
            {"key": key, "title": title(key), "number": number, "descending": number and _larger_first(key)}
            for key, number in columns
        ],
        "sort": {"key": comparison.y, "descending": find(comparison.y).larger_is_better},
        "common": common,
        "runs": [
            {
                "name": name,
                "label": run_label(record, comparison.keys),
                "status": record.shown_status,
                "progress": round(record.progress, 3),
                "error": record.error,
                "cells": [_cell(key, record.value(key)) for key, _ in columns],
                "config": {k: _config_text(v) for k, v in record.config.items() if k not in common},
            }
            for name, record in zip(names, records)
        ],
        "shown": list(shown),
        "left_out": left_out,
        "skipped": [[relative(skipped.path), skipped.reason] for skipped in comparison.skipped],
    }


def ranked(comparison: Comparison) -> list[Record]:
    """The runs, best first; those without a value last."""
    sign = -1 if find(comparison.y).larger_is_better else 1

    def rank(record: Record) -> tuple[bool, float]:
        value = record.value(comparison.y)
        return (False, sign * float(value)) if isinstance(value, int | float) else (True, 0.0)

    return sorted(comparison.records, key=rank)


def run_names(records: Sequence[Record]) -> list[str]:
    """A unique name for each run: its folder's, with as many parents as are needed."""
    depth = {record.folder: 1 for record in records}
    while True:
        names = {folder: "/".join(folder.parts[-count:]) for folder, count in depth.items()}
        seen = Counter(names.values())
        twins = [folder for folder, name in names.items() if seen[name] > 1 and depth[folder] < len(folder.parts)]
        if not twins:
            return [names[record.folder] for record in records]
        for folder in twins:
            depth[folder] += 1


def linked(records: Sequence[Record], address: Callable[[Path], str]) -> list[Json]:
    """Pictures and texts as addresses, from which the page fetches those it shows.

    Args:
        records: The runs.
        address: Gives the address of a file.
    """
    return [
        {**_entry(name, picture), "src": address(picture.path)}
        for name, record in zip(run_names(records), records)
        for picture in _of_interest(record)
    ]


def embedded(records: Sequence[Record]) -> tuple[list[Json], int]:
    """Pictures and texts as data, and how many did not fit into MAX_BYTES.

    Those of the best runs come first; of each name the last one, then the first, then those between.
    """
    names = run_names(records)
    entries: list[Json] = []
    room, left_out = MAX_BYTES, 0
    for name, picture in _by_priority(list(zip(names, records))):
        content = _content(picture) if room > 0 else None
        size = sum(map(len, (content or {}).values()))
        if content is None or size > room:
            left_out += 1
            continue
        room -= size
        entries.append({**_entry(name, picture), **content})
    place = {name: number for number, name in enumerate(names)}
    entries.sort(key=lambda entry: (place[entry["run"]], entry["name"], entry["step"] is None, entry["step"] or 0))
    return entries, left_out


def _by_priority(runs: Sequence[tuple[str, Record]]) -> Iterable[tuple[str, Picture]]:
    """Each run's pictures, at most MAX_STEPS of a name, in the order in which they are embedded."""
    queues = []
    for number, (name, record) in enumerate(runs):
        by_name: dict[str, list[Picture]] = {}
        for picture in _of_interest(record):
            by_name.setdefault(picture.name, []).append(picture)
        for pictures in by_name.values():
            tests = [picture for picture in pictures if picture.step is None]
            during = [picture for picture in pictures if picture.step is not None]
            at = sorted({round(i * (len(during) - 1) / (MAX_STEPS - 1)) for i in range(MAX_STEPS)}) if during else []
            steps = [during[i] for i in at]
            for rank, picture in enumerate([*tests, *steps[-1:], *steps[:-1][:1], *steps[1:-1]]):
                best = number < BEST
                queues.append(((not best, 0 if best else rank, number, rank), name, picture))
    return ((name, picture) for _, name, picture in sorted(queues, key=lambda queue: queue[0]))


def _of_interest(record: Record) -> Iterable[Picture]:
    """All but the run's own curves, which the plots show better."""
    return (picture for picture in record.pictures() if not picture.name.startswith("curve_"))


def _entry(run: str, picture: Picture) -> Json:
    return {"run": run, "name": picture.name.replace("_", " "), "step": picture.step, "kind": _kind(picture)}


def _kind(picture: Picture) -> str:
    return "text" if picture.path.suffix == ".txt" else "picture"


def _content(picture: Picture) -> Json | None:
    """A picture as WebP, at most MAX_WIDTH pixels wide, or a text; None if it cannot be read, such as a half-written one."""
    from PIL import Image

    try:
        if _kind(picture) == "text":
            return {"text": picture.path.read_text(encoding="utf-8", errors="replace")[:MAX_CHARACTERS]}
        with Image.open(picture.path) as image:
            image = image.convert("RGB")
        image.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=80, method=2)
    except (OSError, ValueError):
        return None
    return {"src": f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"}


def _columns(comparison: Comparison, records: Sequence[Record]) -> list[tuple[str, bool]]:
    """Names of the run table's columns, and whether they hold numbers: varying keys, metrics, costs."""
    metrics = list(dict.fromkeys(name for record in records for name in record.metrics))
    plotted = [comparison.y, *(plot.y for plot in comparison.plots)]
    results = [name for name in metrics if name.startswith(("test/", "val/")) and not name.endswith("/error")]
    instead = {name.removesuffix("error") + "accuracy" for name in plotted if name.endswith("/error")}
    wanted = [*comparison.keys, "seed", *plotted, *(name for name in results if name not in instead), *COSTS[:4]]
    found = []
    for name in dict.fromkeys(wanted):
        values = [value for record in records if (value := record.value(name)) is not None]
        if values:
            found.append((name, all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)))
    return found


def _larger_first(name: str) -> bool:
    """Whether a first click on the column's head puts the largest value, which is the best, at the top."""
    return ("/" in name or name in COSTS) and find(name).larger_is_better


def _cell(name: str, value: Value) -> list[Any]:
    """A value as text, and what it is sorted by: a number or the text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [value_text(value), value_text(value) or None]
    return [number_text(name, value) if "/" in name or name in COSTS else value_text(value), value]


def _common(records: Sequence[Record]) -> dict[str, str]:
    """The config keys with the same value in all runs, which are stored once and not in every run."""
    if not records:
        return {}
    first, *rest = (record.config for record in records)
    return {k: _config_text(v) for k, v in first.items() if all(k in other and other[k] == v for other in rest)}


def _config_text(value: Value) -> str:
    """As in YAML; in quotes where it would be invisible otherwise."""
    return value if isinstance(value, str) and value.strip() and value.isprintable() else json.dumps(value)


def _verdict(comparison: Comparison) -> Json | None:
    verdict = comparison.verdict
    if verdict is None:
        return None
    tests = [{"says": test.says, "verdict": test.verdict, "sentence": test.sentence} for test in verdict.tests]
    return {"verdict": verdict.verdict, "sentence": verdict.sentence, "tests": tests}


def _status_rank(status: str) -> int:
    return STATUSES.index(status) if status in STATUSES else len(STATUSES)


def _hash(script: str) -> str:
    """The hash by which a Content-Security-Policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    return f"(() => {{{bundle}}})();"  # keeps its names out of the global scope
