"""Digit captions: the caption names the digits in the strip, from left to right."""

from __future__ import annotations

from typing import Any

import torch

from epochal.core.specs import BEGIN, END, PAD, UNKNOWN, Images, Tokens
from epochal.data import DigitCaptions
from epochal.data.batching import BatchIndices
from epochal.data.digit_captions import WORDS


def strips(**options: Any) -> DigitCaptions:
    data = DigitCaptions(name="digit_captions", source="digits", **{"validation": 60, "test": 60, **options})
    data.learns = "captions"
    data.prepare()
    return data


def test_specs_hold_and_are_known_before_anything_is_made():
    specs = (Images(1, 8, 40), Tokens(14, 7))
    data = strips()
    assert data.specs("captions") == specs
    assert DigitCaptions.example_specs({"name": "x", "source": "digits", "length": 5}, "captions") == [specs]
    assert DigitCaptions.example_specs({"name": "x", "source": "mnist", "length": 3}, "captions") == [
        (Images(1, 28, 84), Tokens(14, 5))
    ]
    made = data.rows("train")[0][BatchIndices(torch.arange(9), 7)]
    assert made.inputs.shape == (9, 1, 8, 40) and made.inputs.dtype == torch.uint8 and made.lengths is None
    assert made.targets.shape == (9, 7) and len(data.rows("train")[0][BatchIndices(torch.arange(0), 7)].inputs) == 0


def test_captions_begin_end_and_are_padded_and_decode_to_the_references():
    data = strips()
    targets = data.rows("val")[0][BatchIndices(torch.arange(60), 0)].targets
    references = data.references("val")
    for row, text in zip(targets.tolist(), references, strict=True):
        words = text.split()
        assert row == [BEGIN, *(WORDS.index(word) + 4 for word in words), END, *[PAD] * (5 - len(words))]
        assert data.target_tokenizer.decode(row) == text
    assert {len(text.split()) for text in references} == {1, 2, 3, 4, 5}
    assert {word for text in references for word in text.split()} == set(WORDS)
    assert data.target_tokenizer.decode([UNKNOWN, 5, END, 6]) == "\N{REPLACEMENT CHARACTER} one"


def test_a_strip_shows_the_digits_of_its_caption_from_left_to_right():
    """Each digit's image, but for a column that its neighbour may cover, is found right of the one before it."""
    data = strips(length=3)
    images, labels = data.digits["test"]
    made = data.rows("test")[0][BatchIndices(torch.arange(30), 0)]
    for strip, ids in zip(made.inputs[:, 0], made.targets, strict=True):
        after = -1
        for token in ids[(ids >= 4)].tolist():
            inner = images[labels == token - 4][:, :, 1:-1].flatten(1)  # (N, 48)
            windows = strip[:, 1:-1].unfold(1, 6, 1).permute(1, 0, 2).flatten(1)  # (W, 48)
            found = (inner[:, None] == windows).all(2).any(0).nonzero().flatten()
            found = found[found > after]
            assert len(found)
            after = int(found[0]) + 5
    starts = {int(strip.any(0).nonzero()[0]) for strip in made.inputs[:, 0]}
    assert len(starts) > 5


def test_strips_of_test_and_validation_are_fixed_and_those_of_train_fresh():
    one, two = strips(seed=1), strips(seed=2)
    rows = torch.arange(20)
    assert torch.equal(
        one.rows("test")[0][BatchIndices(rows, 1)].inputs, two.rows("test")[0][BatchIndices(rows, 2)].inputs
    )
    assert not torch.equal(
        one.rows("train")[0][BatchIndices(rows, 1)].inputs, two.rows("train")[0][BatchIndices(rows, 2)].inputs
    )
    assert torch.equal(
        one.rows("test")[0][BatchIndices(rows, 1)].inputs[[4, 2]],
        one.rows("test")[0][BatchIndices(rows[[4, 2]], 1)].inputs,
    )


def test_pixels_are_normalised_after_the_transfer():
    data = strips()
    made = data.rows("val")[0][BatchIndices(torch.arange(4), 0)]
    given = data.on_after_batch_transfer(made, 0)
    assert torch.equal(given.inputs, data.normalise(made.inputs)) and torch.equal(
        data.pixels(given.inputs), made.inputs
    )
