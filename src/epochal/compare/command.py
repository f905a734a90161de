"""The command line of compare.py, and what train.py shows after a grid."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from epochal.compare import table
from epochal.compare.comparison import Comparison
from epochal.compare.request import Request
from epochal.core.errors import ConfigError, EpochalError, did_you_mean
from epochal.core.files import relative, write_atomically
from epochal.plots.vega import save

HELP = """\
Compares runs: a table (best first), figures, an HTML report, and a verdict where a claim is tested. Run folders are only read.

  python compare.py                                         all of outputs/runs
  python compare.py outputs/runs/*lenet* outputs/runs/*mlp*  some of them
  python compare.py outputs/runs x=model.depth y=train/error group=model.name
                                                            training error by depth, a line a model
  python compare.py outputs/runs x=parameters y=test/error  what size buys
  python compare.py outputs/runs x=epoch y=val/loss         learning curves
  python compare.py experiment=depth_degradation            a claim of conf/experiment, its figures and its verdict
  python compare.py experiment=depth_degradation budget=cpu its runs of one size
  python compare.py --live                                  a page that follows the runs as they go on

Choose (key=value); what is left out is chosen to fit the runs:

  x=NAME       step, epoch, examples, seconds (learning curves); a key (model.depth); parameters, flops; a metric
  y=NAME       a metric (val/loss, test/accuracy, train/error = 1 - accuracy ...), or seconds, examples_per_second ...
  group=NAMES  keys, with commas between them: a line or a bar for each of their values
  experiment=NAME budget=NAME
  output_dir=FOLDER  where runs are (outputs)
  to=FOLDER    where the report goes (outputs/comparisons/<what was given>)
  port=NUMBER  of --live (8000)

How a verdict is found: docs/verdicts.md
"""
OPTIONS = ("x", "y", "group", "experiment", "budget", "output_dir", "to", "port")
FLAGS = ("--live", "--publish", "--help", "-h")
PORT = 8000
MOST_FIGURES = 6  # written as files; the page has all


@dataclass(frozen=True)
class Arguments:
    """The command line: what to compare, and what to do with it."""

    request: Request
    live: bool = False
    publish: bool = False
    port: int = PORT


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; what a person did wrong ends in one sentence and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets question marks, no traceback
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given):
        Console().print(HELP, markup=False, highlight=False, soft_wrap=True)
        return
    try:
        run(parse(given), Console())
    except EpochalError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(error.exit_status)


def run(arguments: Arguments, console: Console) -> None:
    """Prints the comparison and writes its report; or serves it; or publishes it too.

    Raises:
        ConfigError: If no run is found, or a name is none of theirs.
    """
    comparison = arguments.request.compare()
    if arguments.live:
        from epochal.compare.report import live

        def refresh() -> Comparison:
            nonlocal comparison
            comparison = arguments.request.compare(comparison.records)
            return comparison

        live.serve(refresh, arguments.port, console)
        return
    table.show(comparison, console)
    report(comparison, console)
    if arguments.publish:
        from epochal.compare.report import wandb_report

        wandb_report.publish(comparison, console)


def compare_experiment(name: str, budget: str | None, output_dir: Path, console: Console) -> Comparison:
    """Shows what an experiment's runs say of its claim, and writes the report; what train.py does after the last run."""
    comparison = Request(experiment=name, budget=budget, output_dir=str(output_dir)).compare()
    console.print()
    table.show(comparison, console)
    report(comparison, console)
    return comparison


def compare_runs(folders: Sequence[Path], console: Console) -> None:
    """Shows the table of some runs that have just ended, and how to see more of them."""
    comparison = Request(paths=tuple(map(str, folders))).compare()
    console.print()
    table.show(comparison, console)
    parents = sorted({relative(folder.parent) for folder in folders})
    console.print(
        f"\n[dim]Figures and a page of these and others:  python compare.py {escape(' '.join(parents))}[/]",
        soft_wrap=True,
    )


def report(comparison: Comparison, console: Console) -> None:
    """Writes table, figures and page into the comparison's folder, and says where they are.

    Raises:
        ConfigError: If it cannot be written.
    """
    from epochal.compare import figures
    from epochal.compare.report import page

    folder, pictures = comparison.folder, list[Path]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "table.csv", table.csv_text(comparison).encode(errors="replace"))
        for number, plot in enumerate(comparison.plots[:MOST_FIGURES], start=1):
            pictures += save(figures.figure(comparison, plot), folder, figures.stem(number, plot))
        written = page.write(comparison, folder / "report.html")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); choose another with to=<folder>.") from error
    console.print()
    for what, path in (("page", written), *(("figure", path) for path in pictures if path.suffix == ".png")):
        console.print(f"{what:8}{escape(relative(path))}", soft_wrap=True, highlight=False)


def parse(arguments: Sequence[str]) -> Arguments:
    """Reads the command line.

    Raises:
        ConfigError: If an argument is neither a path nor one of the options.
    """
    paths, options, flags = [], dict[str, str](), set()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            if argument not in FLAGS:
                raise ConfigError(
                    f"{argument} is no option.{did_you_mean(argument, FLAGS)} There are: --live --publish --help"
                )
            flags.add(argument)
        elif not equals or (key not in OPTIONS and os.path.exists(argument)):
            paths.append(argument)
        elif key not in OPTIONS:
            raise ConfigError(f"There is no option {key}.{did_you_mean(key, OPTIONS)} There are: {' '.join(OPTIONS)}")
        elif not value:
            raise ConfigError(f"{key}= has no value.")
        else:
            options[key] = value
    port = options.pop("port", str(PORT))
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"port={port} is no port; give a number from 1024 to 65535.")
    group = options.pop("group", None)
    names = None if group is None else tuple(name for name in group.split(",") if name)
    request = Request(paths=tuple(paths), group=names, **options)
    return Arguments(request, "--live" in flags, "--publish" in flags, int(port))
