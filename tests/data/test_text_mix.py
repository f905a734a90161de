"""Texts of several kinds as one: how much is taken of each, and what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epochal.core.errors import ConfigError
from epochal.data import TextMix


def mixed(folder: Path, *characters: int, **options: Any) -> TextMix:
    """A mix of a text of a's, one of b's and so on, of 1,000 characters each."""
    parts = []
    for letter, count in zip("abc", characters):
        (folder / f"{letter}.txt").write_text(letter * 1000)
        parts.append({"path": str(folder / f"{letter}.txt"), "characters": count})
    sizes = {"tokenizer": "byte", "context_length": 8, "batch_size": 2, "validation": 100, "test": 50}
    data = TextMix(name="text_mix", path=None, parts=parts, **{**sizes, **options})
    data.learns = "text"
    data.prepare()
    return data


def words(data: TextMix, split: str) -> str:
    return data.tokenizer.decode(data._tokens[split].tolist())


def test_each_text_gives_as_many_characters_as_are_asked_for(tmp_path):
    data = mixed(tmp_path, 300, 200, 100)
    assert words(data, "train") == "a" * 300 + "b" * 200 + "c" * 100
    assert len(data._tokens["train"]) == 600 + 2, "END stands between two texts"


def test_validation_and_test_are_of_the_first_text_alone_and_never_learned(tmp_path):
    whole = mixed(tmp_path, 850, 10)
    assert words(whole, "val") == "a" * 100 and words(whole, "test") == "a" * 50
    assert words(mixed(tmp_path, 300, 200), "val") == "a" * 100, "however much is taken"
    with pytest.raises(
        ConfigError, match=r"a\.txt of dataset\.parts has 850 characters to train on, fewer than the 851"
    ):
        mixed(tmp_path, 851, 10)


@pytest.mark.parametrize("key", ["path", "config", "revision", "column"])
def test_what_belongs_to_a_part_is_not_given_for_all(key):
    options = {"path": None, key: "mine"}
    with pytest.raises(ConfigError, match=rf"dataset\.{key}=mine is of none of dataset\.parts"):
        TextMix(name="text_mix", parts=[{"path": "a.txt", "characters": 5}], **options)


def test_a_part_has_its_own_config_revision_and_column(tmp_path):
    (tmp_path / "a.csv").write_text("first,second\n" + "aaaa,bbbb\n" * 100)
    part = {"path": str(tmp_path / "a.csv"), "characters": 100, "column": "second"}
    sizes = {"tokenizer": "byte", "context_length": 8, "batch_size": 2, "validation": 50, "test": 50}
    data = TextMix(name="text_mix", path=None, parts=[part], **sizes)
    data.learns = "text"
    data.prepare()
    assert set(words(data, "train")) == {"b", "\n"}
    read = data._part({"path": "me/texts", "characters": 5, "config": "small", "revision": "v2"})
    assert (read.config, read.revision) == ("small", "v2")


def test_code_needs_no_file(tmp_path):
    data = TextMix(
        name="prose_and_code",
        path=None,
        parts=[
            {"path": "python_stdlib", "characters": 500},
            {"path": "python_stdlib", "characters": 700},
        ],
        tokenizer="byte",
        context_length=8,
        batch_size=2,
    )
    data.learns = "text"
    data.prepare()
    text = words(data, "train")
    assert len(text) >= 1200 and text[:500] == text[500:1000], "each is the beginning of the same files"


def test_a_change_of_the_parts_is_other_data(tmp_path):
    assert mixed(tmp_path, 300, 200).fingerprint != mixed(tmp_path, 200, 300).fingerprint


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "dataset.parts is a list with at least one text"),
        (None, "dataset.parts is a list"),
        (["a.txt"], "dataset.parts is a list"),
        ([{"path": None, "characters": 5}], "this one is"),
        ([{"path": "a.txt"}], "has path and characters"),
        ([{"path": "a.txt", "characters": 5, "colour": "red"}], "'colour': 'red'"),
        ([{"path": "a.txt", "characters": 0}], "parts.characters"),
        (
            [{"path": "python_stdlib", "characters": 5, "revision": "main"}],
            "python_stdlib of dataset.parts has no revision",
        ),
    ],
)
def test_wrong_parts_are_a_sentence(parts, says):
    with pytest.raises(ConfigError, match=says):
        TextMix(name="text_mix", path=None, parts=parts)
