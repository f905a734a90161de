"""Moving digits: where the digit is, when it changes, and that every label can be inferred."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import Frames, StepLabels
from epochal.data import Batch, MovingDigits
from epochal.data.batching import BatchIndices


def prepared(**options: Any) -> MovingDigits:
    data = MovingDigits(name="moving_digits", source="digits", **{"validation": 50, "test": 50, **options})
    data.learns = "step_classes"
    data.prepare()
    return data


def videos(data: MovingDigits, split: str, count: int = 40, seed: int = 7) -> Batch:
    return data.rows(split)[0][BatchIndices(torch.arange(count), seed)]


def inked(data: MovingDigits, video: torch.Tensor) -> list[tuple[int, int]]:
    """Where the digit of each frame (T, 1, H, W) is: the first row and column with ink."""
    return [(int(f[0].any(1).nonzero()[0]), int(f[0].any(0).nonzero()[0])) for f in video]


def test_specs_are_known_before_anything_is_made():
    data = prepared(length=5, size=20)
    specs = (Frames(5, 1, 20, 20), StepLabels(tuple("0123456789")))
    assert data.specs("step_classes") == specs
    config = {"name": "moving_digits", "source": "mnist", "length": 5, "size": 20, "batch_size": 32}
    assert MovingDigits.example_specs(config, "step_classes") == [specs]
    made = videos(data, "train", 3)
    assert made.inputs.shape == (3, 5, 1, 20, 20) and made.inputs.dtype == torch.uint8
    assert made.targets.shape == (3, 5) and made.lengths is None


def test_each_frame_shows_a_whole_digit_of_its_label_from_the_images_of_its_split():
    data = prepared(hidden=0.0, change=0.5, size=18, length=4)
    for split in ("train", "val", "test"):
        images, labels = data.digits[split]
        made = videos(data, split, 10)
        for frame, label in zip(made.inputs.flatten(0, 2), made.targets.flatten(), strict=True):
            windows = frame.unfold(0, 16, 1).unfold(1, 16, 1).flatten(0, 1).flatten(1)  # (9, 256)
            same = (images[labels == label].flatten(1)[:, None] == windows).all(2).any()
            assert same and frame.sum() in images[labels == label].flatten(1).sum(1)


def test_splits_share_no_image():
    data = prepared()
    parts = [{image.numpy().tobytes() for image in data.digits[split][0]} for split in ("train", "val", "test")]
    assert [len(data.digits[split][0]) for split in ("train", "val", "test")] == [1294, 144, 359]
    assert not parts[0] & parts[2] and not parts[1] & parts[2] and not parts[0] & parts[1]


def test_a_digit_moves_straight_on_and_bounces_off_the_walls():
    data = prepared(hidden=0.0, change=0.0, size=24, length=40)
    moved, turned = 0, 0
    for video in videos(data, "train", 20).inputs:
        places = torch.tensor(inked(data, video))
        steps = places.diff(dim=0)
        assert steps.abs().max() <= 4  # 3 pixels and rounding
        moved += int((steps != 0).any())
        turned += int(((steps > 0).any(0) & (steps < 0).any(0)).any())
    assert moved == 20 and turned > 10


def test_hidden_frames_are_noise_and_keep_the_label_of_the_last_that_shows():
    data = prepared(hidden=0.4, change=0.5, length=12)
    made = videos(data, "val", 50)
    hidden = (made.inputs.flatten(2) > 0).float().mean(2) > 0.5  # (N, T); a digit leaves most of a frame black
    assert 0.3 < hidden[:, 1:].float().mean() < 0.5 and not hidden[:, 0].any()
    before = made.targets[:, :-1][hidden[:, 1:]]
    assert torch.equal(made.targets[:, 1:][hidden[:, 1:]], before)
    assert (made.targets[:, 1:] != made.targets[:, :-1]).any()
    noise = made.inputs[hidden]
    assert len(noise.flatten(1).unique(dim=0)) == len(noise)
    assert not (videos(prepared(hidden=0.0), "val").inputs.flatten(2) > 0).float().mean(2).gt(0.5).any()


def test_test_rows_do_not_depend_on_the_runs_seed_and_training_rows_are_fresh():
    one, two = prepared(seed=1), prepared(seed=2)
    assert torch.equal(videos(one, "test", seed=1).inputs, videos(two, "test", seed=2).inputs)
    assert not torch.equal(videos(one, "train", seed=1).inputs, videos(one, "train", seed=2).inputs)
    fixed = prepared(fresh=False)
    assert torch.equal(videos(fixed, "train", seed=1).inputs, videos(fixed, "train", seed=2).inputs)
    assert torch.equal(videos(one, "test").inputs[[3, 1]], one.frames("test", torch.tensor([3, 1])))


def test_pixels_are_normalised_and_can_be_recovered():
    data = prepared()
    made = videos(data, "val", 2)
    given = data.on_after_batch_transfer(made, 0)
    assert given.inputs.dtype == torch.float32 and torch.equal(given.targets, made.targets)
    assert torch.equal(data.pixels(given.inputs), made.inputs)
    other = MovingDigits(name="moving_digits", source="digits")
    other.load_state(data.state())
    other.prepare()
    assert torch.equal(other.normalise(made.inputs), given.inputs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "letters"}, r"dataset.source=letters is no source of digits. There are: mnist digits"),
        ({"length": 0}, r"dataset.length=0 must be a whole number, 1 or more."),
        ({"size": 16}, r"dataset.size=16 must be a whole number, 17 or more."),
        ({"hidden": 1.0}, r"dataset.hidden=1.0 must be a probability from 0 up to, not including, 1."),
        ({"change": -0.1}, r"dataset.change=-0.1 must be a probability from 0 up to, not including, 1."),
    ],
)
def test_what_cannot_be_made_is_refused(options, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        MovingDigits(**{"name": "moving_digits", "source": "digits", **options})


def test_without_mnist_the_packaged_digits_are_offered():
    with pytest.raises(
        ConfigError, match=r"dataset=moving_digits is made of the images of mnist.*dataset.source=digits"
    ):
        MovingDigits(name="moving_digits", source="mnist").prepare()
