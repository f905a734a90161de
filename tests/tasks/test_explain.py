"""Filters, feature maps, Grad-CAM and attention rollout, for every size and kind of image."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from epochal.config.duration import Length
from epochal.core.errors import ConfigError
from epochal.data import ImageData
from epochal.models import CNN, MLP, RNN, LeNet, ViT
from epochal.plots.canvas import MARGIN
from epochal.tasks import Classification
from epochal.tasks.visuals import explain
from epochal.training.callbacks.explain import Explain
from epochal.training.loggers.files import RunLogger
from epochal.training.loggers.wandb import Wandb
from epochal.training.run_folder import Run
from helpers.samples import pixels
from helpers.training import composed, train


class Corners(nn.Module):
    """Class 0 is the brightness of the upper left quarter, class 1 that of the lower right one."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Conv2d(1, 2, 1)
        nn.init.ones_(self.whole.weight)
        nn.init.zeros_(self.whole.bias)
        self.rectified = nn.ReLU(inplace=True)

    def forward(self, images):
        maps = self.rectified(self.whole(images))
        half = maps.shape[2] // 2
        first, second = maps[:, 0, :half, :half], maps[:, 1, half:, half:]
        return torch.stack([first.mean((1, 2)), second.mean((1, 2))], dim=1) * torch.tensor([5.0, 5.0])

    def stages(self):
        return {"whole": self.rectified}


class Shrunk(Corners):
    """The next module changes the stage's output in place, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 2, 4, bias=False)
        nn.init.zeros_(self.last.weight)
        with torch.no_grad():
            self.last.weight[0, 0, 0, 0] = self.last.weight[1, 1, 3, 3] = 1.0

    def forward(self, images):
        return self.last(self.rectified(self.whole(images).mul_(3))).flatten(1)

    def stages(self):
        return {"whole": self.whole}


@pytest.fixture
def data(tmp_path):
    def make(count=20, classes=3, side=8, channels=1, **options):
        shape = (side, side) if channels == 1 else (channels, side, side)
        labels = np.arange(count) % classes
        np.savez(tmp_path / "set.npz", images=pixels(count, *shape), labels=labels)
        made = ImageData(name="set", path=str(tmp_path / "set.npz"), batch_size=2, **options)
        made.prepare()
        return made

    return make


def task(model):
    return Classification(model=model, optimizer=None, scheduler=None, total_steps=1)


# -- what is looked at --------------------------------------------------------------------------------------------


def test_grad_cam_is_the_rectified_sum_of_maps_weighted_by_their_mean_gradients():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 4 * 4, 2)).eval()
    images, classes = torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 1, 0, 1])
    maps = network[0](images)  # (N, K, 4, 4); the ReLU after them works in place
    # by hand: the logit is linear in the rectified maps, so its gradient is the weight where a map is above 0
    gradient = network[3].weight[classes].view(5, 3, 4, 4) * (maps > 0)
    weighted = torch.einsum("nk,nkhw->nhw", gradient.mean((2, 3)), maps).clamp(min=0)
    expected = weighted / weighted.amax((1, 2), keepdim=True)
    torch.testing.assert_close(explain.grad_cam(network, network[0], images, classes), expected.detach())


def test_grad_cam_works_on_a_frozen_network_and_leaves_no_gradients():
    network = Corners().eval().requires_grad_(False)
    lit = explain.grad_cam(network, network.rectified, torch.ones(1, 1, 4, 4), torch.tensor([1]))
    assert lit.max() == 1 and all(p.grad is None for p in network.parameters())


def test_grad_cam_is_largest_in_the_corner_that_the_class_depends_on():
    network = Corners().eval()
    images = torch.zeros(2, 1, 4, 4)
    images[0, 0, 0, 0] = images[1, 0, 3, 3] = 1.0
    lit = explain.grad_cam(network, network.rectified, images, torch.tensor([0, 1]))
    expected = torch.zeros(2, 4, 4)
    expected[0, 0, 0] = expected[1, 3, 3] = 1
    torch.testing.assert_close(lit, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_feature_maps_are_those_before_the_next_module_changes_them_in_place(layout):
    network = Shrunk().eval().to(memory_format=layout)
    images = torch.arange(16.0).view(1, 1, 4, 4).sub(8).to(memory_format=layout)
    features, logits = explain.feature_maps(network, network.stages(), images)
    torch.testing.assert_close(features["whole"], images.expand(1, 2, 4, 4))
    torch.testing.assert_close(logits, torch.tensor([[0.0, 21.0]]))
    lit = explain.grad_cam(network, network.whole, images, torch.tensor([1]))
    assert lit[0, 3, 3] == 1 and lit[0, 0, 0] == 0


def test_explaining_leaves_the_network_unchanged(data):
    network, images = LeNet(in_channels=1, num_classes=3).train(), data()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    explain.explain(network, images, [0, 1])
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_explaining_works_in_inference_mode(data):
    images = data()
    network = LeNet(in_channels=1, num_classes=3)
    outside = explain.explain(network, images, [0])
    with torch.inference_mode():
        inside = explain.explain(network, images, [0])
    assert inside == outside


def test_attention_rollout_is_scaled_to_0_and_1_in_each_image():
    network = ViT(image_shape=(1, 8, 8), num_classes=2, embed_dim=8, depth=2, num_heads=2, patch_size=2).eval()
    maps = network.attention_maps(torch.randn(3, 1, 8, 8))
    for one in maps:
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))
    lit = explain.rollout(network, torch.randn(3, 1, 8, 8))
    assert lit.shape == (3, 4, 4)
    assert lit.amax((1, 2)).tolist() == [1, 1, 1] and lit.amin((1, 2)).tolist() == [0, 0, 0]


def test_filters_are_sorted_by_their_norm():
    network = CNN(image_shape=(3, 8, 8), num_classes=2, filters=[4], kernel_size=3)
    with torch.no_grad():
        for number, strength in enumerate((0.1, 3.0, 0.0, 1.0)):
            network.features[0].weight[number] = strength
    assert explain.filter_images(network, (3, 8, 8))[:, 0, 0, 0].tolist() == pytest.approx([3.0, 1.0, 0.1, 0.0])


def test_the_weights_of_a_multilayer_perceptron_are_images():
    network = MLP(in_features=3 * 4 * 5, num_classes=2, hidden=[7])
    assert explain.filter_images(network, (3, 4, 5)).shape == (7, 3, 4, 5)


def test_only_a_layer_that_reads_pixels_has_filters_to_show():
    rows = RNN(in_features=8, num_classes=2, hidden_size=64)  # 64 numbers, as an 8x8 image has
    assert explain.first_layer(rows) is None


# -- how it is drawn ----------------------------------------------------------------------------------------------


def test_heat_is_drawn_where_it_is():
    heat = torch.zeros(8, 8)
    heat[:4, :4] = 1
    image = explain.ExplainedImage(np.full((8, 8, 3), 100, np.uint8), "image 3", wrong=False)
    drawn = np.asarray(image.draw(64, heat))[:64]
    plain, lit = drawn[:, :64].astype(int), drawn[:, 68:132].astype(int)
    assert (plain == 100).all()
    assert lit[:24, :24].sum(-1).min() > 2 * lit[40:, 40:].sum(-1).max()
    assert lit[:24, 40:].max() <= 40  # no heat leaves the image's grey, dimmed


def test_the_caption_of_a_wrong_prediction_is_red():
    for wrong in (True, False):
        image = explain.ExplainedImage(np.zeros((8, 8, 3), np.uint8), "image 0", wrong=wrong)
        caption = np.asarray(image.draw(32))[38:].reshape(-1, 3).astype(int)
        assert ((caption[:, 0] - caption[:, 1]) > 100).any() == wrong


def test_a_feature_map_is_bright_where_the_channel_is_active():
    maps = torch.zeros(1, 9, 4, 4)
    maps[0, 5, 0, 0] = 2.0  # the one active channel comes first
    image = explain.ExplainedImage(np.zeros((8, 8, 3), np.uint8), "image 0", wrong=False)
    sheet = np.asarray(explain.feature_sheet([image], {"stage": maps})).astype(int)
    bright = np.argwhere((sheet[:, :, 0] > 240) & (sheet[:, :, 2] < 200))
    (top, left), (bottom, right) = bright.min(0), bright.max(0)
    assert (bottom - top, right - left) == pytest.approx((explain.LARGE / 4,) * 2, abs=3)
    assert (sheet[top + 40 : top + 100, left : left + 100] == 0).all()


@pytest.mark.parametrize("side, channels", [(8, 1), (28, 1), (32, 3), (224, 3)])
def test_every_size_of_image_is_drawn_large_enough_to_read(data, side, channels):
    network = CNN(image_shape=(channels, side, side), num_classes=3, filters=[4, 8], hidden=4)
    drawn = explain.explain(network.to(memory_format=torch.channels_last), data(side=side, channels=channels), [0, 3])
    assert list(drawn) == ["explain_filters", "explain_features", "explain_grad_cam"]
    assert 900 <= drawn["explain_grad_cam"].width <= 1000
    assert 1000 <= drawn["explain_features"].width <= 1300
    assert min(drawn["explain_filters"].size) > 150


def test_images_are_drawn_as_the_network_reads_them(data):
    images = data(permuted=True)
    network = CNN(image_shape=(1, 8, 8), num_classes=3, filters=[4], hidden=4)
    sheet = np.asarray(explain.explain(network, images, [0])["explain_grad_cam"])
    rows, _ = images.rows("test")
    read = rows.images[rows.rows[0]].flatten()[images._order].view(8, 8).numpy()
    scale = explain.IMAGE // 8
    left = MARGIN + scale // 2
    top = len(sheet) - MARGIN - 3 * 17 - 6 - explain.IMAGE + scale // 2  # above the caption's three lines
    drawn = sheet[top : top + explain.IMAGE : scale, left : left + explain.IMAGE : scale, 0]
    assert (drawn == read).all()


# -- who is explained ---------------------------------------------------------------------------------------------


def test_by_default_the_first_image_of_each_of_four_classes_is_explained(data):
    made = data(count=60, classes=5)
    labels = made.rows("test")[0].labels[made.rows("test")[0].rows]
    numbers = explain.choose_images(made)
    assert len({int(labels[number]) for number in numbers}) == 4
    assert all(int(labels[n]) not in labels[:n].tolist() for n in numbers)


def test_few_classes_or_images_are_enough(data):
    assert len(set(explain.choose_images(data(count=40, classes=2)))) == 4
    few = data(count=12, classes=2, test=2)
    assert explain.choose_images(few) == [0, 1]


@pytest.mark.parametrize("numbers", [[], [0, 4], [-1], 2, "0", [1.5], [True], OmegaConf.create([0, 99])])
def test_a_number_that_is_no_test_image_is_refused_with_the_range(data, numbers):
    with pytest.raises(ConfigError, match=r"from 0 to 3, e\.g\. images=0,5,7"):
        explain.choose_images(data(), numbers)


def test_a_network_without_anything_to_show_is_refused():
    explain.check(task(MLP(in_features=64, num_classes=2)))
    explain.check(task(LeNet(in_channels=1, num_classes=2)))
    explain.check(task(ViT(image_shape=(1, 8, 8), num_classes=2, embed_dim=8, depth=1, num_heads=2, patch_size=4)))
    with pytest.raises(ConfigError, match="finds nothing to show in this RNN"):
        Explain(task(RNN(in_features=8, num_classes=2)))


# -- from the command line ----------------------------------------------------------------------------------------


def test_evaluate_writes_and_names_the_pictures(command, home):
    job = train("model=cnn", "model.filters=[4,8]", "dataset=digits", "duration=2steps", "logger=none")
    outcome = command("evaluate", f"run={job.run.folder}", "explain=true", "images=[3,7]")
    assert outcome.status == 0, outcome.error
    written = job.run.folder / "evaluation" / "digits"
    names = [f"explain_{name}.png" for name in ("filters", "features", "grad_cam")]
    assert sorted(file.name for file in written.glob("explain_*")) == sorted(names)
    for name in names:
        assert name in outcome.out.replace("\n", "")
    assert Image.open(written / "explain_grad_cam.png").height < 400, "two images stand in one row"
    assert "test/accuracy" in json.loads((written / "metrics.json").read_text())


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("explain=true", "images=[0,359]"), "from 0 to 358"),
        (("images=[0]",), "images goes with explain=true"),
        (("explain=maybe",), "explain=maybe must be true or false"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(copied, refuse, arguments, says):
    copied("run")
    refuse("evaluate", "run=run", *arguments, says=(says,))


def test_a_language_model_has_nothing_to_explain(copied, refuse):
    copied("run", "text")
    refuse("evaluate", "run=run", "explain=true", says=("finds nothing to show in this GPT", "such as cnn, resnet"))


def test_after_the_test_the_pictures_are_among_those_of_the_run(data, tmp_path):
    tested = SimpleNamespace(model=LeNet(in_channels=1, num_classes=3), data=data())
    run = Run(tmp_path / "run")
    run.pictures.mkdir(parents=True)
    logger = RunLogger(run, length=Length(1, 1), batch_size=1)
    trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[logger], global_step=2)
    Explain(task(tested.model)).on_test_end(trainer, tested)
    expected = explain.explain(tested.model, tested.data, explain.choose_images(tested.data))
    assert {file.name for file in run.pictures.iterdir()} == {f"test_{name}.png" for name in expected}
    for name, picture in expected.items():
        assert np.array_equal(np.asarray(Image.open(run.pictures / f"test_{name}.png")), np.asarray(picture))


def test_wandb_has_a_panel_of_its_own(data, monkeypatch, tmp_path):
    logged = []
    opened = SimpleNamespace(log_image=lambda key, images, step: logged.append((key, step)))
    monkeypatch.setattr(Wandb, "open", lambda self: opened)
    logger = Wandb(
        run=Run(tmp_path), config=composed(), resuming=False, project="epochal", entity=None, group=None, tags=()
    )
    tested = SimpleNamespace(model=LeNet(in_channels=1, num_classes=3), data=data())
    trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[logger], global_step=2)
    Explain(task(tested.model)).on_test_end(trainer, tested)
    assert logged == [("explain/filters", 2), ("explain/features", 2), ("explain/grad_cam", 2)]
