"""The report page: verdict, plots, runs, configs and pictures of a comparison in one self-contained HTML file.

The plots are drawn in the browser, of the runs that are picked or filtered there; the scripts lie beside this file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.compare.figures import LOG_KEYS
from epochal.compare.fits import fits
from epochal.compare.groups import kinds
from epochal.compare.labels import key_text, run_label, title
from epochal.compare.records import STATUSES, Picture, Record, Value, printable
from epochal.compare.report.curves import MAX_NUMBERS, curves, profiles
from epochal.core.files import AXES, relative, write_atomically
from epochal.core.metrics import COSTS, METRICS, find
from epochal.plots import vega

if TYPE_CHECKING:
    from epochal.compare.comparison import Comparison, Plot

SCRIPTS = ("base", "address", "filter", "numbers", "figures", "plots", "runs", "details", "main")  # in this order
MAX_FILE = 8_000_000  # bytes; what the rest leaves is for pictures and texts
MAX_BYTES = 6_000_000  # of all pictures and texts in the file
MAX_PIXELS = 40_000_000  # of all pictures that are read and made smaller: they take longer than all else
MAX_WIDTH = 960  # pixels of a picture in the file
MAX_CHARACTERS = 20_000  # of a text in the file
MAX_STEPS = 8  # of which a run's pictures of one name are embedded
SMALL = 10_000  # bytes of a picture that is embedded as it is
BEST = 6  # runs whose pictures are embedded first

Json = dict[str, Any]


def write(comparison: Comparison, path: Path) -> Path:
    """Writes the page atomically, and returns its path."""
    data = contents(comparison, [])
    room = min(MAX_BYTES, max(MAX_FILE - len(document(data)), 0))
    data["shown"], data["left_out"] = embedded(ranked(comparison), room)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, document(data))
    return path


def document(data: Json) -> str:
    """The HTML file with the data of `contents`.

    Its Content-Security-Policy allows its own two scripts and requests to its own origin, nothing else.
    """
    files = resources.files("epochal.compare.report")
    script = "\n".join(files.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    policy = (
        "default-src 'none'; img-src 'self' data: blob:; connect-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {_hash(_bundle())} {_hash(script)}"
    )
    filled = {
        "policy": policy,
        "title": html.escape(data["title"]),
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "bundle": _bundle(),
        "style": files.joinpath("page.css").read_text(encoding="utf-8"),
        "script": script,
    }
    template = files.joinpath("page.html").read_text(encoding="utf-8")
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
    names = dict(zip(records, run_names(records)))
    common = _common(records)
    columns = _columns(comparison, records)
    columns_in_all = sum(len(record.columns) + len(AXES) for record in records)
    # a power of two, so that on a live page not every new run changes the curves of all others
    points = 1 << (MAX_NUMBERS // max(1, columns_in_all)).bit_length() >> 1
    drawn = set(comparison.drawn)
    profiled = {plot.y for plot in comparison.plots if plot.kind == "profile"}
    return {
        "title": comparison.title,
        "source": comparison.source,
        "footnote": comparison.footnote,
        "written": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "live": live,
        "statuses": dict(sorted(Counter(r.shown_status for r in records).items(), key=lambda s: _status_rank(s[0]))),
        "verdict": _verdict(comparison),
        "plots": [_plot(comparison, plot, names) for plot in comparison.plots],
        "references": [entry._asdict() for entry in comparison.references],
        "style": {
            "config": vega.CONFIG,
            "power": vega.POWER,
            "shapes": vega.SHAPES,
            "dashes": vega.DASHES,
            "series": vega.MAX_SERIES,
            "log_keys": LOG_KEYS,
        },
        "names": _names(records, [*columns, *_plotted(comparison)], common),
        "keys": comparison.keys,
        "columns": columns,
        "sort": {"key": comparison.y, "descending": find(comparison.y).larger_is_better},
        "sections": _sections(records, names),
        "common": common,
        "runs": [
            {"name": name, "label": run_label(record, comparison.keys), "drawn": record in drawn}
            | _run(record, common, points)
            | {"profiles": profiles(record, profiled)}
            for record, name in names.items()
        ],
        "shown": list(shown),
        "left_out": left_out,
        "skipped": [[printable(relative(skipped.path)), skipped.reason] for skipped in comparison.skipped],
    }


def _run(record: Record, common: Json, points: int) -> Json:
    """What a run has by itself: its state, values, versions and curves, and the configuration that not all share."""
    return {
        "status": record.shown_status,
        "progress": round(record.progress, 3),
        "error": record.error,
        "values": _values(record),
        "config": {k: v for k, v in record.config.items() if k not in common},
        "versions": _versions(record),
        "curves": curves(record, points),
    }


def ranked(comparison: Comparison) -> list[Record]:
    """The runs of each task and data set, best first; then trials; last of all those that failed, which have no rank."""
    sign = -1 if find(comparison.y).larger_is_better else 1

    def rank(record: Record) -> tuple[bool, bool, float]:
        value = record.value(comparison.y)
        known = isinstance(value, int | float)
        return record.status != "finished", not known, sign * float(value) if isinstance(value, int | float) else 0.0

    failed = [record for record in comparison.records if record.status == "failed"]
    others = [record for record in comparison.records if record.status != "failed"]
    return [record for kind in kinds(others) for record in sorted(kind.records, key=rank)] + failed


def _sections(records: Sequence[Record], names: dict[Record, str]) -> list[Json]:
    """Parts of the table, in the order of `ranked`: what can be ranked together, trials, and failures."""
    found = kinds(record for record in records if record.status != "failed")
    sections = [{"title": kind.label, "runs": [names[record] for record in kind.records]} for kind in found]
    failed = [names[record] for record in records if record.status == "failed"]
    return [*sections, *([{"title": "Failed, not ranked", "runs": failed}] if failed else [])]


def _plot(comparison: Comparison, plot: Plot, names: dict[Record, str]) -> Json:
    """What against what, and of which runs; None for all."""
    chosen = replace(plot, kind="curves").chosen(comparison.records)  # also those that have not finished
    runs = [names[record] for record in chosen] if plot.where else None
    heading = plot.heading(comparison.records)
    if comparison.parts and runs:  # of which data set, as the sections of the table are called
        heading = f"{replace(plot, where=()).heading(chosen)} ({kinds(chosen)[0].label})"
    laws = [{"says": fit.sentence, "line": fit.line} for fit in fits(plot, comparison.drawn)]
    shown: Json = {"heading": heading, "kind": plot.kind, "x": plot.x, "y": plot.y, "group": plot.group, "of": runs}
    shown |= {"where": plot.where} if plot.where else {}
    return {**shown, "laws": laws} if laws else shown


def _plotted(comparison: Comparison) -> list[str]:
    """What plots have on their axes or are grouped by, also where it is the same in all runs."""
    return [name for plot in comparison.plots for name in (plot.x, plot.y, *plot.group) if name]


def _names(records: Sequence[Record], columns: Sequence[str], common: Json) -> dict[str, Json]:
    """What each key, metric and cost is called, and how its values are written."""
    found = {name for record in records for name in (*record.metrics, *record.columns, *record.config)} - set(common)
    return {
        name: {
            "title": title(name),
            "short": key_text(name),
            **({"form": find(name).form, "best": find(name).direction} if "/" in name or name in METRICS else {}),
        }
        for name in sorted(found | set(COSTS) | set(AXES) | set(columns))
    }


def _values(record: Record) -> Json:
    """Metrics and costs."""
    costs = {name: value for name in COSTS if (value := record.value(name)) is not None}
    return {name: _short(value) for name, value in {**record.metrics, **costs}.items()}


def _short(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _versions(record: Record) -> dict[str, str]:
    """The commit of the code, and the versions of the packages, that it was trained with."""
    versions = record.summary.get("versions")
    found = {"commit": record.summary.get("git_commit")} | (versions if isinstance(versions, dict) else {})
    return {str(name): str(value) for name, value in found.items() if value}


def run_names(records: Sequence[Record]) -> list[str]:
    """A unique name for each run: its folder's, with as many parents as are needed."""
    depth = {record.folder: 1 for record in records}
    while True:
        names = {folder: printable("/".join(folder.parts[-count:])) for folder, count in depth.items()}
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


def embedded(records: Sequence[Record], room: int) -> tuple[list[Json], int]:
    """Pictures and texts as data, and how many were left out.

    Those of the best runs come first; of each name the last one, then the first, then those between.

    Args:
        records: The runs.
        room: Bytes for all of them. The first that does not fit ends the reading, as does MAX_PIXELS.
    """
    names = run_names(records)
    entries: list[Json] = []
    left_out, pixels = 0, 0
    for name, picture in _by_priority(list(zip(names, records))):
        content, read = _content(picture) if room > 0 and pixels < MAX_PIXELS else (None, 0)
        pixels += read
        size = sum(map(len, (content or {}).values()))
        if content is None or size > room:
            left_out += 1
            room = room if content is None else 0
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
    return {"run": run, "name": printable(picture.name.replace("_", " ")), "step": picture.step, "kind": _kind(picture)}


def _kind(picture: Picture) -> str:
    return "text" if picture.path.suffix == ".txt" else "picture"


def _content(picture: Picture) -> tuple[Json | None, int]:
    """A text, or a picture as WebP, at most MAX_WIDTH pixels wide, and its pixels; None if it cannot be read.

    A picture that is small already is embedded as it is.
    """
    from PIL import Image

    try:
        if _kind(picture) == "text":
            return {"text": printable(picture.path.read_text(encoding="utf-8", errors="replace")[:MAX_CHARACTERS])}, 0
        with Image.open(picture.path) as image:
            pixels = image.width * image.height
            if image.width <= MAX_WIDTH and image.format == "PNG" and picture.path.stat().st_size <= SMALL:
                image.verify()
                return _address("png", picture.path.read_bytes()), 0
            image = image.convert("RGB")
        image.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
        stream = io.BytesIO()
        image.save(stream, "WEBP", quality=80, method=2)
    except (OSError, ValueError, SyntaxError):  # Pillow calls a broken PNG a SyntaxError
        return None, 0
    return _address("webp", stream.getvalue()), pixels


def _address(kind: str, content: bytes) -> Json:
    return {"src": f"data:image/{kind};base64,{base64.b64encode(content).decode()}"}


def _columns(comparison: Comparison, records: Sequence[Record]) -> list[str]:
    """Names of the run table's columns: varying keys, metrics, what evaluate.py found since, costs."""
    metrics = list(dict.fromkeys(name for record in records for name in record.metrics))
    plotted = [comparison.y, *(plot.y for plot in comparison.plots)]
    results = [name for name in metrics if name.startswith(("test/", "val/")) and not name.endswith("/error")]
    since = sorted({name for record in records for name in record.evaluated if not name.endswith("_stderr")})
    instead = {name.removesuffix("error") + "accuracy" for name in plotted if name.endswith("/error")}
    results = [name for name in results if name not in instead]
    wanted = [*comparison.keys, "seed", *plotted, *results, *since, *COSTS[:4]]
    return [name for name in dict.fromkeys(wanted) if any(record.value(name) is not None for record in records)]


def _common(records: Sequence[Record]) -> dict[str, Value]:
    """The config keys with the same value in all runs, which are stored once and not in every run."""
    if not records:
        return {}
    first, *rest = (record.config for record in records)
    return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in rest)}


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
    """Vega, Vega-Lite and vega-embed as one script, kept in the cache folder, as making it takes seconds."""
    import vl_convert
    from platformdirs import user_cache_path

    try:
        root = Path(os.environ.get("EPOCHAL_CACHE") or user_cache_path("epochal")).expanduser()
        kept = root / f"vega-embed-{metadata.version('vl-convert-python')}.js"
        return kept.read_text(encoding="utf-8")
    except (OSError, RuntimeError, KeyError, ValueError):  # without a home folder, there is none for the cache
        pass
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    bundle = f"(() => {{{bundle}}})();"  # keeps its names out of the global scope
    with contextlib.suppress(OSError, RuntimeError, KeyError, NameError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, bundle)
    return bundle
