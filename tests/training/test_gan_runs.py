"""Runs of GANs: sample quality in a classifier's features, the best checkpoint by it, pictures, and resuming."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from conftest import Outcome
from epochal.core.errors import ConfigError
from epochal.training.build import build
from epochal.training.features import Inception, feature_network
from epochal.training.run_folder import newest_finished
from helpers.training import composed, in_new_process, train, train_until_killed

SMALL = (
    *(
        "model=gan",
        "task=adversarial",
        "model.width=4",
        "dataset=digits",
        "dataset.train_size=160",
        "dataset.validation=40",
    ),
    *("dataset.test=60", "dataset.batch_size=32", "logger=none", "trainer=cpu", "duration=3epochs", "log_every=2"),
)
CRITIC = ("model.discriminator_norm=layer", "task.objective=wasserstein_gp")


@pytest.fixture
def classifier(trained: dict[str, Path], tmp_path: Path) -> Path:
    """The folder of a run that learned to classify digits."""
    return shutil.copytree(trained["images"], tmp_path / "classifier")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_features_may_name_the_model_of_a_run_in_the_same_folder(home: Path) -> None:
    one = train("model=mlp", "model.hidden=[4]", "dataset=digits", "duration=1steps", "logger=none")
    train("model=mlp", "dataset=digits", "task=classification", "duration=1steps", "logger=none", "output_dir=other")
    overrides = (*SMALL, "duration=2steps", "task.features=mlp")
    job = train(*overrides)
    config = OmegaConf.load(job.run.folder / "config.yaml")
    assert config.task.features == str(one.run.folder) and config.requested.task.features == "mlp"
    assert newest_finished(job.run.folder.parent, composed(*overrides)) is not None, "it is found again"


@pytest.mark.parametrize("conditional", ["false", "true"])
def test_with_features_the_lowest_fid_is_the_best_and_stands_beside_that_of_real_images(
    classifier: Path, conditional: str, home: Path
) -> None:
    few = ("task.validation_images=30", "task.test_images=50")
    job = train(*SMALL, f"task.features={classifier}", f"model.conditional={conditional}", *few)
    summary = json.loads((job.run.folder / "summary.json").read_text())
    fids = {int(row["step"]): float(row["val/fid"]) for row in rows(job.run.folder) if row["val/fid"]}
    assert len(fids) == 3 and len(set(fids.values())) == 3
    assert summary["best"] == {
        "metric": "val/fid",
        "value": pytest.approx(min(fids.values())),
        "step": min(fids, key=fids.__getitem__),
    }
    tested = {name.removeprefix("test/") for name in summary["metrics"] if name.startswith("test/")}
    quality = {"fid", "fid_floor", "kid", "sample_precision", "sample_recall", "modes_covered"}
    assert quality <= tested
    assert 0 < summary["metrics"]["test/fid_floor"] < summary["metrics"]["test/fid"]
    assert summary["features"]["images"] == {"val": 30, "test": 50} and summary["features"]["count"] == 8
    assert summary["features"]["run"] == str(classifier) and len(summary["features"]["fingerprint"]) == 16
    state = torch.load(job.run.last, weights_only=True)["state_dict"]
    assert {name.split(".")[1] for name in state} == {"generator", "discriminator"}, "the classifier is not saved"
    assert summary["parameters"] == sum(p.numel() for p in job.task.model.parameters())


def test_without_features_the_newest_is_the_best_and_this_is_said(command: Callable[..., Outcome], home: Path) -> None:
    outcome = command("train", *SMALL, "duration=8steps")
    assert outcome.status == 0, outcome.error
    assert "Without task.features=<a classifier's run> no FID is measured" in " ".join(outcome.out.split())
    (run,) = (home / "outputs" / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best"] == {"metric": None, "value": None, "step": 8}
    assert not any("fid" in name for name in summary["metrics"]) and "features" not in summary


def test_the_grid_by_step_is_an_animation_and_noises_are_interpolated(home: Path) -> None:
    job = train(*SMALL)
    pictures = job.run.folder / "pictures"
    animation = Image.open(pictures / "samples.gif")
    assert animation.n_frames == len(list(pictures.glob("samples_0*.png"))) == 3
    still = Image.open(pictures / "samples_000015.png")
    assert animation.size[0] == still.size[0] and Image.open(pictures / "test_interpolation.png").size == still.size


def test_the_generator_takes_a_step_in_every_fifth_batch_of_a_critic(home: Path) -> None:
    job = train(*SMALL, *CRITIC, "duration=10steps", "log_every=1", "dataset.train_size=320")
    table = [row for row in rows(job.run.folder) if row["train/discriminator_loss"]]
    assert [int(row["step"]) for row in table] == list(range(1, 11))
    assert [bool(row["train/generator_loss"]) for row in table] == ([False] * 4 + [True]) * 2
    assert [bool(row["train/generator_gradient_norm"]) for row in table] == ([False] * 4 + [True]) * 2
    for name in ("wasserstein_distance", "gradient_penalty", "discriminator_gradient_norm"):
        assert all(row[f"train/{name}"] for row in table), name
    assert "train/d_real" not in table[0]
    states = [optimizer.state_dict()["state"][0]["step"] for optimizer in job.trainer.optimizers]
    assert [int(step) for step in states] == [2, 10] and job.trainer.global_step == 10


RESUMED = {
    "critic": (*CRITIC, "task.discriminator_steps=3", "model.conditional=true"),
    "spectral norm": ("model.spectral_norm=true", "model.discriminator_norm=none"),
}


@pytest.mark.parametrize("kind", [pytest.param("critic", marks=pytest.mark.slow), "spectral norm"])
def test_a_killed_run_goes_on_to_the_same_bits(kind: str, classifier: Path, tmp_path: Path, home: Path) -> None:
    overrides = (*SMALL, *RESUMED[kind], f"task.features={classifier}", "callbacks.checkpoint_every=1")
    whole = train(*overrides, f"output_dir={tmp_path / 'whole'}")
    killed = (*overrides, f"output_dir={tmp_path / 'killed'}", "resume=auto")
    assert in_new_process(train_until_killed, killed, 8, "on_train_batch_end") == -signal.SIGKILL
    job = train(*killed)
    assert job.run.folder.name.split("_gan")[0] != whole.run.folder.name and job.trainer.global_step == 15
    for name in ("last", "best"):
        one, other = (
            torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
            for run in (whole.run.folder, job.run.folder)
        )
        assert all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys()), name
    timeless = [
        [{k: v for k, v in row.items() if "second" not in k} for row in rows(run.run.folder)] for run in (whole, job)
    ]
    assert timeless[0] == timeless[1]
    for picture in ("samples.gif", "test_samples.png", "test_interpolation.png"):
        one, other = ((run.run.folder / "pictures" / picture).read_bytes() for run in (whole, job))
        assert one == other, picture


def test_a_run_whose_features_changed_is_not_resumed(classifier: Path, tmp_path: Path, home: Path) -> None:
    overrides = (*SMALL, f"task.features={classifier}", "resume=auto")
    with pytest.raises(ZeroDivisionError), build(composed(*overrides), overrides=overrides) as job:
        raise ZeroDivisionError
    summary = json.loads((job.run.folder / "summary.json").read_text())
    summary["features"]["fingerprint"] = "another"
    (job.run.folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ConfigError, match="The weights of task.features=.* changed since the run began"):
        build(composed(*overrides), overrides=overrides)


def test_a_finished_run_is_evaluated_in_the_features_of_another(
    classifier: Path, command: Callable[..., Outcome], home: Path
) -> None:
    job = train(*SMALL, "duration=2steps")
    outcome = command("evaluate", f"run={job.run.folder}", f"features={classifier}")
    assert outcome.status == 0, outcome.error
    found = json.loads((job.run.folder / "evaluation" / "digits" / "metrics.json").read_text())
    assert found["test/fid"] > found["test/fid_floor"] > 0
    assert "60 at the test; the data has not" in " ".join(outcome.out.split())


def test_a_run_opens_without_its_features_which_is_said(
    classifier: Path, command: Callable[..., Outcome], home: Path
) -> None:
    job = train(*SMALL, "duration=2steps", f"task.features={classifier}")
    shutil.rmtree(classifier)
    outcome = command("evaluate", f"run={job.run.folder}")
    assert outcome.status == 0, outcome.error
    assert "No sample quality is measured: There is no run folder" in outcome.error
    found = json.loads((job.run.folder / "evaluation" / "digits" / "metrics.json").read_text())
    assert "test/loss" in found and "test/fid" not in found


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no run": (("task.features=nowhere",), "is no run's folder; give that of a classifier"),
    "none of this model": (
        ("task.features=cnn",),
        "no finished run of model=cnn that learned to classify dataset=digits",
    ),
    "no classifier": (
        ("task.features={text}",),
        "must be a run that learned to classify images, not language_modeling",
    ),
    "other images": (("task.features={images}", "dataset.image_size=16"), "reads images of 1x8x8"),
    "no step of the generator": (("task.discriminator_steps=9", "duration=8steps"), "before the generator's first"),
    "batch norm in a critic": (
        ("task.objective=wasserstein_gp", "dataset.image_size=16"),
        "take model.discriminator_norm=layer or none",
    ),
    "too few": (("task.features={images}", "dataset.validation=3"), "at least 4 images in the val part"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_is_refused_before_the_training(
    wrong: str, refuse: Callable[..., Any], trained: dict[str, Path], home: Path
) -> None:
    options, says = WRONG[wrong]
    given = [option.format(**trained) for option in options]
    refuse("train", *SMALL, *given, says=[says])


def test_features_of_permuted_pixels_are_refused(home: Path) -> None:
    job = train(
        "model=mlp", "model.hidden=[4]", "dataset=digits", "dataset.permuted=true", "duration=1steps", "logger=none"
    )
    with pytest.raises(ConfigError, match="learned from images whose pixels are permuted"):
        feature_network(str(job.run.folder))


def test_inception_is_asked_for_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epochal.training.features.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the package torch-fidelity"):
        feature_network("inception")


def test_inceptions_features_are_those_of_three_equal_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stand(torch.nn.Module):
        def __init__(self, **_: Any) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert pixels.dtype == torch.uint8 and pixels.shape[1] == 3
            return pixels.float().mean((2, 3)) * self.weight

    monkeypatch.setattr("epochal.training.features.find_spec", lambda name: True)
    monkeypatch.setattr("torchmetrics.image.fid.NoTrainInceptionV3", Stand)
    network = feature_network("inception")
    assert isinstance(network, Inception) and network.count == 3
    pixels = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8)
    found = network(pixels)
    assert found.classes is None
    torch.testing.assert_close(found.values, pixels.double().mean((2, 3)).expand(5, 3))
