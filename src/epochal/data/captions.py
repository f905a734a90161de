"""Anybody's pictures with sentences about them."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, Images, Inputs, Outputs, Tokens
from epochal.data import cache, ragged, sources, tokenizers
from epochal.data.batching import Batch, BatchIndices
from epochal.data.chance import check_count
from epochal.data.datamodule import count_of
from epochal.data.images import ImageData, ImageRows, common_shape, decode_one, encoded_images
from epochal.data.ragged import Ragged

LISTS = ("captions.csv", "captions.txt")  # names of a list of files and captions; Flickr8k comes with the latter
FOLDERS = (".", "images", "Images")  # where the files are that it names
CAPTIONS = ("caption", "text", "sentence", "description")  # how columns with captions begin
IMAGE = "image"
TOKENIZERS = ("word", "bpe", "character", "byte")


class CaptionRows(Dataset[Batch]):
    """Images and a caption each, from BEGIN to END; an image has a row for each of its captions."""

    def __init__(self, images: Tensor, image: Tensor, captions: Ragged) -> None:
        self.images, self.image, self.captions = images, image, captions  # image: which one a row has

    def __getitem__(self, batch: BatchIndices) -> Batch:
        images = self.images.index_select(0, self.image[batch.numbers])
        return Batch(images, self.captions.padded(batch.numbers)[0], batch.seed)


class CaptionData(ImageData):
    """Pictures with one caption or more each, from the Hub or a folder.

    The folder holds the pictures and `captions.csv`, whose lines are a file's name and a caption, as often as a picture
    has captions; or `metadata.csv` with the columns file_name and caption, as `datasets` reads it. Without a test split of
    its own, part of train becomes it; the same for validation, picture by picture. What is held out depends on `split_seed`
    alone.

    Args:
        name, batch_size, eval_batch_size, seed: See `Data`.
        path: Id on the Hub or folder.
        config, revision: Which part and version of a set on the Hub.
        image_column: Guessed from the features where None.
        caption_columns: Those with a caption, or a list of them, each; guessed from their names where None.
        image_size: Side in pixels to which every picture is resized and cropped; None keeps them, if they are alike.
        tokenizer: "word", "bpe", "character" or "byte"; words are in small letters.
        vocab_size: Tokens at most, for words and bpe.
        min_count: How often a word must occur to be known.
        max_length: Tokens of a caption, BEGIN and END among them; longer ones are cut.
        validation, test: Count or fraction of the pictures of train to hold out where the set has no such split.
        train_size: Count or fraction of its pictures to learn from; None is all.
        split_seed, crop_padding, flip, cutout: See `ImageData`.

    Raises:
        ConfigError: If there is no such tokenizer, or a number is out of range.
    """

    tasks: ClassVar = ("captioning",)  # type: ignore[assignment]  # other ones than those of images with labels

    def __init__(
        self,
        *,
        name: str,
        path: str | None,
        config: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        caption_columns: list[str] | None = None,
        image_size: int | None = None,
        tokenizer: str = "word",
        vocab_size: int = 8_000,
        min_count: int = 1,
        max_length: int = 40,
        validation: int | float = 0.1,
        test: int | float = 0.1,
        train_size: int | float | None = None,
        split_seed: int = 0,
        batch_size: int = 64,
        eval_batch_size: int = 128,
        crop_padding: int = 0,
        flip: bool = False,
        cutout: int = 0,
        seed: int = 1,
    ) -> None:
        super().__init__(
            name=name,
            path=path,
            config=config,
            revision=revision,
            image_column=image_column,
            image_size=image_size,
            validation=validation,
            test=test,
            train_size=train_size,
            split_seed=split_seed,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            crop_padding=crop_padding,
            flip=flip,
            cutout=cutout,
            seed=seed,
        )
        tokenizers.check_kind(tokenizer, TOKENIZERS)
        check_count("vocab_size", vocab_size)
        check_count("min_count", min_count)
        check_count("max_length", max_length, 3)
        self.caption_columns = None if caption_columns is None else list(caption_columns)
        self.kind, self.vocab_size, self.min_count, self.max_length = tokenizer, vocab_size, min_count, max_length
        self._vocabulary: str | None = None  # another run's, if it was adopted

    def prepare(self) -> None:
        source = sources.locate(self.name, self.path, config=self.config, revision=self.revision)
        key = source.fingerprint() | {"image": self.image_column, "captions": self.caption_columns}
        key |= {"size": self.image_size, "tokenizer": self.kind, "vocab_size": self.vocab_size}
        key |= {"min_count": self.min_count, "max_length": self.max_length, "vocabulary": self._vocabulary}
        key |= {"validation": self.validation, "test": self.test, "train_size": self.train_size}
        key |= {"split_seed": self.split_seed}
        folder = cache.cached(self.name, key, lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.target_tokenizer = tokenizers.restore(self.kind, meta["vocabulary"], tokenizers.RESERVED)
        self._rows, self._texts = {}, {}
        for split, role in meta["roles"].items():
            images, image = (cache.read_array(folder / f"{name}.npy") for name in (f"{role}_images", f"{split}_image"))
            self._rows[split] = CaptionRows(images, image, Ragged.read(folder, f"{split}_captions"))
            self._texts[split] = Ragged.read(folder, f"{split}_texts")
        train = self._rows["train"]
        self.inputs = Images(*train.images.shape[1:])
        self.normalise_by(ImageRows(train.images, train.image, train.image.unique()))
        self.check_batch_size(len(train.image))

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes the images of each role, the captions of each split, and tells what they are."""
        pictures, captions = self._read(source, building / "scratch")
        size, mode = common_shape(source, pictures, IMAGE, self)
        for role, rows in pictures.items():
            shape = (len(rows), len(mode), size[1], size[0])
            images = cache.create_array(building / f"{role}_images.npy", shape, np.uint8)

            def load(number: int, item: dict[str, Any], role: str = role, images: np.ndarray = images) -> None:
                images[number] = decode_one(source, role, number, item, size, mode)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(load, range(len(rows)), encoded_images(rows, IMAGE)):
                    pass
        shutil.rmtree(building / "scratch", ignore_errors=True)

        chosen = self._chosen({role: len(each) for role, each in captions.items()})
        texts = {s: [text for i in rows for text in captions[role][i]] for s, (role, rows) in chosen.items()}
        if self._vocabulary is not None:
            tokenizer = tokenizers.restore(self.kind, self._vocabulary, tokenizers.RESERVED)
        else:
            sizes = {"vocab_size": self.vocab_size, "min_count": self.min_count}
            tokenizer = tokenizers.learn(self.kind, texts["train"], **sizes)
        for split, (role, rows) in chosen.items():
            image = np.repeat(rows, [len(captions[role][i]) for i in rows])
            cache.create_array(building / f"{split}_image.npy", image.shape, np.int64)[:] = image
            values, lengths = ragged.cut(*tokenizer.encode_all(texts[split]), self.max_length - 2)
            ends = ragged.offsets_of(lengths)
            values = np.insert(np.insert(values, ends[1:], END), ends[:-1] + np.arange(len(lengths)), BEGIN)
            ragged.write(building, f"{split}_captions", values, lengths + 2, ragged.smallest(len(tokenizer)))
            shown = (
                [" ".join(tokenizers.WORD.findall(t.lower())) for t in texts[split]]
                if self.kind == "word"
                else texts[split]
            )
            ragged.write_texts(building, f"{split}_texts", shown)
        return {"vocabulary": tokenizer.vocabulary, "roles": {split: role for split, (role, _) in chosen.items()}}

    def _chosen(self, counts: dict[str, int]) -> dict[str, tuple[str, np.ndarray]]:
        """Of each split the role whose pictures it has, and which ones."""
        order = np.random.default_rng(self.split_seed).permutation(counts["train"])
        chosen = {}
        for split, role, share in (("test", "test", self.test), ("val", "validation", self.validation)):
            if role in counts:
                chosen[split] = role, np.arange(counts[role])
            else:
                held = count_of(share, len(order) - 1, f"dataset.{role}")
                chosen[split], order = ("train", np.sort(order[:held])), order[held:]
        chosen["train"] = "train", np.sort(order[: count_of(self.train_size, len(order), "dataset.train_size")])
        return chosen

    def _read(self, source: sources.Source, scratch: Path) -> tuple[dict[str, Any], dict[str, list[list[str]]]]:
        """By role (train, validation, test): rows with the encoded pictures as IMAGE, and the captions of each."""
        import datasets

        if source.local is not None and (listed := next((f for n in LISTS if (f := source.local / n).is_file()), None)):
            captions = read_list(listed)
            files = [{"bytes": None, "path": str(_find(listed, name))} for name in captions]
            made = datasets.Dataset.from_dict({IMAGE: files})
            return {"train": made.cast_column(IMAGE, datasets.Image(decode=False))}, {"train": list(captions.values())}
        pictures, found = {}, {}
        for role, rows in sources.open_splits(source, scratch).items():
            image = self.image_column or next(
                (n for n, f in rows.features.items() if isinstance(f, datasets.Image)), None
            )
            sources.check_column(source, "image_column", image, rows.column_names)
            if not isinstance(rows.features[image], datasets.Image):
                raise ConfigError(
                    f"The column {image} of {source.path} holds no images; name the one that does by dataset.image_column."
                )
            found[role] = self._captions(source, role, rows.select_columns(self._caption_columns(source, rows)))
            pictures[role] = rows.cast_column(image, datasets.Image(decode=False))
            if image != IMAGE:
                pictures[role] = pictures[role].select_columns([image]).rename_column(image, IMAGE)
        return pictures, found

    def _caption_columns(self, source: sources.Source, rows: Any) -> list[str]:
        if self.caption_columns is not None:
            for column in self.caption_columns:
                sources.check_column(source, "caption_columns", column, rows.column_names)
            return self.caption_columns
        columns = [name for name in rows.column_names if name.lower().startswith(CAPTIONS)]
        if not columns:
            raise ConfigError(
                f"{source.path} has no captions: put captions.csv beside the pictures, with a file's name and a caption a "
                f"line, or name its columns by dataset.caption_columns. It has: {', '.join(rows.column_names)}."
            )
        return columns

    def _captions(self, source: sources.Source, role: str, rows: Any) -> list[list[str]]:
        captions = []
        for number, row in enumerate(rows.with_format("arrow")[:].to_pylist()):
            values = [text for value in row.values() for text in (value if isinstance(value, list) else [value])]
            texts = [text.strip() if isinstance(text, str) else "" for text in values]
            if not texts or not all(texts):
                raise ConfigError(
                    f"Picture {number} of {source.path}, split {role}, has no caption, or an empty one. Write it or leave the "
                    "picture out."
                )
            captions.append(texts)
        return captions

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], task: str) -> list[tuple[Inputs, Outputs]]:
        sizes = [config.get("vocab_size"), config.get("max_length")]
        vocab_size, length = (s if isinstance(s, int) and s > 0 else u for s, u in zip(sizes, (8000, 40), strict=True))
        return [(images, Tokens(vocab_size, length)) for images, _ in super().example_specs(config, task)]

    def specs(self, task: str) -> tuple[Inputs, Outputs]:
        return self.inputs, Tokens(len(self.target_tokenizer), self.max_length)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "tokenizer": self.kind, "vocabulary": self.target_tokenizer.vocabulary}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if "vocabulary" in state:  # a classifier's data has none
            self.kind, self._vocabulary = state["tokenizer"], state["vocabulary"]

    def rows(self, split: str) -> tuple[CaptionRows, int]:  # type: ignore[override]  # rows have captions, not labels
        rows = self._rows[split]
        return rows, len(rows.image)

    def references(self, split: str) -> list[str]:
        """The captions, row by row; in small letters and with spaces between all words where tokens are words."""
        return self._texts[split].texts()


def read_list(file: Path) -> dict[str, list[str]]:
    """Captions by the name of the picture, of a list with both in each line; a first line without a picture is its head.

    Raises:
        ConfigError: If a line has no caption, or there is none at all.
    """
    captions: dict[str, list[str]] = {}
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, line in enumerate(csv.reader(stream), start=1):
            if number == 1 and not Path(line[0] if line else "").suffix:
                continue
            if len(line) < 2 or not line[0].strip() or not ",".join(line[1:]).strip():
                raise ConfigError(f"Line {number:,} of {file} is not a file's name, a comma and a caption.")
            captions.setdefault(line[0].strip(), []).append(",".join(line[1:]).strip())
    if not captions:
        raise ConfigError(f"{file} lists no pictures.")
    return captions


def _find(listed: Path, name: str) -> Path:
    for folder in FOLDERS:
        if (file := listed.parent / folder / name).is_file():
            return file
    raise ConfigError(f"{listed} names {name}, but there is no such file beside it.")
