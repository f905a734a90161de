"""Parallel texts: where both sides come from, what is refused, and batches from BEGIN to END."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, PAD, UNKNOWN, Tokens
from epochal.data import PairData
from epochal.data.batching import BatchIndices, BatchOrder

NUMBERS = {
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "en": "zero one two three four five six seven eight nine",
}


def texts(language: str, count: int, first: int = 0) -> list[str]:
    """The digits of numbers, written out."""
    words = NUMBERS[language].split()
    return [" ".join(words[int(digit)] for digit in str(number**3)) + "." for number in range(first, first + count)]


def folder(path: Path, *, train: int = 60, languages: tuple[str, ...] = ("de", "en")) -> Path:
    for name, count, first in (("train", train, 0), ("val", 8, 100), ("test", 9, 200)):
        for language in languages:
            (path / f"{name}.{language}").write_text("\n".join(texts(language, count, first)) + "\n")
    return path


def prepared(path: Path, **options: Any) -> PairData:
    data = PairData(
        name="pairs", path=str(path), **{"source": "de", "target": "en", "vocab_size": 300, "batch_size": 4, **options}
    )
    data.prepare()
    return data


# -- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["bpe", "word", "character", "byte"])
@pytest.mark.parametrize("joint", [True, False])
def test_a_batch_is_sources_with_end_and_targets_from_begin_to_end(tmp_path, tokenizer, joint):
    data = prepared(folder(tmp_path), tokenizer=tokenizer, joint=joint)
    rows, count = data.rows("val")
    batch = rows[BatchIndices(torch.arange(count), 7)]
    assert batch.seed == 7 and batch.inputs.shape == (8, int(batch.lengths.max()))
    assert (batch.targets[:, 0] == BEGIN).all()
    for i, (source, target) in enumerate(zip(batch.inputs.tolist(), batch.targets.tolist())):
        length = int(batch.lengths[i])
        assert source[length - 1] == END and set(source[length:]) <= {PAD} and BEGIN not in source
        end = target.index(END)
        assert set(target[end + 1 :]) <= {PAD} and PAD not in target[:end]
        space = " ." if tokenizer == "word" else "."
        assert data.source_tokenizer.decode(source) == texts("de", 8, 100)[i].replace(".", space)
        assert data.target_tokenizer.decode(target) == texts("en", 8, 100)[i].replace(".", space)
    shortest = rows[BatchIndices(data.lengths("val").argsort()[:1], 0)]
    assert PAD not in shortest.inputs and PAD not in shortest.targets


def test_joint_is_one_vocabulary_for_both(tmp_path):
    data = prepared(folder(tmp_path), tokenizer="word")
    assert data.source_tokenizer is data.target_tokenizer
    words = {w for text in (*data.sources("train"), *data.references("train")) for w in text.rstrip(".").split()}
    assert set(data.source_tokenizer.vocabulary.split("\n")) == words | {"."}
    apart = prepared(tmp_path, tokenizer="word", joint=False)
    inputs, outputs = apart.specs("target_text")
    assert inputs == outputs == Tokens(19, 128) and data.specs("target_text")[0] == Tokens(29, 128)
    assert "one" not in apart.source_tokenizer.vocabulary and "eins" not in apart.target_tokenizer.vocabulary


def test_texts_are_kept_as_they_were_written_in_the_order_of_rows(tmp_path):
    data = prepared(folder(tmp_path))
    assert data.sources("test") == texts("de", 9, 200) and data.references("test") == texts("en", 9, 200)
    assert data.sources("train") == texts("de", 60) and data.references("train") == texts("en", 60)
    assert data.sizes() == {"train": 60, "val": 8, "test": 9} and data.note == ""


def test_rows_are_sorted_by_the_longer_text_of_a_pair(tmp_path):
    data = prepared(folder(tmp_path, train=400), tokenizer="character")
    rows, count = data.rows("train")
    batch = rows[BatchIndices(torch.arange(count), 0)]
    longer = batch.lengths.maximum((batch.targets != PAD).sum(1))
    assert (longer[data.lengths("train").argsort()].diff() >= 0).all()


def test_little_is_padded(tmp_path):
    data = prepared(folder(tmp_path, train=3000), tokenizer="character", batch_size=32)
    rows, count = data.rows("train")

    def padded(lengths: torch.Tensor | None) -> float:
        order = BatchOrder(count=count, batch_size=32, seed=1, shuffle=True, lengths=lengths)
        batches = [rows[numbers] for numbers in order]
        places = sum(batch.inputs.numel() + batch.targets.numel() for batch in batches)
        return sum(int((side == PAD).sum()) for batch in batches for side in batch[:2]) / places

    assert padded(data.lengths("train")) < 0.1 < padded(None)


def test_long_pairs_are_left_out_of_train_and_cut_elsewhere(tmp_path):
    folder(tmp_path)
    for language in ("de", "en"):
        (tmp_path / f"train.{language}").write_text(
            "a b c\nb c d e\na b\n" if language == "de" else "a\na b c\na b c d e\n"
        )
        (tmp_path / f"test.{language}").write_text("a b c d e\n")
    data = prepared(tmp_path, tokenizer="word", max_length=4, batch_size=1)
    assert data.sources("train") == ["a b c"] and data.references("train") == ["a"]
    assert data.note == "2 pairs longer than dataset.max_length=4 tokens are left out of train"
    batch = data.rows("test")[0][BatchIndices(torch.tensor([0]), 0)]
    assert data.source_tokenizer.decode(batch.inputs[0].tolist()) == "a b c" and batch.inputs[0, -1] == END
    assert batch.inputs.shape == (1, 4) and batch.targets.shape == (1, 5)  # 4 are read, and 4 predicted
    assert data.references("test") == ["a b c d e"]
    with pytest.raises(ConfigError, match="All texts of dataset=pairs are longer than 1 tokens"):
        prepared(tmp_path, max_length=1)


# -- where they come from -------------------------------------------------------------------------------------------


def test_columns_and_keys_of_a_translation_are_languages(tmp_path):
    de, en = texts("de", 60), texts("en", 60)
    pq.write_table(pa.table({"en": en, "de": [f" {text}\n" for text in de]}), tmp_path / "columns.parquet")
    nested = [{"de": a, "en": b} for a, b in zip(de, en)]
    pq.write_table(pa.table({"id": range(60), "translation": nested}), tmp_path / "nested.parquet")
    for name in ("columns", "nested"):
        data = prepared(tmp_path / f"{name}.parquet", source="en", target="de", validation=5, test=5)
        assert data.sizes() == {"train": 50, "val": 5, "test": 5}
        pairs = {pair for split in data.sizes() for pair in zip(data.sources(split), data.references(split))}
        assert pairs == set(zip(en, de))


def test_what_is_held_out_does_not_depend_on_the_seed(tmp_path):
    folder(tmp_path)
    for name in ("val", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{name}.{language}").unlink()
    one, two = (prepared(tmp_path, validation=5, test=0.1, seed=seed) for seed in (1, 2))
    assert one.sizes() == {"train": 49, "val": 5, "test": 6} and one.references("test") == two.references("test")
    fewer = prepared(tmp_path, validation=5, test=0.1, train_size=20)
    assert fewer.sizes()["train"] == 20 and set(fewer.sources("train")) < set(one.sources("train"))
    assert fewer.references("test") == one.references("test")


def test_only_a_newline_ends_a_line(tmp_path):
    folder(tmp_path)
    (tmp_path / "test.de").write_bytes("\ufeffeins\u2028zwei\x0bdrei\r\nvier".encode())
    (tmp_path / "test.en").write_text("one two three\nfour\n")
    assert prepared(tmp_path).sources("test") == ["eins\u2028zwei\x0bdrei", "vier"]


def test_another_set_is_read_with_this_ones_vocabularies(tmp_path):
    (tmp_path / "own").mkdir(), (tmp_path / "other").mkdir()
    own = prepared(folder(tmp_path / "own"), tokenizer="word", joint=False)
    for language in ("de", "en"):
        (tmp_path / "other" / f"train.{language}").write_text("\n".join(["eins one"] * 40))
    other = PairData(name="other", path=str(tmp_path / "other"), source="de", target="en", batch_size=2)
    other.load_state(json.loads(json.dumps(own.state())))
    other.prepare()
    assert other.specs("target_text") == own.specs("target_text")
    batch = other.rows("train")[0][BatchIndices(torch.tensor([0]), 0)]
    assert batch.inputs[0, 1] == UNKNOWN == batch.targets[0, 1]  # one is no German, eins no English


# -- what is refused ------------------------------------------------------------------------------------------------


def write(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n")


def test_files_of_unequal_length(tmp_path):
    write(folder(tmp_path) / "val.en", texts("en", 7))
    with pytest.raises(ConfigError, match=r"val\.de has 8 lines, but val\.en has 7"):
        prepared(tmp_path)


@pytest.mark.parametrize("language", ["de", "en"])
def test_an_empty_line(tmp_path, language):
    lines = texts(language, 60)
    lines[16] = "  "
    write(folder(tmp_path) / f"train.{language}", lines)
    with pytest.raises(ConfigError, match=rf"Line 17 of .*train\.{language} is empty"):
        prepared(tmp_path)


@pytest.mark.parametrize("empty", ["", " \n", None])
def test_an_empty_text_in_a_table(tmp_path, empty):
    en = texts("en", 60)
    en[16] = empty
    pq.write_table(pa.table({"en": en, "de": texts("de", 60)}), tmp_path / "set.parquet")
    with pytest.raises(ConfigError, match=r"Row 16 of .*set\.parquet, split train, has no text in en"):
        prepared(tmp_path / "set.parquet")


def test_a_language_that_is_not_there(tmp_path):
    (tmp_path / "files").mkdir()
    folder(tmp_path / "files")
    pq.write_table(pa.table({"en": texts("en", 60), "de": texts("de", 60)}), tmp_path / "set.parquet")
    for path, languages in ((tmp_path / "files", "de, en"), (tmp_path / "set.parquet", "en, de")):
        with pytest.raises(ConfigError, match=rf"dataset\.target=fr is no language of .* It has: {languages}\."):
            prepared(path, target="fr")
        with pytest.raises(ConfigError, match=r"dataset\.source=dee is no language of .* Did you mean de\?"):
            prepared(path, source="dee")


def test_a_file_without_its_other_language(tmp_path):
    (folder(tmp_path) / "test.en").unlink()
    with pytest.raises(ConfigError, match=r"test\.de has no test\.en beside it"):
        prepared(tmp_path)


def test_a_language_into_itself():
    with pytest.raises(ConfigError, match="source and dataset.target are both de"):
        PairData(name="pairs", path="x", source="de", target="de")
