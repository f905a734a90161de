"""A leaderboard of language models: runs side by side, with what was found about them since. Read-only, without torch."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epochal.compare import scan
from epochal.compare.groups import trial
from epochal.compare.records import Record, usable_number
from epochal.core.errors import ConfigError, EpochalError, did_you_mean
from epochal.core.files import relative, write_atomically
from epochal.core.format import cell_width, count_text, number_text, print_anything, say, verbatim
from epochal.core.metrics import find
from epochal.core.program import command_line

HELP = """\
A table of language models, best first: size, tokenizer, bits per byte and perplexity on their test part, few-shot
accuracies and tasks of lm-evaluation-harness as far as they were measured. Run folders are only read.

  epochal leaderboard                                    the runs in outputs/runs
  epochal leaderboard outputs/runs/*gpt* other/runs      some of them
  epochal leaderboard sort=parameters                    by another column, as the table names it
  epochal leaderboard to=board.csv                       where the table goes as CSV (outputs/leaderboard.csv)

Measure first what the table shall have:

  epochal evaluate run=outputs/runs/<run> dataset=sst2 shots=0,4,16
  epochal evaluate run=outputs/runs/<run> lm_eval=<task>

Bits per byte compare models with different tokenizers, on the same test part; perplexities only those with the same.
"""
OPTIONS = ("sort", "to")
TASK = "language_modeling"
ANSWERING = ("supervised_finetuning", "dpo", "rlhf")  # tasks that make a language model one that answers
BITS, PERPLEXITY = "bits per byte", "perplexity"
FIRST = ("run", "model", "parameters", "data", "tokenizer", BITS, PERPLEXITY)
TEXTS = ("run", "model", "data", "tokenizer")
# of a task's metrics, the one in the table: as in the Open LLM Leaderboard where there are several
ACCURACY = "accuracy"  # of few-shot questions, whose column does not name it
MAIN = (ACCURACY, "acc_norm", "acc", "exact_match", "f1", "bits_per_byte", "word_perplexity")
SMALLER = ("perplexity", "bits_per_byte", "bits per byte", "parameters")  # better when smaller


@dataclass(frozen=True)
class Entry:
    """A language model.

    Attributes:
        record: Its run.
        cells: Text or number by the name of the column.
        more: What the CSV has besides: all metrics of each task, and few-shot accuracies with permuted labels.
    """

    record: Record
    cells: dict[str, Any]
    more: dict[str, float] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> None:
    """Runs the command; a user's mistake ends it with one sentence and exit status 2.

    Args:
        arguments: Those of the command line.
    """
    print_anything()
    if {"-h", "--help"} & set(arguments):
        Console().print(HELP, markup=False, highlight=False, soft_wrap=True, end="")
        return
    try:
        run(arguments, Console())
    except EpochalError as error:
        say(str(error))
        sys.exit(error.exit_status)


def run(arguments: Sequence[str], console: Console) -> list[Entry]:
    """Prints the table and writes it as CSV.

    Raises:
        ConfigError: If an argument is wrong, there is no language model, or the CSV cannot be written.
    """
    paths, options = parse(arguments)
    found = entries(paths or ["outputs/runs"])
    names = columns(found)
    by = options.get("sort", BITS)
    listed = ranked(found, names, by)
    file = Path(options.get("to", "outputs/leaderboard.csv")).expanduser()
    console.print(verbatim(count_text(len(listed), "language model")), style="bold")
    shown = fitting(listed, names, by, console.width)
    console.print(table(listed, shown))
    if len({each.cells["data"] for each in listed}) > 1:
        console.print(
            verbatim("Bits per byte and perplexity compare models on the same data only."), style="dim", highlight=False
        )
    if hidden := [name for name in names if name not in shown]:
        console.print(
            verbatim(f"There is no room for: {', '.join(hidden)}"), style="dim", highlight=False, soft_wrap=True
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, csv_text(listed, names).encode(errors="replace"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); choose another with to=<file>.") from error
    console.print(verbatim(f"\nwrote   {relative(file)}"), soft_wrap=True)
    return listed


def parse(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Paths, and options by name.

    Raises:
        ConfigError: If an option is none of ours or has no value.
    """
    paths, options = list[str](), dict[str, str]()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            raise ConfigError(f"{argument} is no option; {command_line('leaderboard')} --help lists them.")
        if not equals or Path(argument).exists():
            paths.append(argument)
        elif key not in OPTIONS:
            raise ConfigError(f"There is no option {key}.{did_you_mean(key, OPTIONS)} There are: {' '.join(OPTIONS)}")
        elif not value:
            raise ConfigError(f"{key}= has no value.")
        elif key == "to" and Path(value).suffix.lower() != ".csv":
            raise ConfigError(f"to={value} must be the name of a .csv file, as that is what is written.")
        else:
            options[key] = value
    return paths, options


def entries(paths: Sequence[str]) -> list[Entry]:
    """The language models among the runs, except those that failed or were only tried out; of those that answer, what was
    measured by few-shot questions or tasks, as their test part is of another kind.

    Raises:
        ConfigError: If there is none.
    """
    records, _ = scan.read(paths)
    own = [r for r in records if r.value("task.name") in (TASK, *ANSWERING) and r.status != "failed" and not trial(r)]
    found = [entry(record) for record in own]
    kept = [each for each in found if each.record.value("task.name") == TASK or len(each.cells) > len(FIRST)]
    if not kept:
        where = ", ".join(paths)
        raise ConfigError(
            f"There is no run of a language model in {where}; {command_line('train', 'model=gpt dataset=shakespeare')} "
            "makes one."
        )
    return kept


def entry(record: Record) -> Entry:
    """What the folder of a run says of its model."""
    metrics = record.metrics
    cells: dict[str, Any] = {
        "run": record.name,
        "model": record.value("model.name"),
        "parameters": record.value("parameters"),
        "data": record.value("dataset.name"),
        "tokenizer": tokenizer_of(record),
        BITS: metrics.get("test/bits_per_byte"),
        PERPLEXITY: metrics.get("test/perplexity"),
    }
    more: dict[str, float] = {}
    tasks: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in record.evaluated.items():
        task, condition, metric = [*name.split("/"), "", ""][:3]
        if condition.startswith("shots_"):
            tasks.setdefault((task, condition.removeprefix("shots_")), {})[metric] = value
    for (task, shots), metrics in tasks.items():
        if shots.endswith("_permuted"):
            if ACCURACY in metrics:
                more[f"{task} {shots.removesuffix('_permuted')}-shot, permuted labels"] = metrics[ACCURACY]
            continue
        chosen = next(name for name in (*MAIN, *metrics) if name in metrics)
        cells[f"{task} {shots}-shot" + (f" {chosen}" if chosen != ACCURACY else "")] = metrics.pop(chosen)
        more |= {f"{task} {shots}-shot {name}": value for name, value in metrics.items()}
    return Entry(record, cells, more)


def tokenizer_of(record: Record) -> str:
    """What texts are read with: the kind, as init_from may bring another than the config has; of a tokenizer.json its name."""
    asked, kind = str(record.value("dataset.tokenizer") or ""), record.summary.get("tokenizer")
    if kind is None or (kind == "huggingface" and "/" in asked):
        return Path(asked).name
    return str(record.value("model.pretrained") or kind) if kind == "huggingface" else str(kind)


def columns(found: Sequence[Entry]) -> list[str]:
    """Those of all models, and those that any of them has."""
    return [*FIRST, *sorted({name for each in found for name in each.cells} - set(FIRST), key=_by_shots)]


def _by_shots(name: str) -> tuple[str, int, str]:
    task, _, rest = name.rpartition(" ") if name.endswith("-shot") else name.rpartition(" ")[0].rpartition(" ")
    shots = rest.removesuffix("-shot")
    return task, int(shots) if shots.isdecimal() else 0, name


def ranked(found: Sequence[Entry], names: Sequence[str], by: str) -> list[Entry]:
    """Best first by a column; models without a value at the end.

    Raises:
        ConfigError: If there is no such column.
    """
    if by not in names:
        raise ConfigError(f"There is no column {by}.{did_you_mean(by, names)} There are: {', '.join(names)}")
    if by in TEXTS:
        return sorted(found, key=lambda each: str(each.cells[by]))
    sign = 1 if any(word in by for word in SMALLER) else -1

    def order(each: Entry) -> tuple[bool, float]:
        value = usable_number(each.cells.get(by))
        return value is None, 0.0 if value is None else sign * value

    return sorted(found, key=order)


def fitting(listed: Sequence[Entry], names: Sequence[str], by: str, width: int) -> list[str]:
    """As many columns as fit into `width` characters; the run, its data and the column that sorts stay the longest."""
    tasks = [name for name in reversed(names) if name not in FIRST]
    spare = [name for name in ("model", PERPLEXITY, *tasks, "tokenizer", "parameters", "data", BITS) if name != by]
    kept = list(names)
    while spare and sum(_width(name, listed) + 2 for name in kept) > width:
        kept.remove(spare.pop(0))
    return kept


def _width(name: str, listed: Sequence[Entry]) -> int:
    return max(map(cell_width, [*name.split(), *(_cell(name, each.cells.get(name)) for each in listed)]))


def table(listed: Sequence[Entry], names: Sequence[str]) -> Table:
    """The table for the terminal."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        made.add_column(Text(name.replace(" ", "\n")), justify="left" if name in TEXTS else "right", no_wrap=True)
    for each in listed:
        made.add_row(*(verbatim(_cell(name, each.cells.get(name))) for name in names))
    return made


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    known = {BITS: "bits_per_byte", PERPLEXITY: "perplexity", "parameters": "parameters"}.get(name)
    if known is None:
        known = ACCURACY if name.endswith("-shot") else name.rpartition(" ")[2]
    return number_text(find(known).name, value)


def csv_text(listed: Sequence[Entry], names: Sequence[str]) -> str:
    """The table as CSV, with the folder of each run and all that was measured."""
    more = sorted({name for each in listed for name in each.more})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *more, "status", "folder"])
    for each in listed:
        row = [*(each.cells.get(name) for name in names), *(each.more.get(name) for name in more)]
        writer.writerow([*row, each.record.shown_status, relative(each.record.folder)])
    return text.getvalue()
