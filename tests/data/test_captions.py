"""Images keep their captions, and all captions of an image are in the same split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, PAD, UNKNOWN, Images, Tokens
from epochal.data import CaptionData
from epochal.data.batching import BatchIndices
from epochal.data.captions import read_list
from helpers.samples import album


def prepared(folder: Path, **options: Any) -> CaptionData:
    data = CaptionData(name="captions", path=str(folder), **{"batch_size": 2, "image_size": 8, **options})
    data.learns = "captions"
    data.prepare()
    return data


def images_of(data: CaptionData, split: str) -> list[int]:
    rows, count = data.rows(split)
    return rows[BatchIndices(torch.arange(count), 0)].inputs[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("listed", "below"),
    [("captions.csv", "."), ("captions.txt", "Images"), ("metadata.csv", "."), ("captions.csv", "images")],
)
def test_a_folder_of_images_with_captions(tmp_path, listed, below):
    data = prepared(album(tmp_path / "album", listed=listed, below=below), tokenizer="character")
    assert data.sizes() == {"train": 32, "val": 4, "test": 4}
    assert data.specs("captions") == (Images(3, 8, 8), Tokens(len(data.target_tokenizer), 40))
    for split in ("train", "val", "test"):
        rows, count = data.rows(split)
        made = rows[BatchIndices(torch.arange(count), 7)]
        for image, row, text in zip(images_of(data, split), made.targets.tolist(), data.references(split), strict=True):
            assert text in (f"A Dog, number {image}.", f"dog {image}")
            assert row[0] == BEGIN and row[len(text) + 1] == END and set(row[len(text) + 2 :]) <= {PAD}
            assert data.target_tokenizer.decode(row) == text


def test_all_captions_of_an_image_are_in_one_split(tmp_path):
    data = prepared(album(tmp_path / "album"), test=0.3, validation=5)
    parts = [images_of(data, split) for split in ("train", "val", "test")]
    assert [len(set(part)) for part in parts] == [9, 5, 6] and all(len(part) == 2 * len(set(part)) for part in parts)
    assert set.union(*map(set, parts)) == set(range(20))
    fewer = prepared(tmp_path / "album", test=0.3, validation=5, train_size=4)
    assert images_of(fewer, "test") == parts[2] and set(images_of(fewer, "train")) < set(parts[0])


def test_words_are_learned_from_the_training_captions_alone(tmp_path):
    data = prepared(album(tmp_path / "album"), min_count=3)
    train = data.references("train")
    assert set(data.target_tokenizer.vocabulary.split("\n")) == {"a", "dog", ",", "number", "."}
    assert train[0].startswith("a dog , number") or train[0].startswith("dog ")
    ids = data.rows("train")[0][BatchIndices(torch.tensor([0, 1]), 0)].targets
    assert (ids == UNKNOWN).sum() == 2  # the number, seen twice


def test_long_captions_are_cut_and_still_end(tmp_path):
    data = prepared(album(tmp_path / "album"), tokenizer="character", max_length=6)
    targets = data.rows("train")[0][BatchIndices(torch.arange(8), 0)].targets
    assert targets.shape == (8, 6) and (targets[:, 0] == BEGIN).all() and (targets == END).sum() == 8
    assert data.specs("captions")[1].length == 6


def test_another_runs_vocabulary_and_normalisation_are_loaded(tmp_path):
    first = prepared(album(tmp_path / "album"), tokenizer="character")
    other = CaptionData(name="captions", path=str(album(tmp_path / "other", count=9)), image_size=8, batch_size=2)
    other.load_state(first.state())
    other.prepare()
    assert other.target_tokenizer.vocabulary == first.target_tokenizer.vocabulary and other.kind == "character"
    assert torch.equal(other.mean, first.mean)


def test_images_are_normalised_by_the_training_images(tmp_path):
    data = prepared(album(tmp_path / "album"))
    rows, count = data.rows("train")
    given = data.on_after_batch_transfer(rows[BatchIndices(torch.arange(count), 0)], 0).inputs
    assert given.mean().item() == pytest.approx(0, abs=1e-4)


def test_a_folder_without_captions_is_refused(tmp_path):
    folder = album(tmp_path / "album")
    (folder / "captions.csv").unlink()
    with pytest.raises(ConfigError, match=r"album has no captions: put captions\.csv beside the images"):
        prepared(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,caption\n0.png\n", r"Line 2 of .*captions\.csv is not a file's name, a comma and a caption\."),
        ("0.png,a dog\n1.png, \n", r"Line 2 of .*captions\.csv is not a file's name, a comma and a caption\."),
        ("image,caption\n", r"captions\.csv lists no images\."),
        ("image,caption\nno.png,a dog\n", r"captions\.csv names no\.png, but there is no such file beside it\."),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(tmp_path, text, says):
    folder = album(tmp_path / "album")
    (folder / "captions.csv").write_text(text)
    with pytest.raises(ConfigError, match=says):
        prepared(folder)


def test_a_caption_may_hold_unquoted_commas(tmp_path):
    (tmp_path / "captions.txt").write_text('image,caption\na.jpg,A dog , a cat and an eel .\na.jpg,"One, two"\n')
    assert read_list(tmp_path / "captions.txt") == {"a.jpg": ["A dog , a cat and an eel .", "One, two"]}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"caption_columns": ["text"], "listed": "metadata.csv"}, r"dataset\.caption_columns=text is no column of"),
        ({"tokenizer": "syllable"}, r"dataset\.tokenizer=syllable is no tokenizer"),
        ({"max_length": 2}, r"dataset\.max_length=2 must be a whole number, 3 or more\."),
        ({"test": 30}, r"dataset\.test=30 makes 30 of 19 rows"),
        ({"batch_size": 500}, r"dataset\.batch_size=500 is larger than the 32 training rows"),
    ],
)
def test_wrong_options_are_refused(tmp_path, options, says):
    folder = album(tmp_path / "album", listed=options.pop("listed", "captions.csv"))
    with pytest.raises(ConfigError, match=says):
        prepared(folder, **options)


def test_an_empty_caption_of_a_table_is_refused(tmp_path):
    folder = album(tmp_path / "album", listed="metadata.csv")
    text = (folder / "metadata.csv").read_text().replace(",dog 3\n", ",\n")
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"Image \d+ of .*album, split train, has no caption, or an empty one"):
        prepared(folder)
