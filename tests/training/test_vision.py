"""Every family of networks for images, on a folder of pictures as ImageNet's are: 224x224 pixels in colour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

from epochal.training.build import is_narrow
from helpers.training import train

SMALL = {  # choices that make each family quick, in its form for ImageNet
    "alexnet": ("model.width=0.1",),
    "vgg": ("model.width=0.1",),
    "googlenet": ("model.width=0.2",),
    "resnet": ("model.depth=18", "dataset.batch_size=2"),
    "efficientnet": ("model.width=0.2", "model.depth=0.5"),
    "vit": ("model.variant=Mini",),
    "timm": ("model.network=test_resnet",),
}
QUICK = ("resnet", "timm", "vit")  # the others carry the marker slow
PUBLISHED = {
    "alexnet": (),
    "vgg": ("model.depth=11",),
    "googlenet": (),
    "resnet": ("model.depth=50",),
    "efficientnet": ("model.variant=b0",),
    "vit": ("model.variant=S",),
    "timm": ("model.network=convnext_atto",),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 of them, in two classes of unlike colour."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, colour in (("meadow", (60, 150, 60)), ("sea", (60, 80, 160))):
        (folder / name).mkdir()
        for number in range(12):
            noise = random.normal(0, 40, (224, 224, 3)) + random.normal(0, 10, 3)
            image = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


class Stop(pl.Callback):
    """Ctrl-C before the second step."""

    def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == 1:
            raise KeyboardInterrupt


def choices(model: str, pictures: Path) -> tuple[str, ...]:
    if model == "timm":
        pytest.importorskip("timm")
    data = (
        "dataset=images",
        f"dataset.path={pictures}",
        "dataset.batch_size=4",
        "dataset.validation=2",
        "dataset.test=4",
    )
    return (f"model={model}", *data, "duration=2steps", "logger=none", "callbacks.checkpoint_every=1")


def interrupted_and_resumed(*overrides: str) -> Any:
    with pytest.raises(KeyboardInterrupt):
        train(*overrides, callbacks=(Stop(),))
    (folder,) = (file.parent for file in Path("outputs/runs").glob("*/summary.json"))
    assert json.loads((folder / "summary.json").read_text())["status"] != "finished"
    job = train(f"resume={folder}")
    assert job.run.summary()["status"] == "finished" and job.trainer.global_step == 2
    return job


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=[] if model in QUICK else pytest.mark.slow) for model in SMALL]
)
def test_each_family_learns_from_pictures_goes_on_is_evaluated_and_explained(
    model: str, pictures: Path, home: Path, command: Any
) -> None:
    job = interrupted_and_resumed(*choices(model, pictures), *SMALL[model])
    assert job.data.inputs.height == 224
    outcome = command("evaluate", f"run={job.run.folder}", "explain=true", "images=[0]")
    assert outcome.status == 0, outcome.error
    written = job.run.folder / "evaluation" / "images"
    metrics, known = json.loads((written / "metrics.json").read_text()), job.run.summary()["metrics"]
    assert metrics["test/loss"] == pytest.approx(known["test/loss"], rel=1e-3)
    assert list(written.glob("*explain*")), [file.name for file in written.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_networks_go_on_to_the_same_bits(model: str, pictures: Path, home: Path) -> None:
    overrides = (*choices(model, pictures), *PUBLISHED[model])
    resumed = interrupted_and_resumed(*overrides).task.model.state_dict()
    whole = train(*overrides).task.model.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_network_of_few_channels_learns_where_torch_fails_in_channels_last(tmp_path):
    assert is_narrow(nn.Conv2d(7, 8, 1, stride=2))
    assert not any(map(is_narrow, (nn.Conv2d(8, 8, 1, stride=2), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2))))
    small = ("model=resnet", "model.depth=18", "model.width=0.0625", "dataset=digits", "dataset.image_size=32")
    job = train(*small, "dataset.train_size=64", "dataset.batch_size=16", "duration=2steps", f"output_dir={tmp_path}")
    assert job.run.summary()["status"] == "finished"
