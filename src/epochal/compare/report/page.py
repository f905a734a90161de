"""The page: verdict, plots, runs, configs and pictures of a comparison, in one HTML file that asks nobody for anything."""

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

from epochal.compare.figures import figure, heading
from epochal.compare.labels import run_label, title, value_text
from epochal.compare.records import COSTS, STATUSES, Picture, Record, Value
from epochal.core.files import relative, write_atomically
from epochal.core.format import duration_text, number_text, short
from epochal.core.metrics import larger_is_better

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison

PICTURES = 6_000_000  # bytes that pictures and texts may take in the file, before base64 makes a third more of them
WIDEST = 960  # pixels of a picture in the file
TEXT = 20_000  # characters of a text sample
STEPS = 8  # of a run's pictures of one name
BEST = 6  # runs whose pictures come first

Json = dict[str, Any]


def write(comparison: Comparison, path: Path) -> Path:
    """Writes the page whole or not at all, and tells its path."""
    shown, left_out = embedded(ranked(comparison))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, document(contents(comparison, shown, left_out=left_out)))
    return path


def document(data: Json) -> str:
    """The HTML file around `contents`.

    A policy in its head lets nothing run but its own two scripts, and nothing be fetched but from where it came.
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
    """All that the page shows, as plain data.

    Args:
        comparison: What to show.
        shown: Pictures and texts, from `embedded` or `linked`.
        left_out: How many there was no room for.
        live: Whether the page is to ask for news.
    """
    records = ranked(comparison)
    names = run_names(records)
    common = _common(records)
    columns = _columns(comparison, records)
    return {
        "title": comparison.title,
        "source": (comparison.claim or {}).get("source"),
        "footnote": comparison.footnote,
        "written": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "live": live,
        "statuses": dict(sorted(Counter(r.shown_status for r in records).items(), key=lambda s: _status_rank(s[0]))),
        "verdict": _verdict(comparison),
        "plots": [{"heading": heading(plot), "spec": figure(comparison, plot)} for plot in comparison.plots],
        "columns": [{"key": key, "title": title(key), "number": number} for key, number in columns],
        "sort": {"key": comparison.y, "descending": larger_is_better(comparison.y)},
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
    sign = -1 if larger_is_better(comparison.y) else 1

    def rank(record: Record) -> tuple[bool, float]:
        value = record.value(comparison.y)
        return (False, sign * float(value)) if isinstance(value, int | float) else (True, 0.0)

    return sorted(comparison.records, key=rank)


def run_names(records: Sequence[Record]) -> list[str]:
    """A name for each run that no other has: the folder's, with its parents as far as they are needed."""
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
    """Pictures and texts by an address from which the page fetches what it shows."""
    return [
        {**_entry(name, picture), "src": address(picture.path)}
        for name, record in zip(run_names(records), records)
        for picture in _of_interest(record)
    ]


def embedded(records: Sequence[Record]) -> tuple[list[Json], int]:
    """Pictures and texts as part of the page, and how many there was no room for.

    The best runs' come first, of each name the last, then the first, then those between.
    """
    names = run_names(records)
    entries: list[Json] = []
    room, left_out = PICTURES, 0
    for name, picture in _by_worth(list(zip(names, records))):
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


def _by_worth(runs: Sequence[tuple[str, Record]]) -> Iterable[tuple[str, Picture]]:
    """Each run's pictures, STEPS of a name at most, in the order in which they are to have room."""
    queues = []
    for number, (name, record) in enumerate(runs):
        by_name: dict[str, list[Picture]] = {}
        for picture in _of_interest(record):
            by_name.setdefault(picture.name, []).append(picture)
        for pictures in by_name.values():
            tests = [picture for picture in pictures if picture.step is None]
            during = [picture for picture in pictures if picture.step is not None]
            at = sorted({round(i * (len(during) - 1) / (STEPS - 1)) for i in range(STEPS)}) if during else []
            steps = [during[i] for i in at]
            for worth, picture in enumerate([*tests, *steps[-1:], *steps[:-1][:1], *steps[1:-1]]):
                best = number < BEST
                queues.append(((not best, 0 if best else worth, number, worth), name, picture))
    return ((name, picture) for _, name, picture in sorted(queues, key=lambda queue: queue[0]))


def _of_interest(record: Record) -> Iterable[Picture]:
    """All but the run's own curves, which the plots show better."""
    return (picture for picture in record.pictures() if not picture.name.startswith("curve_"))


def _entry(run: str, picture: Picture) -> Json:
    return {"run": run, "name": picture.name.replace("_", " "), "step": picture.step, "kind": _kind(picture)}


def _kind(picture: Picture) -> str:
    return "text" if picture.path.suffix == ".txt" else "picture"


def _content(picture: Picture) -> Json | None:
    """A picture as WebP, at most WIDEST pixels wide, or a text; None if it cannot be read, as half-written ones cannot."""
    from PIL import Image

    try:
        if _kind(picture) == "text":
            return {"text": picture.path.read_text(encoding="utf-8", errors="replace")[:TEXT]}
        with Image.open(picture.path) as image:
            image = image.convert("RGB")
        image.thumbnail((WIDEST, 4 * WIDEST))
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=80, method=2)
    except (OSError, ValueError):
        return None
    return {"src": f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"}


def _columns(comparison: Comparison, records: Sequence[Record]) -> list[tuple[str, bool]]:
    """Names of the run table's columns, and whether they hold numbers: what was varied, what came out, what it cost."""
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


def _cell(key: str, value: Value) -> list[Any]:
    """Text and, to sort by, a number or the text itself."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [value_text(value), value_text(value) or None]
    if key in ("parameters", "flops"):
        return [short(value), value]
    if key == "seconds":
        return [duration_text(value), value]
    return [
        number_text(key, value) if "/" in key else value_text(value) if key not in COSTS else f"{value:,.0f}",
        value,
    ]


def _common(records: Sequence[Record]) -> dict[str, str]:
    """The config keys in which all runs agree: told once, or a thousand runs would tell them a thousand times."""
    if not records:
        return {}
    first, *rest = (record.config for record in records)
    return {k: _config_text(v) for k, v in first.items() if all(k in other and other[k] == v for other in rest)}


def _config_text(value: Value) -> str:
    """As the YAML has it; in quotes what could not be seen otherwise."""
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
    """By which a page's policy knows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    return f"(() => {{{bundle}}})();"  # its many names stay its own
