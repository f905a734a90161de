"""The export command: a run's best weights as a folder that other programs open, with a model card."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console

import epochal
from epochal.config.compose import plain
from epochal.core.errors import ConfigError, did_you_mean
from epochal.core.files import expanded, relative
from epochal.core.format import verbatim
from epochal.core.hub import hub_is_reachable
from epochal.core.specs import Classes, ReservedIds, StepLabels, to_plain
from epochal.data.tokenizers import KINDS, Tokenizer, to_huggingface
from epochal.inference import onnx_graph
from epochal.inference.load import EXPORTED, WEIGHTS, opened
from epochal.inference.model_card import card, portable
from epochal.inference.notebook import LoadedRun
from epochal.models.pretrained.huggingface_names import CLASSES
from epochal.models.pretrained.huggingface_save import save, save_tokenizer
from epochal.training.run_folder import VOLATILE

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
OURS = (*VOLATILE, "callbacks")  # of a config; they say how and where it was trained, and paths of that machine


def export(config: DictConfig, console: Console | None = None) -> Path:
    """Writes the folder, whole or not at all, and uploads it if a repository of the Hub is named; prints where it is.

    Args:
        config: As composed from `conf/export.yaml`.
        console: Where to print.

    Returns:
        The folder.

    Raises:
        ConfigError: If there is no such run or format, its network cannot be written in this format, the folder holds
            something already or cannot be written, or the Hub does not take it.
    """
    console = console or Console()
    write = writer(config.to)
    if config.hub is not None and not REPOSITORY.fullmatch(str(config.hub)):
        raise ConfigError(f"hub={config.hub} is no repository of the Hub; name one as owner/name.")
    saved = opened(config)
    folder = saved.folder / "export" / config.to if config.path is None else expanded(str(config.path)).absolute()
    check_free(folder)
    if config.private is not None and config.hub is None:
        raise ConfigError(
            f"private={str(config.private).lower()} goes with hub=<owner>/<name>, the repository that it is of."
        )
    run = LoadedRun(saved)
    with written_whole(folder) as building, torch.no_grad():
        notes = write(run, building)
        described = json.loads((building / EXPORTED).read_text("utf-8"))
        architecture = next(iter(described.get("architectures", [])), "")
        written = card(run, config.to, notes, str(config.hub or folder.name), architecture)
        (building / "README.md").write_text(written, "utf-8")
        files = ", ".join(sorted(file.name for file in building.iterdir()))
    for note in notes:
        console.print(verbatim(note), highlight=False, soft_wrap=True)
    console.print(verbatim(f"{files} are in\n    {relative(folder)}"), soft_wrap=True)
    if config.hub is not None:
        console.print(
            verbatim(upload(folder, str(config.hub), config.private is not False)), highlight=False, soft_wrap=True
        )
    return folder


def writer(to: Any) -> Callable[[LoadedRun, Path], list[str]]:
    """The function that writes a format into a folder, and returns what the user should know of it.

    Raises:
        ConfigError: If there is no such format.
    """
    if to is None:
        raise ConfigError(f"Which format? Give one of {' '.join(f'to={name}' for name in FORMATS)}.")
    if to not in FORMATS:
        raise ConfigError(
            f"to={to} is no format to export to.{did_you_mean(str(to), FORMATS)} There are: {' '.join(FORMATS)}"
        )
    return FORMATS[to]


def check_free(folder: Path) -> None:
    """Raises ConfigError if the folder, or a file in its place, holds something that would be lost."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if os.path.lexists(folder):
        raise ConfigError(
            f"{relative(folder)} is there already, and nothing is overwritten; give another path=<folder>."
        )


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place at the end, or is removed after an error.

    Raises:
        ConfigError: If it cannot be written.
    """
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    parents = [parent for parent in folder.parents if not parent.exists()]  # the nearest first
    try:
        building.mkdir(parents=True)
        yield building
        if folder.is_dir():  # an empty one
            folder.rmdir()
        os.replace(building, folder)
    except OSError as error:
        raise ConfigError(
            f"{relative(folder)} cannot be written ({error.strerror or error}); choose another with path=<folder>."
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        with suppress(OSError):  # of those that hold something now
            for parent in parents:
                parent.rmdir()


def to_transformers(run: LoadedRun, folder: Path) -> list[str]:
    """What `AutoModel` and `AutoTokenizer` of the library transformers open.

    Raises:
        ConfigError: If it has no such network.
    """
    model: Any = run.model
    if not any(isinstance(model, known) for known in CLASSES.values()):
        raise ConfigError(
            f"to=huggingface goes with {', '.join(CLASSES)}; for model={run.config.model.name} give to=safetensors or to=onnx."
        )
    outputs = run.specs[1]
    labels = outputs.names if isinstance(outputs, Classes | StepLabels) else None
    tokenizer = text_tokenizer(run)
    ids = ReservedIds() if tokenizer is None else tokenizer.ids
    written = None if tokenizer is None else tokenizer_json(run, tokenizer)
    save(model, folder, ids=ids, labels=labels)
    if written is None:
        return ["There is no tokenizer in it: this network reads no text."]
    segments = isinstance(model, CLASSES["bert"])
    save_tokenizer(written, folder, ids=ids, context_length=model.context_length, segments=segments)
    return []


def to_safetensors(run: LoadedRun, folder: Path) -> list[str]:
    """model.safetensors with the tensors under our names, and config.json with all that is needed to use them."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in run.model.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    write_description(run, folder)
    return []


def to_onnx(run: LoadedRun, folder: Path) -> list[str]:
    """model.onnx, config.json that describes it, and the tokenizer.json of a text's tokenizer.

    Raises:
        ConfigError: If the package onnx is missing, or the network cannot be written as a graph.
    """
    graph = onnx_graph.write(run, folder / "model.onnx")
    write_description(run, folder, onnx=graph.described())
    tokenizer = text_tokenizer(run)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer_json(run, tokenizer), "utf-8")
    return [*graph.notes, graph.checked]


FORMATS = {"huggingface": to_transformers, "safetensors": to_safetensors, "onnx": to_onnx}


def text_tokenizer(run: LoadedRun) -> Tokenizer | None:
    """That of the network's texts; None where it reads symbols or images, or has one for each of two languages."""
    found = getattr(run.data, "tokenizer", None)
    return found if type(found) in KINDS.values() else None


def tokenizer_json(run: LoadedRun, tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json that writes texts as the network reads them."""
    return to_huggingface(tokenizer, special_tokens=bool(run.data_state.get("special_tokens")))


def write_description(run: LoadedRun, folder: Path, **more: Any) -> None:
    """Writes config.json: the run's config, what the network reads and gives, and the state of its data."""
    config = {key: value for key, value in plain(run.config).items() if key not in OURS}
    names = getattr(run.specs[1], "names", None)
    described = {"epochal": epochal.__version__, **more, "classes": names}
    described |= {"specs": [to_plain(spec) for spec in run.specs], "data": run.data_state, "config": portable(config)}
    (folder / EXPORTED).write_text(json.dumps(described, indent=2) + "\n", "utf-8")


def upload(folder: Path, repository: str, private: bool) -> str:
    """Uploads a folder to a repository of the Hub, which is made if it is not there; returns a sentence with its address.

    Raises:
        ConfigError: If the Hub cannot be reached, or does not take it; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    left = (
        f"The folder {relative(folder)} is whole, and can be uploaded later: hf upload {repository} {relative(folder)}"
    )
    if not hub_is_reachable():
        raise ConfigError(f"The Hub cannot be reached, so nothing was uploaded. {left}")
    api = HfApi()
    try:
        url = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Exported by Epochal")
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"The Hub does not take {repository}: {reason} (hf auth login signs you in). {left}"
        ) from error
    return f"Uploaded to {url}"
