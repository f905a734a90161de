"""Images as people have them: turned, transparent, deep, damaged; linked folders, and folders with unlucky names."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from epochal.core.errors import ConfigError
from epochal.core.specs import Images
from epochal.data import CaptionData, ImageData
from epochal.data.image_decoding import to_pixels
from helpers.samples import image_parquet, pixels


def prepared(path: Path | str, **options: Any) -> ImageData:
    data = ImageData(name="images", path=str(path), **{"batch_size": 2, **options})
    data.prepare()
    return data


def arrays(data: ImageData) -> np.ndarray:
    """All images of train, uint8 (N, C, H, W), in the order of the files."""
    return data.rows("train")[0].images.numpy()


def folder_of(folder: Path, images: list[Any], suffix: str, **options: Any) -> Path:
    """The images in two class folders, five times each, in their order."""
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images * 5):
            image.save(folder / name / f"{number:02d}{suffix}", **options)
    return folder


# -- pixels ---------------------------------------------------------------------------------------------------------

UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40  # 2 rows, 3 columns
STORED = {  # how a picture that is UPRIGHT is stored, by EXIF orientation
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].T,
    8: np.rot90(UPRIGHT, -1),
}


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_picture_is_upright(tmp_path, number, suffix):
    options = {"exif": oriented(number), **({"lossless": True} if suffix == ".webp" else {})}
    image = Image.fromarray(np.ascontiguousarray(STORED[number]))
    data = prepared(folder_of(tmp_path / "x", [image], suffix, **options))
    assert (data.inputs.height, data.inputs.width) == (2, 3)
    assert (arrays(data) == UPRIGHT).all()
    assert (to_pixels(tmp_path / "x" / "a" / f"00{suffix}", data.inputs) == UPRIGHT).all()


def test_damaged_exif_does_not_hide_the_picture(tmp_path):
    data = prepared(folder_of(tmp_path / "x", [Image.fromarray(UPRIGHT)], ".png", exif=b"Exif\0\0II*\0\xff\xff"))
    assert (arrays(data) == UPRIGHT).all()


def palette() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1, 1, 1]], np.uint8), "P")
    image.putpalette([9, 9, 9, 80, 80, 80])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "image, channels, right",
    [
        (Image.fromarray(np.array([[[0, 0], [0, 255], [100, 255], [0, 128]]], np.uint8), "LA"), 1, [255, 0, 100, 127]),
        (Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [7, 7, 7, 255]]], np.uint8)), 3, [255, 0, 7]),
        (palette(), 3, [255, 80, 80, 80]),
    ],
    ids=["grey", "colour", "palette"],
)
def test_what_is_transparent_is_white(tmp_path, image, channels, right):
    data = prepared(folder_of(tmp_path / "x", [image], ".png"))
    assert data.inputs.channels == channels
    assert (arrays(data) == np.array(right)).all()
    assert (data.encode([image])[0] == data.encode([tmp_path / "x" / "a" / "00.png"])[0]).all()


@pytest.mark.parametrize("background, right", [("black", (0, 0, 0)), ("#FF8000", (255, 128, 0)), ("white", (255,) * 3)])
def test_the_background_of_what_is_transparent_can_be_chosen(tmp_path, background, right):
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [9, 9, 9, 255]]], np.uint8))
    data = prepared(folder_of(tmp_path / "x", [image], ".png"), background=background)
    assert (arrays(data) == np.array([right, (9, 9, 9)]).T[:, None]).all()
    assert (data.pixels(data.encode([image])[0]) == data.rows("train")[0].images[0]).all()
    prepared(tmp_path / "x", background="blue")
    assert (arrays(prepared(tmp_path / "x", background=background))[0] == arrays(data)[0]).all(), "each has its cache"


@pytest.mark.parametrize("background", ["chartreuseish", "", 5, "#12345678", None])
def test_no_such_background(tmp_path, background):
    with pytest.raises(ConfigError, match=f"dataset.background={background} is no colour"):
        ImageData(name="images", path=str(tmp_path), background=background)


STEPS = np.arange(16).reshape(4, 4)  # times 17: 0 to 255


@pytest.mark.parametrize(
    "values, suffix",
    [
        ((STEPS * 4369).astype(np.uint16), ".png"),
        ((STEPS * 4369).astype(np.uint16), ".tif"),
        ((STEPS * 273).astype(np.uint16), ".png"),
        ((STEPS * 273).astype(np.uint16), ".tif"),
        ((STEPS * 68.2).astype(np.uint16), ".png"),
        ((STEPS * 17).astype(np.uint16), ".png"),
        ((STEPS * 4369).astype(">u2"), ".tif"),
        ((STEPS * 273).astype(">u2"), ".tif"),
        ((STEPS * 4369).astype(np.int32), ".tif"),
        ((STEPS * 1_000_000).astype(np.int32), ".tif"),
        ((STEPS - 7).astype(np.int32), ".tif"),
        ((STEPS / 15).astype(np.float32), ".tif"),
        ((STEPS * 17).astype(np.float32), ".tif"),
        ((STEPS * 300 - 1000).astype(np.float32), ".tif"),
    ],
)
def test_deep_images_keep_their_range(tmp_path, values, suffix):
    image = Image.frombytes("I;16B", (4, 4), values.tobytes()) if values.dtype == ">u2" else Image.fromarray(values)
    data = prepared(folder_of(tmp_path / "x", [image], suffix))
    assert data.inputs == Images(1, 4, 4)
    assert (arrays(data) == STEPS * 17).all()


def tiff_16(values: np.ndarray, order: str) -> bytes:
    """An uncompressed TIFF of colours (H, W, C), "<" or ">" uint16, as Pillow cannot write one."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    start = 8 + 2 + 12 * 10 + 4  # behind the only directory
    sizes = {256: width, 257: height, 258: start, 259: 1, 262: 2, 273: start + 2 * channels, 277: channels, 278: height}
    sizes |= {279: len(data), 284: 1}
    tags = [(tag, 4, 1, value) if tag != 258 else (tag, 3, channels, value) for tag, value in sizes.items()]
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    directory = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags) + struct.pack(f"{order}I", 0)
    return head + directory + struct.pack(f"{order}{channels}H", *[16] * channels) + data


def png_16(values: np.ndarray) -> bytes:
    """A PNG of colours (H, W, 3 or 4), uint16."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("factor", [17, 273, 4369, 257 * 17 - 9], ids=["8 bits", "12 bits", "16 bits", "uneven"])
@pytest.mark.parametrize("kind", ["png", "png with alpha", "tiff", "big-endian tiff"])
def test_deep_colours_keep_their_range(tmp_path, factor, kind):
    colours = np.stack([STEPS, STEPS[::-1], STEPS.T], axis=-1)
    values = (colours * factor).astype(np.uint16)
    if kind == "png with alpha":
        content = png_16(np.concatenate([values, np.full((4, 4, 1), 65535, np.uint16)], axis=2))
    else:
        content = png_16(values) if kind == "png" else tiff_16(values, ">" if "big" in kind else "<")
    for name in ("a", "b"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "x" / name / f"{number}.{'png' if 'png' in kind else 'tif'}").write_bytes(content)
    found = arrays(prepared(tmp_path / "x"))
    assert np.abs(found.astype(int) - (colours * 17).transpose(2, 0, 1)).max() <= (factor not in (17, 273, 4369))


def test_the_range_is_that_of_the_set_and_not_of_each_image(tmp_path):
    dark, bright = (Image.fromarray((STEPS * step).astype(np.uint16)) for step in (17, 273))
    data = prepared(folder_of(tmp_path / "x", [dark, bright], ".png"))
    assert arrays(data)[0].max() == 15 and arrays(data)[1].max() == 255
    again = ImageData(name="images", path=None, batch_size=2)
    again.load_state(data.state())
    again.restore(*data.specs("classes"))
    for loaded in (data, again):
        assert (
            loaded.pixels(loaded.encode([tmp_path / "x" / "a" / "00.png"])[0]) == data.rows("train")[0].images[0]
        ).all()


# -- damaged and huge files -----------------------------------------------------------------------------------------


def png_with(kind: bytes, content: bytes, image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    data = stream.getvalue()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]  # behind the header


@pytest.mark.parametrize(
    "kind, content",
    [
        (b"iCCP", b"huge\0\0" + zlib.compress(bytes(3_000_000))),
        (b"iCCP", b"broken\0\0no zlib stream"),
        (b"zTXt", b"huge\0\0" + zlib.compress(bytes(3_000_000))),
    ],
)
def test_profiles_and_texts_do_not_hide_the_picture(tmp_path, kind, content):
    (image,) = pixels(1, 4, 4, 3)
    data = folder_of(tmp_path / "x", [Image.fromarray(image)], ".png")
    (data / "a" / "03.png").write_bytes(png_with(kind, content, image))
    found = prepared(data)
    assert len(arrays(found)) == 10
    assert (arrays(found) == image.transpose(2, 0, 1)).all()
    assert (to_pixels(str(data / "a" / "03.png"), found.inputs) == image.transpose(2, 0, 1)).all()


def huge() -> bytes:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    data = png_with(b"tEXt", b"a\0b", np.zeros((1, 1), np.uint8))
    return data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]


def cut(suffix: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(1, 40, 40, 3)[0]).save(stream, suffix)
    return stream.getvalue()[:-900]


BROKEN = [(b"", "cannot be decoded"), (b"<html>", "cannot be decoded"), (cut("PNG"), "cannot be decoded")]
BROKEN += [(cut("JPEG"), "cannot be decoded"), (huge(), "has more than the 178,956,970 pixels")]


@pytest.mark.parametrize("content, fault", BROKEN, ids=["empty", "html", "cut png", "cut jpeg", "huge"])
def test_a_damaged_file_is_named(tmp_path, content, fault):
    data = folder_of(tmp_path / "x", [Image.fromarray(pixels(1, 4, 4, 3)[0])], ".png")
    (data / "b" / "03.png").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"/b/03\.png\), {fault}.* dataset\.skip_broken=true leaves out"):
        prepared(data, image_size=4)
    with pytest.raises(ConfigError, match=rf"/b/03\.png is no image that can be read: it {fault}"):
        to_pixels(data / "b" / "03.png", Images(3, 4, 4))


# -- folders --------------------------------------------------------------------------------------------------------


def files(folder: Path, names: str) -> Path:
    for seed, name in enumerate(names.split()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(1, 4, 4, seed=seed)[0]).save(folder / name)
    return folder


def each(*folders: str, names: str = "1 2 3 4 5 6") -> str:
    return " ".join(f"{folder}/{name}.png" for folder in folders for name in names.split())


@pytest.mark.parametrize(
    "names, classes, counts",
    [
        (each("train", "bus", "car"), "bus car train", {"train": 18}),
        (each("test", "val_a", "car"), "car test val_a", {"train": 18}),
        (each("cat", "dog", names="test_1 val_2 train_3 4 5 6"), "cat dog", {"train": 12}),
        (each("[red]", "a*b"), "[red] a*b", {"train": 12}),
        (each("train/a", "train/b", "test/a", "test/b"), "a b", {"train": 12, "test": 12}),
        (each("training_set/a", "training_set/b", "test_set/a"), "a b", {"train": 12, "test": 6}),
        (each("Train/a", "Train/b", "valid/b"), "a b", {"train": 12, "validation": 6}),
        (each("train/a", "train/b", "test"), "a b", {"train": 12}),
        (each("pets/a", "pets/b", "__MACOSX/a", ".git/c"), "a b", {"train": 12}),
    ],
)
def test_only_folders_of_splits_are_splits(tmp_path, names, classes, counts):
    from epochal.data import sources

    folder = files(tmp_path / "x", names)
    found = sources.open_splits(sources.locate("images", str(folder)), tmp_path / "scratch")
    assert {role: len(rows) for role, rows in found.items()} == counts
    assert prepared(folder).classes.names == tuple(classes.split())


def test_pictures_of_unusual_kinds_are_read_and_the_others_told(tmp_path, capsys):
    folder = tmp_path / "x"
    for number, suffix in enumerate(["PNG", "JPG", "jpeg", "jfif", "mpo", "TIFF", "bmp", "gif", "webp", "tga", "ppm"]):
        for name in ("a", "b"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            image, other = (Image.fromarray(pixels(1, 4, 4, 3, seed=seed)[0]) for seed in (number, 99))
            several = {"save_all": True, "append_images": [other]} if suffix in ("mpo", "gif", "webp") else {}
            image.save(folder / name / f"{number}.{suffix}", format="JPEG" if suffix == "PNG" else None, **several)
    modes = {"cmyk": ("CMYK", "jpg"), "bit": ("1", "png"), "lab": ("LAB", "tif"), "palette": ("P", "png")}
    for name, (mode, suffix) in modes.items():
        image = Image.fromarray(pixels(1, 4, 4, 3)[0])
        (Image.new("LAB", (4, 4)) if mode == "LAB" else image.convert(mode)).save(folder / "a" / f"{name}.{suffix}")
    for name in ("a/x.heic", "b/y.HEIC", "b/z.svg"):
        (folder / name).write_bytes(b"x")
    data = prepared(folder)
    assert len(arrays(data)) == 26 and data.inputs == Images(3, 4, 4)
    assert f"Left out 3 files of {folder} (.heic, .svg), which Pillow cannot read" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_named(tmp_path):
    folder = files(tmp_path / "x", each("a", "b"))
    try:
        (folder / "a" / "\udcff.png").write_bytes((folder / "a" / "1.png").read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system has only names of Unicode")
    with pytest.raises(ConfigError, match=r"The name of the file b'a/\\xff.png' in .* is not UTF-8; rename it"):
        prepared(folder)


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    data = ImageData(name="images", path=str(files(tmp_path / "x", each("a/b", "c/b"))), batch_size=2)
    data.prepare()
    data.learns = "classes"
    with pytest.raises(ConfigError, match="have the same label: there is nothing to tell apart"):
        data.prepare()


@pytest.mark.parametrize(
    "names, sentence",
    [
        (each("train/a", "train/b", "test/a", "test/eel"), r"labels in test that train does not have: eel\."),
        (each("train/a", "train/b", "test/a", "spare/a"), "beside them spare: move what is no split"),
        (each("train", "test"), "must have a folder in it for each class"),
    ],
)
def test_folders_that_cannot_be_right(tmp_path, names, sentence):
    with pytest.raises(ConfigError, match=sentence):
        prepared(files(tmp_path / "x", names))


@pytest.mark.parametrize("linked", [("a",), ("a", "b"), ()])
def test_linked_folders_and_files_are_followed(tmp_path, linked):
    real, folder = files(tmp_path / "real", each("a", "b")), tmp_path / "x"
    folder.mkdir()
    for name in ("a", "b"):
        if name in linked:
            (folder / name).symlink_to(real / name)
        else:
            (folder / name).mkdir()
            for file in (real / name).iterdir():
                (folder / name / file.name).symlink_to(file)
    (folder / "back").symlink_to(folder)  # a circle
    data = prepared(folder)
    assert data.classes.names == ("a", "b") and np.array_equal(arrays(data), arrays(prepared(real)))
    files(real, "a/7.png")
    if "a" in linked:
        assert len(arrays(prepared(folder))) == 13, "the old cache is not taken"


# -- rows to leave out ----------------------------------------------------------------------------------------------


def test_damaged_files_are_left_out_if_asked_for_and_named(tmp_path, capsys):
    data = folder_of(tmp_path / "x", [Image.fromarray(image) for image in pixels(2, 4, 4, 3)], ".png")
    whole = prepared(data)
    for name in ("a/03.png", "b/00.png"):
        (data / name).write_bytes(cut("PNG"))
    found = prepared(data, skip_broken=True)
    kept = [n for n in range(20) if n not in (3, 10)]
    assert np.array_equal(arrays(found), arrays(whole)[kept])
    assert np.array_equal(found.rows("train")[0].labels, whole.rows("train")[0].labels[kept])
    said = capsys.readouterr().err
    assert "/a/03.png), cannot be decoded." in said and "Left out 2 of 20 images" in said
    for file in data.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="No image of .* can be decoded"):
        prepared(data, skip_broken=True)


def captioned(folder: Path, images: list[Any]) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    lines = [f"{number}.png,{word} {number}" for number in range(len(images)) for word in ("a", "one")]
    (folder / "captions.csv").write_text("\n".join(lines))
    return folder


def test_damaged_files_with_captions_are_left_out_if_asked_for(tmp_path, capsys):
    folder = captioned(tmp_path / "x", [Image.fromarray(image) for image in pixels(20, 4, 4, 3)])
    whole = CaptionData(name="captions", path=str(folder), batch_size=2)
    whole.prepare()
    (folder / "7.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"/7\.png\), cannot be decoded.* dataset\.skip_broken=true leaves out"):
        CaptionData(name="captions", path=str(folder), batch_size=2).prepare()
    found = CaptionData(name="captions", path=str(folder), batch_size=2, skip_broken=True)
    found.prepare()
    assert "Left out 1 of 20 images" in capsys.readouterr().err
    kept = [text for split in ("train", "val", "test") for text in found.references(split)]
    assert sorted(kept) == sorted(f"{word} {n}" for n in range(20) if n != 7 for word in ("a", "one"))
    rows = found.rows("train")[0]
    image = rows.images[rows.image[0]]
    number = int(found.references("train")[0].split()[1])
    assert np.array_equal(image, pixels(20, 4, 4, 3)[number].transpose(2, 0, 1)), "captions stay with their images"


def test_deep_images_with_captions_keep_their_range(tmp_path):
    images = [Image.fromarray((STEPS * step).astype(np.uint16)) for step in (17, 273)] * 10
    data = CaptionData(name="captions", path=str(captioned(tmp_path / "x", images)), batch_size=2)
    data.prepare()
    assert sorted({int(image.max()) for image in data.rows("train")[0].images}) == [15, 255]


@pytest.mark.parametrize("typed", [True, False], ids=["ClassLabel", "int"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_one_image_marked_as_without_a_label_is_named(tmp_path, split, typed):
    import datasets

    for role in ("train", "test"):
        labels = [0, 1] * 10
        labels[7] = -1 if role == split else 1
        file = image_parquet(tmp_path / f"{role}.parquet", pixels(20, 4, 4), labels)
        rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "arrow"))
        (tmp_path / "set").mkdir(exist_ok=True)
        rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b"])) if typed else rows
        rows.to_parquet(str(tmp_path / "set" / file.name))
    with pytest.raises(ConfigError, match=rf"Image 7 of .*, split {split}, has the label -1"):
        prepared(tmp_path / "set")


@pytest.mark.parametrize("label", [10**9, 2**62])
def test_labels_that_are_no_numbers_of_classes_are_refused(tmp_path, label):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 2, label]))
    with pytest.raises(ConfigError, match=f"has labels up to {label}; they must be numbers of classes"):
        prepared(tmp_path / "x.npz")
