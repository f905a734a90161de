"""A run's best weights, tested again: on the data it was trained on, or on other data."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from torch import Tensor

from epochal.config.instantiate import target_class
from epochal.config.schema import unknown_arguments, wrong_numbers
from epochal.config.validate import wrong_precision
from epochal.core.errors import ConfigError
from epochal.core.files import relative, slug, write_atomically
from epochal.core.format import number_text, verbatim
from epochal.core.multirun import typed_alone
from epochal.core.specs import Classes, Inputs, Outputs, StepLabels, describe
from epochal.data import DataModule
from epochal.data.datamodule import SPLITS
from epochal.inference import load
from epochal.inference.few_shot import few_shot, labelled_data, shots_of
from epochal.inference.generate import print_response, set_options
from epochal.inference.load import SavedRun
from epochal.tasks import LanguageModeling, Task
from epochal.tasks.visuals import explain
from epochal.training.console import rows_table, show_examples, show_texts
from epochal.training.factories import make_data, new_data
from epochal.training.loggers.files import save_artifacts
from epochal.training.resume import trained_on
from epochal.training.run_folder import Run
from epochal.training.trainer import check_limits, make_trainer, on_one_device

# settings that stay as in training when the run is tested on other data, unless they are typed: windows, order of pixels, parts
KEPT = ("context_length", "max_length", "eval_batch_size", "permuted", "split_seed")
DRAWING = ("temperature", "top_k", "top_p", "sample_length", "samples", "beam_size")
TESTING = ("carry_state", "features", "explain", "images")
UNREAD = {  # what an evaluation of a kind does not read, by the option that chooses it
    "lm_eval": ("prompt", *DRAWING, *TESTING, "label_words"),  # what it writes is as the task says
    "shots": ("prompt", *DRAWING, *TESTING),
    "prompt": (*TESTING, "label_words", "dataset"),
}
SHOWN = 5  # classes in a message
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")  # the name of a class that has none


@dataclass
class Rebuilt:
    """A run's task with its best weights, the data to test it on, and the folder for what is found.

    Attributes:
        notes: Sentences that the user should read beside the result, such as how the classes were matched.
    """

    config: DictConfig
    task: Task
    data: DataModule
    trainer: pl.Trainer
    folder: Path
    notes: list[str]


def evaluate(config: DictConfig, console: Console | None = None, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Tests, prints, and writes metrics, tables and pictures to `<run>/evaluation/<data set>/`.

    With a prompt it prints what the network writes for it, and tests and writes nothing.

    Args:
        config: As composed from `conf/evaluate.yaml`.
        console: Where to print.
        overrides: As typed.

    Returns:
        The metrics; none with a prompt.

    Raises:
        ConfigError: If the folder or file is no run's, the other data does not fit its model, or the network cannot
            write for the prompt.
    """
    console = console or Console()
    check_all_read(config)
    if config.lm_eval is not None:
        return evaluate_tasks(config, console)
    if config.shots is not None:
        return evaluate_few_shot(config, console, overrides)
    if config.label_words is not None:
        raise ConfigError("label_words goes with shots, e.g. shots=0,4: it is what stands for the classes in a prompt.")
    rebuilt = rebuild(config, overrides)
    task, data = rebuilt.task, rebuilt.data
    for note in rebuilt.notes:
        console.print(verbatim(note), highlight=False, soft_wrap=True)
    if config.prompt is not None:
        task.trainer, rebuilt.trainer.datamodule = rebuilt.trainer, data  # type: ignore[attr-defined]  # as in a test
        task.to(rebuilt.trainer.strategy.root_device).eval()
        print_response(task, str(config.prompt), console)
        return {}
    images = images_to_explain(config, task, data)
    rebuilt.trainer.test(task, datamodule=data, verbose=False)
    metrics = task.measured
    if images:
        task.artifacts.pictures |= explain.explain(task.model, data, images)
    show(rebuilt, metrics, console)
    tell_files(rebuilt, write(rebuilt, metrics), console)
    return metrics


def check_all_read(config: DictConfig) -> None:
    """Raises ConfigError if an option was given that this kind of evaluation does not read."""
    kind = next((option for option in UNREAD if config.get(option) is not None), None)
    for option in UNREAD.get(kind or "", ()):
        if config.get(option) is not None and config[option] is not False:
            raise ConfigError(f"{option} is not read with {kind}: leave one of the two out.")


def tell_files(rebuilt: Rebuilt, files: Sequence[Path], console: Console) -> None:
    """Prints which files were written, and where."""
    written = ", ".join(file.name for file in files)
    console.print(verbatim(f"\n{written} are in\n    {relative(rebuilt.folder)}"), soft_wrap=True)


def evaluate_few_shot(config: DictConfig, console: Console, overrides: Sequence[str]) -> dict[str, float]:
    """Classifies texts by examples in the prompt of a language model, prints and writes the accuracies.

    Raises:
        ConfigError: If the run learned no language model, or the prompts cannot be made.
    """
    shots, saved = shots_of(config), opened(config)
    task: Task = saved.task().eval()
    if not isinstance(task, LanguageModeling):
        raise ConfigError(f"shots goes with a language model; this run learned {saved.config.task.name}.")
    running = new_data(saved.config, saved.data).prompt is not None
    if config.get("dataset") is not None:
        choose_data(saved, config, overrides)
    data = labelled_data(saved)
    trainer = make_trainer(saved.config, task, logger=False, enable_checkpointing=False)
    device = trainer.strategy.root_device
    given = [config.label_words] if isinstance(config.label_words, str | int | float) else config.label_words
    words = None if given is None else [str(word) for word in given]
    metrics, task.artifacts = few_shot(task.model.to(device), data, shots, words, device, running=running)
    rebuilt = Rebuilt(
        saved.config, task, data, trainer, saved.folder / "evaluation" / f"{slug(data.name)}_few_shot", []
    )
    show(rebuilt, metrics, console)
    tell_files(rebuilt, write(rebuilt, metrics, table="by_shots.csv"), console)
    return metrics


def evaluate_tasks(config: DictConfig, console: Console) -> dict[str, float]:
    """Runs tasks of lm-evaluation-harness on a language model, prints and writes what they measure.

    Raises:
        ConfigError: If the run learned no language model, or a task cannot be run.
    """
    from epochal.inference.harness import run_tasks

    if config.get("dataset") is not None:
        raise ConfigError("lm_eval brings its own data; leave dataset out.")
    saved = opened(config)
    task: Task = saved.task().eval()
    if not isinstance(task, LanguageModeling):
        raise ConfigError(f"lm_eval goes with a language model; this run learned {saved.config.task.name}.")
    data = new_data(saved.config, saved.data)
    data.restore(saved.inputs, saved.outputs)
    trainer = make_trainer(saved.config, task, logger=False, enable_checkpointing=False)
    device, folder = trainer.strategy.root_device, saved.folder / "evaluation" / "lm_eval"
    metrics = run_tasks(config, task.model.to(device), data, device, folder)
    title = f"{saved.config.model.name}, tasks of lm-evaluation-harness"
    console.print(metrics_panel(metrics, title))
    console.print(verbatim(f"\nA file for each task is in\n    {relative(folder)}"), soft_wrap=True)
    return metrics


def metrics_panel(metrics: Mapping[str, float], title: str) -> Panel:
    """Metrics by name, to be printed."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in metrics.items():
        table.add_row(verbatim(name), f"[bold]{number_text(name, value)}[/]")
    return Panel(table, title=verbatim(title), title_align="left", expand=False, border_style="cyan")


def show(rebuilt: Rebuilt, metrics: Mapping[str, float], console: Console) -> None:
    """Prints metrics, the table by class, examples and texts."""
    title = f"{rebuilt.config.model.name} on the test part of {rebuilt.config.dataset.name}"
    console.print(metrics_panel(metrics, title))
    artifacts = rebuilt.task.artifacts
    if artifacts.table:
        console.print(rows_table(artifacts.table))
    show_examples(console, rebuilt.task)
    show_texts(console, artifacts.texts)


def write(rebuilt: Rebuilt, metrics: Mapping[str, float], table: str = "per_class.csv") -> list[Path]:
    """Writes `metrics.json`, a table by this name where there is one, pictures and texts.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    folder, artifacts = rebuilt.folder, rebuilt.task.artifacts
    files = [folder / "metrics.json"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = save_artifacts(artifacts, folder, stem="{}")
        write_atomically(files[0], json.dumps(metrics, indent=2) + "\n")
        if artifacts.table:
            files.append(folder / table)
            with files[-1].open("w", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(artifacts.table)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); only the table above is left.") from error
    return [*files, *pictures]


def rebuild(config: DictConfig, overrides: Sequence[str] = ()) -> Rebuilt:
    """The run that `run` or `checkpoint` names, with its own data or the `dataset` that was chosen.

    Raises:
        ConfigError: If the folder or file is no run's, its data changed, or the other data does not fit its model.
    """
    saved = opened(config)
    set_options(saved.config, config)
    other = config.get("dataset") is not None
    if other:
        choose_data(saved, config, overrides)
    data = make_data(
        saved.config, saved.data, typed_alone(overrides)
    )  # pixels are normalised and text is tokenized as in training
    inputs, outputs = data.specs(data.learns)
    notes = [] if other or config.prompt is not None else check_unchanged(saved, data, outputs)
    check_specs(saved, inputs, outputs)
    check_limits(config, data, ("test",))
    if other:
        notes = match_classes(saved, data, outputs)
    if config.checkpoint is None and config.run == "latest":
        notes.insert(0, f"The newest finished run is {relative(saved.folder)}.")
    task = saved.task(None if config.prompt is not None else data)
    notes += task.notes(data)
    trainer = make_trainer(saved.config, task, logger=False, enable_checkpointing=False)
    return Rebuilt(saved.config, task, data, trainer, saved.folder / "evaluation" / slug(str(data.name)), notes)


def opened(config: DictConfig) -> SavedRun:
    """The run that `run` or `checkpoint` names, to be tested by the trainer that was chosen.

    Raises:
        ConfigError: If the folder or file is no run's, or the trainer cannot test.
    """
    check_trainer(config)
    saved = load.opened(config)
    saved.config.trainer = config.trainer
    return saved


def check_trainer(config: DictConfig) -> None:
    """Raises ConfigError if the trainer cannot test: an argument is unknown, out of range or for a training."""
    wrong = [line for line in wrong_numbers(config) if line.startswith("trainer.")]
    wrong += [*unknown_arguments(config, "trainer"), *wrong_precision(config)]
    if config.trainer.limit_test_batches == 0 and config.prompt is None:
        wrong.append("trainer.limit_test_batches=0 leaves nothing to test.")
    if not on_one_device(config):
        wrong.append("A run is tested on one device; leave trainer.devices and trainer.num_nodes out.")
    if wrong:
        raise ConfigError("\n".join(wrong))


def choose_data(saved: SavedRun, config: DictConfig, overrides: Sequence[str]) -> None:
    """Puts other data into the config of a run.

    Raises:
        ConfigError: If it yields inputs of another kind than the model reads, or a number is out of range.
    """
    other = config.dataset
    if wrong := list(wrong_numbers(config)):
        raise ConfigError("\n".join(wrong))
    reads, yields = type(saved.inputs), target_class(other._target_).yields
    if yields is not reads:
        raise ConfigError(
            f"model={saved.config.model.name} was trained on {reads.__name__.lower()}, "
            f"but dataset={other.name} yields {yields.__name__.lower()}."
        )
    typed = typed_alone(overrides)
    own = {
        key: saved.config.dataset[key]
        for key in KEPT
        if key in saved.config.dataset and key in other and f"dataset.{key}" not in typed
    }
    saved.config.dataset = OmegaConf.merge(other, own, {"batch_size": 1})


def check_unchanged(saved: SavedRun, data: DataModule, outputs: Outputs) -> list[str]:
    """Compares the run's own data with what it learned from.

    Returns:
        What the user should know: that nothing is known of it.

    Raises:
        ConfigError: If the data changed since: rows that it learned from could be in the test part.
    """
    known = trained_on(Run(saved.folder), saved.checkpoint)
    same_classes = not isinstance(outputs, Classes | StepLabels) or outputs == saved.outputs
    if known in (None, data.fingerprint) and same_classes:
        unknown = "This checkpoint does not tell which data it learned from, so the test part may hold some of it."
        return [unknown] if known is None else []
    name = saved.config.dataset.name
    path = " dataset.path=<file or folder>" if saved.config.dataset.get("path") else ""
    raise ConfigError(
        f"The data of dataset={name} changed since {saved.folder.name} began, so its test part may hold what the run "
        f"learned from. Put the old data back, or test the run on data that it never saw, with dataset={name}{path}."
    )


def check_specs(saved: SavedRun, inputs: Inputs, outputs: Outputs) -> None:
    """Raises ConfigError where data is of other sizes than the model reads, or has another number of classes."""
    name = saved.config.dataset.name
    if inputs != saved.inputs:
        raise ConfigError(f"The model reads {describe(saved.inputs)}, but dataset={name} yields {describe(inputs)}.")
    if type(outputs) is not type(saved.outputs):
        raise ConfigError(f"The model gives {describe(saved.outputs)}, but dataset={name} has {describe(outputs)}.")


def match_classes(saved: SavedRun, data: DataModule, outputs: Outputs) -> list[str]:
    """Numbers the classes of other data as the run does: by their names, or by position where one has no names.

    Returns:
        What the user should know of it, if anything.

    Raises:
        ConfigError: If they are not the same classes.
    """
    trained, name = saved.outputs, saved.config.dataset.name
    if not isinstance(trained, Classes | StepLabels) or not isinstance(outputs, Classes | StepLabels):
        return []
    ours, theirs = trained.names, outputs.names
    unnamed = any(all(map(NUMBER.fullmatch, names)) for names in (ours, theirs))
    if len(theirs) != len(ours) and (unnamed or set(theirs) < set(ours)):
        raise ConfigError(f"The model tells {len(ours)} classes apart, but dataset={name} has {len(theirs)}.")
    if theirs == ours:
        return ["The classes have no names, only numbers: they are matched by number."] if unnamed else []
    if len(set(ours)) == len(ours) and set(theirs) == set(ours):
        renumber(data, torch.tensor([ours.index(word) for word in theirs]))
        data.classes = trained  # type: ignore[attr-defined]  # pictures and tables take names from it
        return ["The classes of the data are in another order than the run's: they are matched by name."]
    if unnamed:
        pairs = ", ".join(f"{there} is {here}" for here, there in zip(ours[:SHOWN], theirs))
        more = f" and {len(ours) - SHOWN} more" if len(ours) > SHOWN else ""
        return [f"Not all classes have names: those of dataset={name} are matched by position ({pairs}{more})."]
    unknown, missing = (_some([w for w in a if w not in b]) for a, b in ((theirs, ours), (ours, theirs)))
    lacks = f", and it lacks {missing}" if missing else ""
    raise ConfigError(
        f"The classes of dataset={name} are not those of the model: it does not know {unknown}{lacks}. Give data with "
        "the classes that it learned."
    )


def renumber(data: DataModule, numbers: Tensor) -> None:
    """Replaces each label by its entry in numbers (K,), in every split.

    Raises:
        ConfigError: If the data keeps no labels that can be replaced.
    """
    for split in SPLITS:
        rows = data.rows(split)[0]
        if not isinstance(getattr(rows, "labels", None), Tensor):
            raise ConfigError(f"dataset={data.name} has the model's classes in another order; give them in the same.")
        rows.labels = numbers[rows.labels]  # type: ignore[attr-defined]


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def images_to_explain(config: DictConfig, task: Task, data: DataModule) -> list[int]:
    """Numbers of test images; none where nothing is to be explained.

    Raises:
        ConfigError: If there is nothing to show of the network, or an image is none of the test part.
    """
    if not isinstance(config.explain, bool):
        raise ConfigError(f"explain={config.explain} must be true or false.")
    if not config.explain:
        if config.images is not None:
            raise ConfigError("images goes with explain=true, which shows how the network sees them.")
        return []
    explain.check(task)
    return explain.choose_images(data, config.images)
