"""Every test has folders of its own, no network, and one thread; `command` runs an entry point in this process."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.samples import image_folder, text_file

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status, what it printed and what it complained of."""

    status: int
    out: str
    error: str


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EPOCHAL_DATA", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("epochal.config.compose._own_folders", ())
    monkeypatch.setattr(sys, "argv", ["train.py"])  # messages name the commands as in a checkout
    torch.set_num_threads(1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`command("train", "model=mlp")` is `python train.py model=mlp logger=none`, without a new process; a command that
    has no script, `epochal export`, is run by its name."""

    def run(script: str, *arguments: str) -> Outcome:
        module = importlib.import_module("epochal.cli")
        named = [script, *arguments]
        if (ROOT / f"{script}.py").exists():
            spec = importlib.util.spec_from_file_location(script, ROOT / f"{script}.py")
            assert spec is not None and spec.loader is not None
            module, named = importlib.util.module_from_spec(spec), [f"{script}.py", *arguments]
            spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", named if module.__name__ == script else ["epochal", *named])
        capsys.readouterr()
        status = 0
        try:
            module.main()
        except SystemExit as ending:
            status = ending.code if isinstance(ending.code, int) else 1
        return Outcome(status, *capsys.readouterr())

    return run


@pytest.fixture
def refuse(command: Callable[..., Outcome], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must end in a sentence with these words and status 2, leaving everything as it was."""

    def check(script: str, *arguments: str, says: Iterable[str], lines: int = 1) -> str:
        before = files(tmp_path)
        outcome = command(script, *arguments)
        assert outcome.status == 2, outcome
        assert "Traceback" not in outcome.error
        for words in says:
            assert words in outcome.error
        assert len(outcome.error.strip().splitlines()) == lines, outcome.error
        assert outcome.out == ""
        new = {path for path in files(tmp_path) - before if not path.name.endswith(".lock")}
        new -= {
            p for p in new if p.name in ("outputs", "runs") and not any(p.rglob("*_*"))
        }  # the place for run folders
        cache = Path(os.environ["EPOCHAL_CACHE"])
        whole = {path for path in new if path == cache or any((p / "meta.json").exists() for p in (path, path.parent))}
        assert new == whole, f"left behind: {new - whole}"
        return outcome.error

    return check


def files(folder: Path) -> set[Path]:
    """All that is in it, hidden files too."""
    return set(folder.rglob("*"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folders of two small finished runs, "images" and "text"; to be copied, not changed."""
    from helpers.training import train

    folder = tmp_path_factory.mktemp("trained")
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
        patch.delenv("EPOCHAL_DATA", raising=False)
        text = text_file(folder / "text.txt")
        choices = {
            "images": ("model=mlp", "model.hidden=[8]", "dataset=digits"),
            "text": (
                *("model=gpt", "model.depth=1", "model.embed_dim=8", "model.num_heads=2"),
                *("dataset=text", f"dataset.path={text}", "dataset.tokenizer=character", "dataset.context_length=16"),
                *("task=language_modeling", "task.sample_length=4"),
            ),
        }
        for kind, overrides in choices.items():
            job = train(*overrides, "duration=2steps", "logger=none", f"output_dir={folder / kind}")
            runs[kind] = job.run.folder
    return runs


@pytest.fixture
def copied(trained: dict[str, Path], home: Path) -> Callable[..., Path]:
    """A copy of a trained run's folder in the current one, by default as if it had been stopped."""

    def copy(name: str, kind: str = "images", status: str = "stopped") -> Path:
        shutil.copytree(trained[kind], home / name)
        file = home / name / "summary.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "status": status}))
        return home / name

    return copy


@pytest.fixture
def photos(home: Path) -> Path:
    """A folder of 20 colour images of 8x8 pixels in two classes."""
    return image_folder(home / "photos")
