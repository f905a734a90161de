"""Images with captions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, Images, Inputs, Outputs, Tokens
from epochal.data import cache, pictures, ragged, sources, tables, vocabularies
from epochal.data.batching import Batch, BatchIndices
from epochal.data.datamodule import check_count
from epochal.data.image_decoding import decode_all, find_image_column, offering_to_skip, readable, survey
from epochal.data.images import ImageRows, StoredImages
from epochal.data.ragged import Ragged

LISTS = ("captions.csv", "captions.txt")  # files that list images and captions; Flickr8k comes with the latter
FOLDERS = (".", "images", "Images")  # where the listed images are, relative to the list
CAPTIONS = ("caption", "text", "sentence", "description")  # prefixes of the names of columns with captions
IMAGE = "image"
TOKENIZERS = ("word", "bpe", "character", "byte")


class CaptionRows(Dataset[Batch]):
    """Pairs of an image and one of its captions, from BEGIN to END; an image with k captions makes k rows.

    Args:
        images: (N, C, H, W) uint8.
        image: (M,) number of each row's image.
        captions: M captions as token ids.
    """

    def __init__(self, images: Tensor, image: Tensor, captions: Ragged) -> None:
        self.images, self.image, self.captions = images, image, captions

    def __getitem__(self, batch: BatchIndices) -> Batch:
        images = cache.gather(self.images, self.image[batch.rows])
        return Batch(images, self.captions.padded(batch.rows)[0], batch.seed)


class CaptionData(StoredImages):
    """Images with one or more captions each, from the Hub or a folder.

    The folder holds the images and `captions.csv`, with a line `file name, caption` for each caption of an image; or
    `metadata.csv` with the columns file_name and caption, as `datasets` reads it. Whole images are held out, with all
    their captions.

    Args:
        caption_columns: Columns that hold a caption or a list of captions; None: guessed from their names.
        tokenizer: "word" (lower-case words; "bpe" is used where they have no spaces between them), "bpe", "character" or "byte".
        vocab_size: Largest size of the vocabulary, for "word" and "bpe".
        min_count: A word that the training captions have less often is unknown.
        max_length: Longest caption in tokens, BEGIN and END included; longer ones are cut.
        encoding: Of local text files, by its name in Python; None: UTF-8, or as their byte order mark tells.
        skip_broken: Leave out images that cannot be decoded, with their captions, and say which; False: they are an error.
        **options: See `StoredImages`.

    Raises:
        ConfigError: If there is no such tokenizer, vocab_size or min_count is below 1, or max_length below 3.
    """

    targets: ClassVar = ("captions",)
    only_with: ClassVar = vocabularies.LEARNED

    def __init__(
        self,
        *,
        caption_columns: list[str] | None = None,
        tokenizer: str = "word",
        vocab_size: int = 8_000,
        min_count: int = 1,
        max_length: int = 40,
        encoding: str | None = None,
        skip_broken: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.encoding, self.skip_broken = encoding, skip_broken
        vocabularies.check_kind(tokenizer, TOKENIZERS)
        check_count("vocab_size", vocab_size)
        check_count("min_count", min_count)
        check_count("max_length", max_length, 3)
        self.caption_columns = None if caption_columns is None else list(caption_columns)
        self.kind, self.vocab_size, self.min_count, self.max_length = tokenizer, vocab_size, min_count, max_length
        self._loaded: dict[str, Any] | None = None  # the tokenizer of `load_state`
        self._note = ""

    def prepare(self) -> None:
        source = self.locate()
        key = source.fingerprint() | {"image": self.image_column, "captions": self.caption_columns}
        key |= {"size": self.image_size, "vocab_size": self.vocab_size}
        key |= {"min_count": self.min_count, "max_length": self.max_length}
        key |= vocabularies.cache_key(self.kind, self._loaded)
        key |= {"skip_broken": True} if self.skip_broken else {}
        key |= {"background": self.background} if self.background != pictures.WHITE else {}
        folder = cache.cached(self.name, key | self.split_key(), lambda building: self._make(source, building))
        meta = cache.read_meta(folder)
        self.fingerprint = meta["fingerprint"]
        self.target_tokenizer = vocabularies.from_state(meta["tokenizer"])
        self._rows, self._texts = {}, {}
        for split, role in meta["roles"].items():
            images, image = (cache.read_array(folder / f"{name}.npy") for name in (f"{role}_images", f"{split}_image"))
            self._rows[split] = CaptionRows(images, image, Ragged.read(folder, f"{split}_captions"))
            self._texts[split] = Ragged.read(folder, f"{split}_texts")
        train = self._rows["train"]
        ids = [rows.captions.values.numpy() for rows in self._rows.values()]
        self._note = vocabularies.note(self.kind, self.target_tokenizer, ids)
        self.inputs = Images(*train.images.shape[1:])
        self.fit_normalisation(ImageRows(train.images, train.image, train.image.unique()), folder)
        self.check_batch_size(len(train.image))

    def _make(self, source: sources.Source, building: Path) -> dict[str, Any]:
        """Writes the images of each role and the captions of each split; returns tokenizer and roles of the splits."""
        images, captions = self._read(source, building / "scratch")
        for role, rows in images.items() if self.skip_broken else ():
            kept = readable(source, role, rows, IMAGE)
            images[role], captions[role] = rows.select(kept), [captions[role][number] for number in kept]
        with offering_to_skip():
            size, mode, span = survey(source, images, IMAGE, self.image_size)
            for role, rows in images.items():
                file = building / f"{role}_images.npy"
                decode_all(source, role, rows, IMAGE, file, size, mode, span, self.background)
        shutil.rmtree(building / "scratch", ignore_errors=True)

        counts = {role: len(each) for role, each in captions.items()}
        order = np.random.default_rng(self.split_seed).permutation(counts["train"])
        splits = self.split_rows(counts, order)
        texts = {s: [text for i in rows for text in captions[role][i]] for s, (role, rows) in splits.items()}
        tokenizer = vocabularies.learn_or_restore(
            self.kind, self._loaded, texts["train"], vocab_size=self.vocab_size, min_count=self.min_count
        )
        for split, (role, rows) in splits.items():
            image = np.repeat(rows, [len(captions[role][i]) for i in rows])
            cache.create_array(building / f"{split}_image.npy", image.shape, np.int64)[:] = image
            values, lengths = ragged.cut(*tokenizer.encode_all(texts[split]), self.max_length - 2)
            values, lengths = ragged.delimit(values, lengths, begin=BEGIN, end=END)
            ragged.write(building, f"{split}_captions", values, lengths, ragged.smallest(len(tokenizer)))
            ragged.write_texts(building, f"{split}_texts", [tokenizer.as_decoded(text) for text in texts[split]])
        roles = {split: role for split, (role, _) in splits.items()}
        return {"tokenizer": tokenizer.state(), "roles": roles}

    def _read(self, source: sources.Source, scratch: Path) -> tuple[dict[str, Any], dict[str, list[list[str]]]]:
        """By role (train, validation, test): rows with the encoded images as IMAGE, and the captions of each."""
        import datasets

        if source.local is not None and (listed := next((f for n in LISTS if (f := source.local / n).is_file()), None)):
            captions = read_list(listed, source.encoding)
            files = [{"bytes": None, "path": str(_find(listed, name))} for name in captions]
            made = datasets.Dataset.from_dict({IMAGE: files})
            return {"train": made.cast_column(IMAGE, datasets.Image(decode=False))}, {"train": list(captions.values())}
        images, found = {}, {}
        for role, rows in tables.open_splits(source, scratch).items():
            column = find_image_column(source, rows.features, self.image_column)
            found[role] = self._captions(source, role, rows.select_columns(self._caption_columns(source, rows)))
            images[role] = rows.cast_column(column, datasets.Image(decode=False))
            if column != IMAGE:
                images[role] = images[role].select_columns([column]).rename_column(column, IMAGE)
        return images, found

    def _caption_columns(self, source: sources.Source, rows: Any) -> list[str]:
        if self.caption_columns is not None:
            for column in self.caption_columns:
                sources.check_column(source, "caption_columns", column, rows.column_names)
            return self.caption_columns
        columns = [name for name in rows.column_names if name.lower().startswith(CAPTIONS)]
        if not columns:
            raise ConfigError(
                f"{source.path} has no captions: put captions.csv beside the images, with a file's name and a caption "
                f"a line, or name its columns by dataset.caption_columns. It has: {', '.join(rows.column_names)}."
            )
        return columns

    def _captions(self, source: sources.Source, role: str, rows: Any) -> list[list[str]]:
        """The captions of each image, stripped, from the columns that are left in rows."""
        captions = []
        for number, row in enumerate(rows.with_format("arrow")[:].to_pylist()):
            values = [text for value in row.values() for text in (value if isinstance(value, list) else [value])]
            texts = [text.strip() if isinstance(text, str) else "" for text in values]
            if not texts or not all(texts):
                raise ConfigError(
                    f"Image {number} of {source.path}, split {role}, has no caption, or an empty one. Write it or "
                    "leave the image out."
                )
            captions.append(texts)
        return captions

    @classmethod
    def example_specs(cls, config: Mapping[str, Any], target: str) -> list[tuple[Inputs, Outputs]]:
        captions = Tokens(
            vocabularies.size_of(config, "vocab_size", 8_000), vocabularies.size_of(config, "max_length", 40)
        )
        return [(images, captions) for images in cls.example_images(config)]

    def restore(self, inputs: Inputs, outputs: Outputs) -> None:
        super().restore(inputs, outputs)
        assert self._loaded is not None
        self.target_tokenizer = vocabularies.from_state(self._loaded)

    def specs(self, target: str) -> tuple[Inputs, Outputs]:
        return self.inputs, Tokens(len(self.target_tokenizer), self.max_length)

    def mean_lengths(self) -> tuple[None, float]:
        return None, self.padded_mean(self._rows["train"].captions.lengths)

    @property
    def note(self) -> str:
        return self._note

    def state(self) -> dict[str, Any]:
        return {**super().state(), **self.target_tokenizer.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        if "mean" in state:  # the state of texts has none
            super().load_state(state)
        if "mean" not in state or "vocabulary" in state:  # that of `ImageData` has none
            self._loaded = vocabularies.read_state(state, self.name, older=vocabularies.OLDER, pads=True, most=1)
            self.kind = self._loaded["tokenizer"]

    def rows(self, split: str) -> tuple[CaptionRows, int]:
        rows = self._rows[split]
        return rows, len(rows.image)

    def references(self, split: str) -> list[str]:
        """The captions, row by row; in lower case and with spaces between all words where tokens are words."""
        return self._texts[split].texts()


def read_list(file: Path, encoding: str | None = None) -> dict[str, list[str]]:
    """Captions by file name, from lines `file name, caption`; the first line is a header if it names no file.

    Raises:
        ConfigError: If a line has no caption, a quotation mark is not closed, or there are no lines.
    """
    captions: dict[str, list[str]] = {}
    for number, line in tables.records(tables.read_text(file, encoding), file):
        if number == 1 and not Path(line[0]).suffix:
            continue
        caption = ",".join(line[1:]).strip()
        if not line[0].strip() or not caption:
            raise ConfigError(f"Line {number:,} of {file} is not a file's name, a comma and a caption.")
        # the quotation mark that closes it may be that of another caption
        if any(_names_image(file, part) for part in caption.split("\n")[1:]):
            raise ConfigError(
                f"Line {number:,} of {file} opens a quotation mark that is not closed before the line ends; close it."
            )
        captions.setdefault(line[0].strip(), []).append(caption)
    if not captions:
        raise ConfigError(f"{file} lists no images.")
    return captions


def _names_image(listed: Path, line: str) -> bool:
    name = line.partition(",")[0].strip()
    return "," in line and bool(name) and any((listed.parent / folder / name).is_file() for folder in FOLDERS)


def _find(listed: Path, name: str) -> Path:
    for folder in FOLDERS:
        if (file := listed.parent / folder / name).is_file():
            return file
    raise ConfigError(f"{listed} names {name}, but there is no such file beside it.")
