"""Texts of several kinds as one, of which a language model learns as much as it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epochal.core.errors import ConfigError
from epochal.data.datamodule import check_count
from epochal.data.text import Document, PythonStdlib, TextData, cut, length_of

CODE = "python_stdlib"
OPTIONAL = ("config", "revision", "column")  # keys of a part, as of `TextData`


class TextMix(TextData):
    """The first characters of several texts, one after the other. Validation and test are the first text's alone.

    Args:
        parts: Of each text its `path`, as of `TextData`, or "python_stdlib", the `characters` of its training part that are
            taken, and optionally its `config`, `revision` and `column`.
        **options: See `TextData`, but for those that each part has of its own.

    Raises:
        ConfigError: If no part is given, one lacks a key or has another, or what belongs to a part is given for all.
    """

    def __init__(self, *, parts: Sequence[Mapping[str, Any]], **options: Any) -> None:
        super().__init__(**options)
        for key in ("path", *OPTIONAL):
            if options.get(key) is not None:
                raise ConfigError(f"dataset.{key}={options[key]} is of none of dataset.parts; give it to one of them.")
        if not parts or isinstance(parts, str | Mapping) or not all(isinstance(part, Mapping) for part in parts):
            raise ConfigError("dataset.parts is a list with at least one text: [{path: ..., characters: 100_000}].")
        self.parts = [dict(part) for part in parts]
        for part in self.parts:
            if not {"path", "characters"} <= part.keys() <= {"path", "characters", *OPTIONAL} or not part["path"]:
                may = " and ".join([", ".join(OPTIONAL[:-1]), OPTIONAL[-1]])
                raise ConfigError(
                    f"A text of dataset.parts has path and characters, and may have {may}; this one is {part}."
                )
            if part["path"] == CODE and (more := sorted(part.keys() & {*OPTIONAL})):
                raise ConfigError(
                    f"The text {CODE} of dataset.parts has no {more[0]}: it is in every installation of Python."
                )
            check_count("parts.characters", part["characters"])

    def _reader(self) -> tuple[dict[str, Any], Any]:
        readers = [self._part(part)._reader() for part in self.parts]

        def read(building: Path) -> dict[str, list[Document]]:
            first, *others = (read_part(building) for _, read_part in readers)
            texts = self.held_out(first)
            trains = [texts["train"], *(other["train"] for other in others)]
            taken = [self._taken(part, train) for part, train in zip(self.parts, trains)]
            return {**texts, "train": [document for documents in taken for document in documents]}

        return {"parts": [{**key, **part} for part, (key, _) in zip(self.parts, readers)]}, read

    def _part(self, part: Mapping[str, Any]) -> TextData:
        if part["path"] == CODE:
            return PythonStdlib(name=self.name, path=None, batch_size=self.batch_size, documents=self.documents)
        return TextData(
            name=self.name,
            path=str(part["path"]),
            config=part.get("config"),
            revision=part.get("revision"),
            column=part.get("column"),
            documents=self.documents,
            encoding=self.encoding,
            batch_size=self.batch_size,
        )

    def _taken(self, part: Mapping[str, Any], train: list[Document]) -> list[Document]:
        """As many characters of a text as are asked for; raises ConfigError if there are fewer."""
        if (length := length_of(train)) < part["characters"]:
            raise ConfigError(
                f"The text {part['path']} of dataset.parts has {length:,} characters to train on, fewer than the "
                f"{part['characters']:,} that are asked for."
            )
        return cut(train, part["characters"])[0]
