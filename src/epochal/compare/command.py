"""The compare command, the function for notebooks, and the table that train.py shows after a grid."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from epochal.compare import table
from epochal.compare.comparison import Comparison
from epochal.compare.request import Request
from epochal.core.errors import ConfigError, EpochalError, did_you_mean
from epochal.core.files import relative, write_atomically
from epochal.core.format import print_anything, say, verbatim
from epochal.core.program import command_line
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
  python compare.py experiment=depth_degradation --docs     its section of docs/claims.md, made from the runs
  python compare.py docs/records/<experiment>.csv           the runs that the repository keeps of it, judged again
  python compare.py --live                                  a page that follows the runs as they go on

Choose (key=value); what is left out is chosen to fit the runs:

  x=NAME       step, epoch, examples, seconds (learning curves); a key (model.depth); parameters, flops; a metric
  y=NAME       a metric (val/loss, test/accuracy, train/error = 1 - accuracy ...), or seconds, examples_per_second ...
  group=NAMES  keys, with commas between them: a line or a bar for each of their values
  experiment=NAME budget=NAME
  output_dir=FOLDER  where runs are (outputs)
  to=FOLDER    where the report goes (outputs/comparisons/<what was given>)
  port=NUMBER  of --live (8000); 0 takes a free one

How a verdict is found: docs/verdicts.md
"""
OPTIONS = ("x", "y", "group", "experiment", "budget", "output_dir", "to", "port")
WORD = re.compile(r"\w+", re.ASCII)  # an option; with other signs before the = it is a path or pattern
FLAGS = ("--live", "--publish", "--docs", "--help", "-h")
PORT = 8000
MAX_FIGURES = 6  # written as files; the page has all


@dataclass(frozen=True)
class Arguments:
    """The parsed command line."""

    request: Request
    live: bool = False
    publish: bool = False
    docs: bool = False
    port: int = PORT


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; a user's mistake ends it with one sentence and exit status 2.

    Args:
        arguments: Those of the command line; None for `sys.argv`.
    """
    print_anything()
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given):
        Console().print(
            HELP.replace("python compare.py", command_line("compare")), markup=False, highlight=False, soft_wrap=True
        )
        return
    try:
        run(parse(given), Console())
    except EpochalError as error:
        say(str(error))
        sys.exit(error.exit_status)


def run(arguments: Arguments, console: Console) -> None:
    """Prints the comparison and writes its report, and publishes it with --publish; or serves it with --live.

    Raises:
        ConfigError: If no run is found, or no run has a value by one of the names.
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
    show(comparison, console)
    if arguments.docs:
        from epochal.compare.report import docs

        for path in docs.write(comparison, Path("docs")):
            console.print(verbatim(f"{'wrote':8}{relative(path)}"), soft_wrap=True)
    if arguments.publish:
        from epochal.compare.report import wandb_report

        wandb_report.publish(comparison, console)


def compare(
    *paths: str | Path,
    x: str | None = None,
    y: str | None = None,
    group: str | Sequence[str] | None = None,
    experiment: str | None = None,
    budget: str | None = None,
    output_dir: str | Path = "outputs",
    to: str | Path | None = None,
) -> Comparison:
    """Compares runs as the command does: prints the table, writes the report, and returns the comparison.

    Args:
        paths: Run folders, folders of them, or patterns; none for the experiment's folder, or `runs`, in `output_dir`.
        x: step, epoch, examples, seconds (learning curves), a config key, a cost or a metric; None chooses.
        y: A metric or cost; None chooses.
        group: Config keys: a line or bar for each of their values. None chooses.
        experiment: Whose claim is tested, of conf/experiment.
        budget: The size of its runs; None for the experiment's default.
        output_dir: Where runs are.
        to: Folder of the report; None for one in `output_dir`/comparisons.

    Raises:
        ConfigError: If no run is found, no run has a value by one of the names, or the report cannot be written.
    """
    comparison = Request(
        paths=tuple(map(str, paths)),
        x=x,
        y=y,
        group=(group,) if isinstance(group, str) else None if group is None else tuple(group),
        experiment=experiment,
        budget=budget,
        output_dir=str(output_dir),
        to=None if to is None else str(to),
    ).compare()
    show(comparison, Console())
    return comparison


def show(comparison: Comparison, console: Console) -> None:
    """Prints the table and writes the report.

    Raises:
        ConfigError: If the report cannot be written.
    """
    table.show(comparison, console)
    report(comparison, console)


def compare_experiment(name: str, budget: str | None, output_dir: Path, console: Console) -> Comparison:
    """Tests an experiment's claim on its runs, and writes the report; train.py calls it after the last run."""
    comparison = Request(experiment=name, budget=budget, output_dir=str(output_dir)).compare()
    console.print()
    show(comparison, console)
    return comparison


def compare_runs(folders: Sequence[Path], console: Console) -> None:
    """Prints the table of runs that have just ended, and the command that shows more."""
    comparison = Request(paths=tuple(map(str, folders))).compare()
    console.print()
    table.show(comparison, console)
    parents = sorted({relative(folder.parent) for folder in folders})
    line = command_line("compare", shlex.join(parents))
    console.print(verbatim((f"\nFigures and a page of these and others:  {line}", "dim")), soft_wrap=True)


def report(comparison: Comparison, console: Console) -> None:
    """Writes the table, figures and page into the comparison's folder, and prints their paths.

    Raises:
        ConfigError: If it cannot be written.
    """
    from epochal.compare import figures
    from epochal.compare.report import page

    folder, pictures = comparison.folder, list[Path]()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "table.csv", table.csv_text(comparison).encode(errors="replace"))
        for number, plot in enumerate(comparison.plots[:MAX_FIGURES], start=1):
            pictures += save(figures.figure(comparison, plot), folder, figures.stem(number, plot))
        written = page.write(comparison, folder / "report.html")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); choose another with to=<folder>.") from error
    console.print()
    for what, path in (("page", written), *(("figure", path) for path in pictures if path.suffix == ".png")):
        console.print(verbatim(f"{what:8}{relative(path)}"), soft_wrap=True)


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses the command line.

    Raises:
        ConfigError: If an argument is neither a path nor one of the options.
    """
    paths, options, flags = [], dict[str, str](), set()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            if argument not in FLAGS:
                raise ConfigError(
                    f"{argument} is no option.{did_you_mean(argument, FLAGS)} There are: --live --publish --docs --help"
                )
            flags.add(argument)
        elif not equals or (key not in OPTIONS and (os.path.exists(argument) or not WORD.fullmatch(key))):
            paths.append(argument)
        elif key not in OPTIONS:
            raise ConfigError(f"There is no option {key}.{did_you_mean(key, OPTIONS)} There are: {' '.join(OPTIONS)}")
        elif not value:
            raise ConfigError(f"{key}= has no value.")
        else:
            options[key] = value
    port = options.pop("port", str(PORT))
    if not port.isdecimal() or not int(port) < 65536:
        raise ConfigError(f"port={port} is no port; give a number from 1024 to 65535, or 0 for a free one.")
    group = options.pop("group", None)
    names = None if group is None else tuple(name for name in group.split(",") if name)
    request = Request(paths=tuple(paths), group=names, **options)
    return Arguments(request, "--live" in flags, "--publish" in flags, "--docs" in flags, int(port))
