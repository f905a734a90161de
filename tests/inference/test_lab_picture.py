"""Pictures of the lab's page as pixels that a network reads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from epochal.core.specs import Images
from epochal.inference.lab import picture


def test_a_drawing_is_scaled_and_centred_by_its_mass():
    ink = np.zeros((112, 112), np.uint8)
    ink[5:65, 80:100] = 255
    ink[55:65, 60:100] = 255  # an L turned round: its mass is right of the middle of its box
    shown = picture.centred(ink, 28, 28).astype(float)
    rows = np.flatnonzero((shown > 100).any(1))
    assert np.ptp(rows) + 1 == 20  # as MNIST's makers did
    centre = [float((shown.sum(1 - axis) * (np.arange(28) + 0.5)).sum() / shown.sum()) for axis in (0, 1)]
    assert centre == pytest.approx([14, 14], abs=0.6)
    small = picture.centred(ink, 8, 8)
    assert (small.max(1) > 100).all()  # a digit of dataset=digits fills the height
    assert not picture.centred(np.zeros((9, 9), np.uint8), 28, 28).any()


@pytest.mark.parametrize(("mean", "corner"), [(0.2, 0), (0.8, 255)])
def test_a_drawing_has_the_polarity_and_channels_of_the_data(mean, corner):
    bright = picture.is_bright(SimpleNamespace(mean=torch.full((3,), mean)))
    ink = np.zeros((64, 64), np.uint8)
    ink[20:40, 20:40] = 255
    shown = picture.drawn(Images(3, 32, 32), ink, centre=True, bright=bright)
    assert shown.shape == (3, 32, 32) and shown[0, 0, 0] == corner and shown[0, 15, 15] == 255 - corner


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((1, 8, 8), [1, 8, 8]), ((3, 224, 224), [3, 64, 64]), ((1, 28, 140), [1, 28, 140]), ((3, 128, 192), [3, 64, 96])],
)
def test_thumbnails_keep_their_shape(shape, shown):
    found = picture.thumbnails(torch.full((2, *shape), 7, dtype=torch.uint8))
    assert found["shape"] == shown
    values = picture.unpacked(found, "pixels", (2, *shown))
    assert (values == 7).all()
