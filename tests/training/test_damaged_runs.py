"""Bad days of a run: files edited, cut or deleted, and full disks."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from rich.console import Console

from epochal.cli import _ended
from epochal.core.errors import ConfigError, EpochalError
from epochal.data import ImageData
from epochal.training.build import build
from epochal.training.callbacks.record import code_by_steps
from epochal.training.checkpoint_io import AtomicCheckpointIO
from epochal.training.resume import trained_config
from epochal.training.run_folder import Run
from helpers.training import composed, train

SMALL = ("model=mlp", "model.hidden=[16]", "dataset=digits", "dataset.train_size=320", "dataset.batch_size=32")
SMALL = (*SMALL, "logger=none", "trainer=cpu", "duration=2epochs")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after its last checkpoint."""
    run = train(*SMALL, f"output_dir={tmp_path_factory.mktemp('runs')}").run
    run.write_summary({**run.summary(), "status": "stopped"})
    return run.folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of it."""
    return Run(Path(shutil.copytree(trained, tmp_path / "outputs" / "runs" / trained.name)))


EDITED = {
    "a value": ("optimizer.lr", 0.5, "optimizer.lr=0.5 (trained with 0.003)"),
    "a size": ("model.hidden", [99], "model.hidden=[99] (trained with [16])"),
    "a key of nobody": ("optimizer.invented", 1, "optimizer.invented=1 (trained with None)"),
    "a value emptied": ("dataset.train_size", None, "dataset.train_size=None (trained with 320)"),
    "what may change": ("threads", 1, ""),
}


@pytest.mark.parametrize("edit", EDITED)
def test_an_edited_config_does_not_change_what_a_run_goes_on_with(edit, run, capfd):
    key, value, said = EDITED[edit]
    before = run.config()
    OmegaConf.update(changed := run.config(), key, value)
    OmegaConf.save(changed, run.folder / "config.yaml")
    found = trained_config(run)
    printed = capfd.readouterr().err
    assert (said in printed and "goes on as it was trained" in printed) if said else not printed
    assert found == (before if said else changed)


def test_a_run_is_resumed_with_the_config_that_it_was_trained_with(run, capfd):
    (run.folder / "config.yaml").write_text((run.folder / "config.yaml").read_text().replace("lr: 0.003", "lr: 0.5"))
    job = train(f"resume={run.folder}")
    assert job.config.optimizer.lr == 0.003
    assert "optimizer.lr=0.5 (trained with 0.003)" in capfd.readouterr().err


def test_a_run_whose_file_was_edited_is_not_taken_for_the_one_typed(run):
    (run.folder / "config.yaml").write_text((run.folder / "config.yaml").read_text().replace("lr: 0.003", "lr: 0.5"))
    with pytest.raises(ConfigError, match="was trained with another config"):
        train(*SMALL, "optimizer.lr=0.5", f"output_dir={run.folder.parents[1]}", "resume=auto")


def test_data_that_changed_are_found_without_a_summary(run, monkeypatch):
    (run.folder / "summary.json").unlink()
    monkeypatch.setattr("epochal.data.ImageData.prepare", changed(ImageData.prepare))
    with pytest.raises(ConfigError, match="The data of dataset=digits changed since"):
        train(f"resume={run.folder}")


def changed(prepare):
    def call(data):
        prepare(data)
        data.fingerprint = "other"

    return call


@pytest.mark.parametrize("content", [b"", b"PK", bytes(1000)])
@pytest.mark.parametrize("best", [True, False])
def test_a_damaged_last_checkpoint_says_what_to_do(best, content, run):
    if not best:
        run.best.unlink()
    run.last.unlink()
    run.last.write_bytes(content)
    remedy = (
        "is whole: copied over .* goes on from step 20" if best else "delete .*last.ckpt to train this run from step 0"
    )
    with pytest.raises(ConfigError, match=remedy):
        trained_config(run)


OLD, NEW = {"git_commit": "a", "versions": {"torch": "1"}}, {"git_commit": "b", "versions": {"torch": "1"}}


@pytest.mark.parametrize(
    ("summary", "known", "step", "code"),
    [
        ({}, NEW, 0, [(0, "b")]),
        (OLD, OLD, 50, [(0, "a")]),
        (OLD, NEW, 50, [(0, "a"), (50, "b")]),
        (OLD, NEW, 0, [(0, "b")]),
        ({"code": [{"from_step": 0, **OLD}, {"from_step": 50, **NEW}]}, OLD, 50, [(0, "a")]),
        ({"code": 5}, NEW, 50, [(50, "b")]),
        ({"code": ["a", None, {}, {"from_step": "b"}, {"from_step": 3}]}, NEW, 50, [(3, None), (50, "b")]),
        ({"code": [{"from_step": 0, **OLD}, {"from_step": 50, **NEW}]}, OLD, 60, [(0, "a"), (50, "b"), (60, "a")]),
    ],
)
def test_commit_and_versions_are_kept_by_step(summary, known, step, code):
    assert [(entry["from_step"], entry.get("git_commit")) for entry in code_by_steps(summary, known, step)] == code


def test_a_checkpoint_is_written_beside_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    run = train(*SMALL, f"output_dir={tmp_path}").run
    assert sorted(path.name for path in run.last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


class At(pl.Callback):
    """Does something in the second epoch."""

    def __init__(self, do):
        self.do = do

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.do(Path(trainer.loggers[0].run.folder))


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = {
    "a checkpoint": lambda patch, folder: (folder / "checkpoints" / ".last.ckpt.part").symlink_to("/dev/full"),
    "every file": lambda patch, folder: patch.setattr("os.fsync", full),
    "a row": lambda patch, folder: patch.setattr("csv.DictWriter.writerow", full),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_is_a_sentence_and_keeps_the_last_checkpoint(what, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(EpochalError, match="disk is full"):
        train(*SMALL, f"output_dir={tmp_path}", callbacks=(At(lambda folder: FULL[what](patch, folder)),))
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    job = train(f"resume={folder}")
    assert job.run.summary()["status"] == "finished" and job.run.summary()["steps"] == 20


@pytest.mark.parametrize(
    "call",
    ["pathlib.Path.mkdir", "epochal.training.resume.write_atomically", "epochal.training.run_folder.write_atomically"],
)
def test_a_disk_that_is_full_from_the_start_leaves_no_folder(call, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    real = Path.mkdir

    def mkdir(path, *rest, **named):
        if path.name == "checkpoints":
            full()
        real(path, *rest, **named)

    monkeypatch.setattr(call, mkdir if call.endswith("mkdir") else full)
    with pytest.raises(EpochalError, match="No space left on device"):
        train(*SMALL, f"output_dir={tmp_path}")
    assert not list((tmp_path / "runs").iterdir())


def test_a_folder_that_is_deleted_while_the_run_trains_is_a_sentence_and_not_made_again(tmp_path):
    with pytest.raises(EpochalError, match="was deleted while the run needed it"):
        train(*SMALL, f"output_dir={tmp_path}", callbacks=(At(shutil.rmtree),))
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(("every", "said"), [("null", "before its first checkpoint"), ("1", "To go on from the last")])
def test_a_stopped_run_says_whether_it_has_a_checkpoint(every, said, tmp_path, capsys, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    stop = At(lambda folder: None)
    stop.on_train_batch_end = lambda trainer, *rest: os.kill(os.getpid(), signal.SIGINT) if rest[-1] == 3 else None
    typed = [*SMALL, f"output_dir={tmp_path}", f"callbacks.checkpoint_every={every}"]
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(KeyboardInterrupt) as error, build(composed(*typed), overrides=typed, console=console) as job:
        job.trainer.callbacks.append(stop)
        job.fit()
    assert said in console.file.getvalue()
    assert ("goes on" in _ended("Stopped.", error.value, "train")) == (every == "1")


def test_ctrl_c_in_the_middle_of_writing_a_checkpoint_is_ctrl_c_and_keeps_the_last_one(tmp_path):
    """torch then complains of positions in the file, which must not count as a failed run of a grid."""
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"the last one")
    part = (tmp_path / ".last.ckpt.part").open("wb")
    written, write = [], part.write

    class Interrupted:
        def __getattr__(self, name):
            return getattr(part, name)

        def __enter__(self):
            return self

        def __exit__(self, *rest):
            part.close()

        def write(self, data):
            written.append(len(data))
            if sum(written) > 10_000:
                raise KeyboardInterrupt
            return write(data)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "open", lambda *_: Interrupted())
        AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(100, 100)}, file)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert file.read_bytes() == b"the last one"
