"""The model card of an exported network: README.md, made from the run's config.yaml, overrides.yaml and summary.json."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from typing import Any

from epochal.core.format import number_text
from epochal.core.metrics import find, metric_label
from epochal.core.protocols import HEADS
from epochal.core.specs import describe
from epochal.inference.notebook import LoadedRun
from epochal.training.run_folder import VOLATILE, Run
from epochal.training.warm_start import TRAINED, named_runs

COSTS = ("parameters", "flops", "steps", "epochs", "seconds", "peak_memory_mb")
USE = {
    "huggingface": """\
from transformers import AutoTokenizer, {architecture}  # AutoModel gives the body, without its head

model, tokenizer = {architecture}.from_pretrained("{name}"), AutoTokenizer.from_pretrained("{name}")
""",
    "safetensors": """\
import epochal  # or read model.safetensors with the library safetensors

run = epochal.load("{name}")
run.model  # a torch.nn.Module with these weights
""",
    "onnx": """\
import onnxruntime

session = onnxruntime.InferenceSession("{name}/model.onnx")
[(each.name, each.type, each.shape) for each in session.get_inputs()]
""",
}


def card(run: LoadedRun, to: str, notes: list[str], name: str, architecture: str = "") -> str:
    """The text of README.md.

    Args:
        run: What is exported.
        to: The format.
        notes: Sentences about this format.
        name: Of the folder, or of the repository of the Hub.
        architecture: The class of transformers that opens it with its head.
    """
    config, summary = run.config, run.summary
    title = f"{config.model.name} on {config.dataset.name}"
    reads, gives = (describe(spec) for spec in run.specs)
    head = HEADS.get(getattr(run.model, "head_name", ""), "")
    lines = [*_header(run, to), f"# {title}", ""]
    lines += [
        f"A network of the architecture `{config.model.name}` (class `{type(run.model).__name__}` of Epochal) that learned "
        f"{config.task.name.replace('_', ' ')} on the data set `{config.dataset.name}`.",
        "",
        f"It reads {reads} and gives {', from '.join(part for part in (head, gives if gives != reads else '') if part)}.",
    ]
    if names := getattr(run.specs[1], "names", None):
        lines += ["", f"Classes, in the order of its outputs: {', '.join(names)}."]
    lines += ["", "## Use", "", "```python", USE[to].format(name=name, architecture=architecture).rstrip(), "```"]
    lines += ["", *notes] if notes else []
    lines += ["", "## Data", "", *_data(run, summary), "", "## Results", "", *_results(summary), "", "## Cost", ""]
    lines += [*_cost(summary), "", "## How it was made", "", *_made(run, summary)]
    return "\n".join(lines) + "\n"


def portable(value: Any) -> Any:
    """The same with the last part of each absolute path: where files lay on one machine concerns nobody else."""
    if isinstance(value, dict):
        return {key: portable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [portable(part) for part in value]
    return os.path.basename(value.rstrip("/\\")) if isinstance(value, str) and os.path.isabs(value) else value


def command(run: LoadedRun) -> str:
    """The command that trains such a network again."""
    kept = [each for each in Run(run.folder).overrides() if each.partition("=")[0].lstrip("+~") not in VOLATILE]
    words = []
    for override in kept:
        key, equals, value = override.partition("=")
        words.append(shlex.quote(f"{key}{equals}{portable(value)}"))
    seed = [] if any(each.startswith("seed=") for each in kept) else [f"seed={run.config.seed}"]
    return " ".join(["epochal train", *words, *seed])


def _header(run: LoadedRun, to: str) -> list[str]:
    """The lines of YAML that the Hub reads."""
    library = {"huggingface": "transformers", "safetensors": "epochal", "onnx": "onnx"}[to]
    tags = ["epochal", *dict.fromkeys((run.config.model.name, run.config.task.name, run.config.dataset.name))]
    return ["---", f"library_name: {library}", "tags:", *(f"- {json.dumps(str(tag))}" for tag in tags), "---", ""]


def _data(run: LoadedRun, summary: dict[str, Any]) -> Iterator[str]:
    source = portable(run.config.dataset.get("path"))
    yield f"- data set: `{run.config.dataset.name}`" + (f", from `{source}`" if source else "")
    sizes = summary.get("sizes") or {}
    if sizes:
        yield f"- rows: {', '.join(f'{count:,} {split}' for split, count in sizes.items())}"
    if fingerprint := summary.get("data_fingerprint"):
        yield f"- fingerprint: `{fingerprint}`"
    state = run.data_state
    if "mean" in state and "std" in state:
        mean, std = (", ".join(f"{value:.4g}" for value in state[key]) for key in ("mean", "std"))
        yield f"- of pixels in [0, 1] the mean {mean} was subtracted, and the rest divided by {std}"
    if "tokenizer" in state:
        yield f"- tokenizer: {state['tokenizer']}, {getattr(run.specs[0], 'vocab_size', 0):,} tokens"


def _results(summary: dict[str, Any]) -> Iterator[str]:
    metrics = summary.get("metrics") or {}
    found = {name: value for split in ("test/", "val/") for name, value in metrics.items() if name.startswith(split)}
    found = {name: value for name, value in found.items() if value is not None}
    if not found:
        yield "The run was not tested." if summary else "Not known."
        return
    yield from ("| | |", "|---|---|")
    yield from (f"| {metric_label(name)} | {number_text(name, value)} |" for name, value in found.items())


def _cost(summary: dict[str, Any]) -> Iterator[str]:
    known = [name for name in COSTS if summary.get(name) is not None]
    if not known:
        yield "Not known."
        return
    yield from ("| | |", "|---|---|")
    for name in known:
        unit = find(name).unit
        yield f"| {metric_label(name)}{f' ({unit})' if unit else ''} | {number_text(name, summary[name])} |"


def _made(run: LoadedRun, summary: dict[str, Any]) -> Iterator[str]:
    yield from ("```sh", command(run), "```", "")
    status = summary.get("status")
    if status and status != "finished":
        yield f"- the run is {status}: these are its best weights so far"
    if commit := summary.get("git_commit"):
        yield f"- commit `{commit.rstrip('+')}`" + (", with changed files" if commit.endswith("+") else "")
    if versions := summary.get("versions"):
        yield f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}"
    if origin := run.config.get("init_from"):
        for network, folder in named_runs(origin).items():
            of = "" if network == TRAINED else f" (its {network})"
            yield f"- began with the weights of the run `{portable(str(folder))}`{of}"
    if pretrained := run.config.model.get("pretrained"):
        yield f"- began with the published weights `{portable(str(pretrained))}`"
