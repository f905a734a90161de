"""Images: read from every kind of source, decoded without loss, split without overlap, augmented by the batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from epochal.core.errors import ConfigError
from epochal.core.specs import Images
from epochal.data import ImageData, image_decoding
from epochal.data.batching import BatchIndices
from epochal.data.images import ImageRows, augment, statistics
from helpers.samples import image_folder, image_npz, image_parquet, pixels

PLAIN = {"crop_padding": 0, "flip": False, "cutout": 0}


def prepared(path: Path | str, **options: Any) -> ImageData:
    data = ImageData(name="images", path=str(path), **{"batch_size": 2, **options})
    data.prepare()
    return data


def rows_of(data: ImageData, split: str) -> set[int]:
    return set(data.rows(split)[0].rows.tolist())


# -- sources --------------------------------------------------------------------------------------------------------


def test_digits_ship_with_the_package():
    data = prepared("package:digits.npz")
    assert data.inputs == Images(1, 8, 8)
    assert data.classes.names == tuple("0123456789")
    assert data.sizes() == {"train": 1294, "val": 144, "test": 359}


def test_a_folder_for_each_class(tmp_path):
    folder = image_folder(tmp_path / "photos", classes=("cat", "dog", "eel"))
    data = prepared(folder)
    assert data.inputs == Images(3, 8, 8) and data.classes.names == ("cat", "dog", "eel")
    assert sum(data.sizes().values()) == 30
    rows, _ = data.rows("train")
    files = {np.asarray(Image.open(file)).tobytes(): file.parent.name for file in folder.rglob("*.png")}
    for image, label in zip(rows.images, rows.labels, strict=True):
        assert files[image.permute(1, 2, 0).numpy().tobytes()] == data.classes.names[label]


def test_parquet_with_splits_of_its_own(tmp_path):
    sizes = {"train": 20, "validation": 7, "test": 5}
    for seed, (split, count) in enumerate(sizes.items()):
        labels = [i % 3 for i in range(count)]
        image_parquet(tmp_path / "set" / f"{split}.parquet", pixels(count, 6, 9, 3, seed=seed), labels)
    data = prepared(tmp_path / "set", validation=0.5, test=0.5)
    assert data.inputs == Images(3, 6, 9) and data.classes.names == ("0", "1", "2")
    assert data.sizes() == {"train": 20, "val": 7, "test": 5}
    for seed, split in enumerate(("train", "val", "test")):
        images = data.rows(split)[0].images
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), pixels(len(images), 6, 9, 3, seed=seed))


def test_npz_of_grey_images(tmp_path):
    data = prepared(image_npz(tmp_path / "set.npz", count=60))
    assert data.inputs == Images(1, 8, 8) and data.classes.count == 3
    assert np.array_equal(data.rows("train")[0].images[:, 0].numpy(), pixels(60, 8, 8))


@pytest.mark.parametrize("shape, channels", [((8, 8), 1), ((8, 8, 3), 3)])
def test_grey_stays_grey_and_colour_colour(tmp_path, shape, channels):
    images = pixels(12, *shape)
    data = prepared(image_parquet(tmp_path / "set.parquet", images, [0, 1] * 6))
    assert data.inputs == Images(channels, 8, 8)
    found = data.rows("train")[0].images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
    assert np.array_equal(found, images.reshape(12, 8, 8, channels))


def test_one_colour_image_makes_the_set_a_colour_one(tmp_path):
    image_folder(tmp_path / "photos")
    Image.fromarray(pixels(1, 8, 8)[0]).save(tmp_path / "photos" / "cat" / "0.png")
    assert prepared(tmp_path / "photos").inputs.channels == 3


def test_labels_may_be_words_and_columns_named(tmp_path):
    file = image_parquet(tmp_path / "set.parquet", pixels(12, 8, 8, 3), ["no", "yes"] * 6, column="answer")
    with pytest.raises(ConfigError, match="no column that looks like the labels"):
        prepared(file)
    data = prepared(file, label_column="answer")
    assert data.classes.names == ("no", "yes")
    assert data.rows("train")[0].labels.tolist() == [0, 1] * 6


def test_labels_must_be_one_word_or_number_each(tmp_path):
    for name, labels in (("reals", [0.5, 1.5] * 6), ("lists", [[0], [1, 2]] * 6), ("gaps", [0, None] * 6)):
        file = image_parquet(tmp_path / f"{name}.parquet", pixels(12, 8, 8, 3), labels)
        with pytest.raises(ConfigError, match="label does not hold|label of .* does not hold"):
            prepared(file)


def test_labels_of_the_test_split_that_train_does_not_have(tmp_path):
    image_parquet(tmp_path / "set" / "train.parquet", pixels(6, 8, 8), ["a", "b"] * 3)
    image_parquet(tmp_path / "set" / "test.parquet", pixels(6, 8, 8), ["a", "c"] * 3)
    with pytest.raises(ConfigError, match=r"labels in test that train does not have: c\."):
        prepared(tmp_path / "set")


def test_images_are_brought_to_one_size(tmp_path):
    image_folder(tmp_path / "photos", classes=("cat",), side=8)
    image_folder(tmp_path / "photos", classes=("dog",), side=12)
    assert prepared(tmp_path / "photos", image_size=6).inputs == Images(3, 6, 6)


@pytest.mark.parametrize("shape", [(60, 8, 10), (60, 3, 8, 10)])
def test_images_of_an_npz_file_are_brought_to_one_size(tmp_path, shape):
    pixels = np.full(shape, 7, np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(60) % 2)
    data = prepared(tmp_path / "x.npz", image_size=16, batch_size=2)
    assert (data.inputs.channels, data.inputs.height, data.inputs.width) == (
        len(shape) - 2 if len(shape) == 3 else 3,
        16,
        16,
    )
    assert bool((data.rows("train")[0].images == 7).all())


def test_pixels_are_normalised_by_the_training_images():
    data = prepared("package:digits.npz")
    rows, _ = data.rows("train")
    images = data.normalise(rows.images[rows.rows])
    assert images.mean().item() == pytest.approx(0, abs=1e-4) and images.std().item() == pytest.approx(1, abs=1e-3)
    data.use_image_range("symmetric")
    ends = data.normalise(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert ends.flatten().tolist() == [-1, 1]
    assert torch.equal(data.pixels(data.normalise(rows.images[:9])), rows.images[:9])


# -- splits ---------------------------------------------------------------------------------------------------------


def test_permuted_pixels_are_the_same_ones_elsewhere_and_in_every_image():
    plain, permuted = prepared("package:digits.npz"), prepared("package:digits.npz", permuted=True)
    images = plain.rows("train")[0].images[:5]
    before, after = plain.normalise(images).flatten(1), permuted.normalise(images).flatten(1)
    assert torch.equal(before[:, permuted._order], after)
    assert torch.equal(permuted._order.sort().values, torch.arange(64))
    assert not torch.equal(before, after)
    again = prepared("package:digits.npz", permuted=True, seed=9)
    assert torch.equal(again.normalise(images).flatten(1), after)


def test_splits_share_no_image_and_leave_none_out():
    data = prepared("package:digits.npz")
    parts = [rows_of(data, split) for split in ("train", "val", "test")]
    assert set.union(*parts) == set(range(1797)) and sum(map(len, parts)) == 1797


def test_what_is_held_out_does_not_depend_on_the_runs_seed():
    one, two, other = (prepared("package:digits.npz", seed=s, split_seed=t) for s, t in ((1, 0), (2, 0), (1, 5)))
    for split in ("train", "val", "test"):
        assert rows_of(one, split) == rows_of(two, split) != rows_of(other, split)


def test_splits_hold_the_classes_in_proportion():
    data = prepared("package:digits.npz", train_size=200)
    fractions = np.bincount(data.rows("train")[0].labels, minlength=10) / 1797
    for split in ("train", "val", "test"):
        rows, count = data.rows(split)
        found = np.bincount(rows.labels[rows.rows], minlength=10)
        assert np.abs(found - fractions * count).max() <= 2


def test_the_test_split_does_not_depend_on_validation_or_train_size():
    test = rows_of(prepared("package:digits.npz"), "test")
    assert rows_of(prepared("package:digits.npz", validation=0.5), "test") == test
    assert rows_of(prepared("package:digits.npz", train_size=10), "test") == test


def test_a_smaller_training_set_is_part_of_a_larger_one():
    sizes = [prepared("package:digits.npz", train_size=size) for size in (50, 0.25, 1000, None)]
    parts = [rows_of(data, "train") for data in sizes]
    assert [len(part) for part in parts] == [50, 324, 1000, 1294]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    assert len({frozenset(rows_of(data, "val")) for data in sizes}) == 1


def test_parts_may_be_counts_or_fractions():
    assert prepared("package:digits.npz", test=97, validation=0.5).sizes() == {"train": 850, "val": 850, "test": 97}


def test_a_test_split_without_labels_is_left_out(tmp_path):
    import datasets

    for split, labels in (("train", [0, 1] * 10), ("test", [-1] * 4)):
        file = image_parquet(tmp_path / f"{split}.parquet", pixels(len(labels), 8, 8), labels)
        rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "arrow"))
        (tmp_path / "set").mkdir(exist_ok=True)
        rows.cast_column("label", datasets.ClassLabel(names=["a", "b"])).to_parquet(str(tmp_path / "set" / file.name))
    data = prepared(tmp_path / "set")
    assert data.classes.names == ("a", "b")
    assert data.sizes() == {"train": 14, "val": 2, "test": 4}


def test_a_batch_is_one_gather():
    data = prepared("package:digits.npz")
    rows, _ = data.rows("val")
    batch = rows[BatchIndices(torch.tensor([3, 0]), 7)]
    assert torch.equal(batch.inputs, rows.images[rows.rows[[3, 0]]]) and batch.seed == 7
    assert batch.targets.tolist() == rows.labels[rows.rows[[3, 0]]].tolist()
    (first, *_), loader = iter(data.val_dataloader()), data.val_dataloader()
    assert torch.equal(first.targets, rows.labels[rows.rows])
    assert loader.num_workers == 0


# -- augmentation ---------------------------------------------------------------------------------------------------


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(pixels(64, 3, 10, 12))


EACH = [{"crop_padding": 2}, {"flip": True}, {"cutout": 4}, {"crop_padding": 3, "flip": True, "cutout": 5}]


@pytest.mark.parametrize("options", EACH)
def test_the_seed_alone_decides(images, options):
    given = images.clone()
    first = augment(images, 1, **{**PLAIN, **options})
    torch.manual_seed(7)
    assert torch.equal(augment(images, 1, **{**PLAIN, **options}), first)
    assert not torch.equal(augment(images, 2, **{**PLAIN, **options}), first)
    assert torch.equal(images, given) and first.shape == images.shape and first.dtype == torch.uint8


@pytest.mark.parametrize("options", EACH)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_draw_what_one_would(images, options, world):
    whole = augment(images, 1, **{**PLAIN, **options})
    for rank in range(world):
        part = augment(images[rank::world], 1, **{**PLAIN, **options}, rank=rank, world=world)
        assert torch.equal(part, whole[rank::world])


def test_nothing_asked_for_changes_nothing(images):
    assert torch.equal(augment(images, 1, **PLAIN), images)


def test_a_crop_is_the_image_moved_over_black(images):
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = set()
    for image, frame in zip(augment(images, 1, **{**PLAIN, "crop_padding": 2}), padded, strict=True):
        windows = {(y, x): frame[:, y : y + 10, x : x + 12] for y in range(5) for x in range(5)}
        (place,) = [where for where, window in windows.items() if torch.equal(window, image)]
        places.add(place)
    assert len(places) > 15  # of 25, by 64 images
    assert {y for y, _ in places} == {x for _, x in places} == set(range(5))


def test_a_flip_mirrors_about_every_second_image(images):
    found = augment(images, 1, **{**PLAIN, "flip": True})
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(found, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 20 < sum(mirrored) < 44


def test_cutout_blanks_one_square_of_all_channels_and_nothing_else(images):
    bright = images.clamp(min=1)
    areas = []
    for new, old in zip(augment(bright, 1, **{**PLAIN, "cutout": 4}), bright, strict=True):
        blank = (new == 0).all(0)
        assert torch.equal(new, old.masked_fill(blank, 0))
        rows, columns = blank.any(1).nonzero().flatten(), blank.any(0).nonzero().flatten()
        assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # one rectangle, no hole
        assert len(rows) <= 4 and len(columns) <= 4
        areas.append(int(blank.sum()))
    assert max(areas) == 16 and min(areas) >= 4  # cut off where its centre is at the edge


def test_only_training_batches_are_augmented():
    from types import SimpleNamespace

    data = prepared("package:digits.npz", flip=True, crop_padding=2)
    rows, _ = data.rows("train")
    batch = rows[BatchIndices(torch.arange(32), 3)]
    for training in (True, False):
        data.trainer = SimpleNamespace(training=training, global_rank=0, world_size=1, lightning_module=None)  # type: ignore[assignment]
        found = data.on_after_batch_transfer(batch, 0).inputs
        assert torch.equal(found, data.normalise(batch.inputs)) is not training


def test_pixels_undoes_the_normalisation():
    data = prepared("package:digits.npz")
    images = data.rows("val")[0].images[:9]
    assert torch.equal(data.pixels(data.normalise(images)), images)


# -- memory ---------------------------------------------------------------------------------------------------------


def test_statistics_of_many_large_images_are_counted_in_parts(tmp_path, monkeypatch):
    data = prepared(image_parquet(tmp_path / "set.parquet", pixels(60, 8, 9, 3), [0, 1] * 30))
    train = data.rows("train")[0]
    train = ImageRows(train.images, train.labels, torch.arange(60))
    monkeypatch.setattr("epochal.data.images.AT_ONCE", 16 * 7 * 216)  # seven images at a time
    parts = []
    monkeypatch.setattr("epochal.data.cache.gather", lambda a, rows: (parts.append(len(rows)), a[rows])[1])
    exact = train.images.double() / 255
    for found, right in zip(statistics(train), (exact.mean((0, 2, 3)), exact.std((0, 2, 3))), strict=True):
        assert found.dtype == torch.float32 and torch.allclose(found, right.float(), atol=0, rtol=1e-7)
    assert max(parts) == 7 and sum(parts) == 60


def test_statistics_are_computed_once_for_the_rows_that_are_trained_on(monkeypatch):
    first = prepared("package:digits.npz")
    with monkeypatch.context() as patch:
        patch.setattr("epochal.data.images.statistics", lambda _: pytest.fail("computed again"))
        again = prepared("package:digits.npz", seed=7)
    assert again.state() == first.state() and again.fingerprint == first.fingerprint
    assert prepared("package:digits.npz", train_size=50).state() != first.state()
    assert all(torch.equal(*pair) for pair in zip(statistics(first.rows("train")[0]), (first.mean, first.std)))


def test_decoding_holds_a_few_encoded_images(tmp_path, monkeypatch):
    monkeypatch.setattr("epochal.data.image_decoding.WAITING", 2)
    read, done, most = [], [], []
    items = image_decoding._items

    def counted(*arguments):
        for item in items(*arguments):
            read.append(item)
            most.append(len(read) - len(done))
            yield item

    monkeypatch.setattr("epochal.data.image_decoding._items", counted)
    rows = image_parquet(tmp_path / "set.parquet", pixels(600, 4, 4), [0] * 600)
    source = datasets.load_dataset("parquet", data_files=str(rows), cache_dir=str(tmp_path / "scratch"))["train"]
    image_decoding._in_threads(lambda number, item: done.append(number), source, "image")
    assert sorted(done) == list(range(600)) and max(most) <= 2 * (os.cpu_count() or 1) + 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("images", [pixels(60, 8, 6), np.asfortranarray(pixels(60, 8, 6))], ids=["rows", "columns"])
def test_an_npz_file_is_read_some_images_at_a_time(tmp_path, monkeypatch, save, images):
    monkeypatch.setattr("epochal.data.image_decoding.BLOCK", 7 * 48)
    save(tmp_path / "set.npz", images=images, labels=np.arange(60) % 3)
    assert np.array_equal(prepared(tmp_path / "set.npz").rows("train")[0].images[:, 0].numpy(), images)
