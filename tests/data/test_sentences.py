"""Labelled sentences: columns, classes, splits, vocabulary, and batches that are padded on the right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import PAD, UNKNOWN, Classes, Tokens
from epochal.data import SentenceData
from epochal.data.batching import BatchIndices

WORDS = ("good film", "a really good film !", "bad", "what a bad , bad film this is")


def table(count: int, **more: Any) -> dict[str, list[Any]]:
    """Different sentences, of which the first two kinds are positive."""
    texts = [f"{WORDS[i % 4]} {i}" for i in range(count)]
    return {"sentence": texts, "label": [int(i % 4 < 2) for i in range(count)], **more}


def prepared(path: Path, **options: Any) -> SentenceData:
    data = SentenceData(name="sentences", path=str(path), **{"batch_size": 4, "min_count": 1, **options})
    data.prepare()
    return data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pq.write_table(pa.table(table(100)), tmp_path / "set.parquet")
    return tmp_path / "set.parquet"


# -- batches --------------------------------------------------------------------------------------------------------


def test_a_batch_is_padded_on_the_right_to_its_longest_row(file):
    data = prepared(file)
    rows, count = data.rows("train")
    batch = rows[BatchIndices(torch.arange(count), 7)]
    assert batch.inputs.shape == (count, 9) and batch.seed == 7 and batch.inputs.dtype == batch.targets.dtype
    for i in range(count):
        words = data.text("train", i).lower()
        ids, padding = batch.inputs[i, : batch.lengths[i]].tolist(), batch.inputs[i, batch.lengths[i] :]
        assert data.tokenizer.decode(ids) == words and (padding == PAD).all()
        assert data.classes.names[batch.targets[i]] == ("1" if "good" in words else "0")
    assert rows[BatchIndices(torch.tensor([int(batch.lengths.argmin())]), 0)].inputs.shape == (1, 2)


def test_lengths_are_those_of_the_rows(file):
    data = prepared(file)
    for split in ("train", "val", "test"):
        rows, count = data.rows(split)
        assert torch.equal(data.lengths(split), rows[BatchIndices(torch.arange(count), 0)].lengths)


def test_long_texts_lose_their_end(file):
    data = prepared(file, max_length=3)
    rows, count = data.rows("train")
    batch = rows[BatchIndices(torch.arange(count), 0)]
    assert batch.inputs.shape[1] == batch.lengths.max() == 3
    assert "what a bad" in {data.tokenizer.decode(row) for row in batch.inputs.tolist()}
    assert any(data.text("train", i).startswith("what a bad , bad film") for i in range(count))  # shown whole


@pytest.mark.parametrize("tokenizer", ["word", "bpe", "character", "byte"])
def test_specs_have_the_size_of_the_vocabulary(file, tokenizer):
    data = prepared(file, tokenizer=tokenizer, vocab_size=270, max_length=20)
    tokens, classes = data.specs("classes")
    assert tokens == Tokens(len(data.tokenizer), 20) and classes == Classes(("0", "1"))
    rows, count = data.rows("train")
    assert rows[BatchIndices(torch.arange(count), 0)].inputs.max() < tokens.vocab_size


# -- splits ---------------------------------------------------------------------------------------------------------


def test_what_is_held_out_keeps_the_classes_and_the_order_of_seeds(file):
    texts = {}
    for seed in (1, 2):
        data = prepared(file, validation=20, test=0.2, seed=seed)
        assert data.sizes() == {"train": 60, "val": 20, "test": 20}
        for split, half in (("train", 30), ("val", 10), ("test", 10)):
            assert abs(int(data.rows(split)[0].labels.sum()) - half) <= 1
        texts[seed] = {s: [data.text(s, i) for i in range(n)] for s, n in data.sizes().items()}
    assert texts[1] == texts[2]
    assert sorted(t for part in texts[1].values() for t in part) == sorted(table(100)["sentence"])
    other = prepared(file, validation=20, test=0.2, split_seed=1)
    assert {other.text("test", i) for i in range(20)} != set(texts[1]["test"])


def test_a_set_with_splits_of_its_own_keeps_them(tmp_path):
    for split, count in (("train", 40), ("validation", 8), ("test", 12), ("unsupervised", 5)):
        pq.write_table(pa.table(table(count)), tmp_path / f"{split}.parquet")
    assert prepared(tmp_path).sizes() == {"train": 40, "val": 8, "test": 12}
    assert prepared(tmp_path, train_size=0.5).sizes() == {"train": 20, "val": 8, "test": 12}


def test_a_test_split_without_labels_is_left_out(tmp_path):
    for split, labels in (("train", None), ("test", [-1] * 8)):
        rows = datasets.Dataset.from_dict(table(40) if labels is None else {**table(8), "label": labels})
        rows = rows.cast_column("label", datasets.ClassLabel(names=["negative", "positive"]))
        rows.to_parquet(str(tmp_path / f"{split}.parquet"))
    data = prepared(tmp_path, test=10, validation=10)
    assert data.sizes() == {"train": 20, "val": 10, "test": 10}
    assert data.classes.names == ("negative", "positive")


def test_the_vocabulary_is_that_of_the_training_rows(file):
    data = prepared(file, train_size=4)
    known = set(data.tokenizer.vocabulary.split("\n"))
    assert known == {word for i in range(4) for word in data.text("train", i).split()}
    rows, count = data.rows("test")
    assert (rows[BatchIndices(torch.arange(count), 0)].inputs == UNKNOWN).any()


def test_another_set_is_read_with_this_ones_vocabulary(file, tmp_path):
    own = prepared(file)
    rows = {"text": ["good grief", "bad luck"] * 10, "label": [0, 1] * 10}
    pq.write_table(pa.table(rows), tmp_path / "other.parquet")
    other = SentenceData(name="other", path=str(tmp_path / "other.parquet"), tokenizer="byte", batch_size=2)
    other.load_state(json.loads(json.dumps(own.state())))
    other.prepare()
    assert other.specs("classes") == own.specs("classes")
    first = other.rows("train")[0][BatchIndices(torch.tensor([0]), 0)].inputs[0]
    assert other.tokenizer.decode(first[:1].tolist()) in ("good", "bad") and first[1] == UNKNOWN


# -- columns and labels ---------------------------------------------------------------------------------------------


def test_columns_and_words_as_labels_are_guessed(tmp_path):
    lines = [
        json.dumps({"id": f"x{i}", "review": WORDS[i % 4], "sentiment": "good" if i % 4 < 2 else "bad"})
        for i in range(40)
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(lines))
    data = prepared(tmp_path / "set.jsonl")
    assert data.classes.names == ("bad", "good") and data.text("train", 0) in WORDS
    named = prepared(tmp_path / "set.jsonl", text_column="id", label_column="sentiment")
    assert named.text("train", 0).startswith("x")


@pytest.mark.parametrize(
    "change, options, words",
    [
        ({}, {"text_column": "sentense"}, "text_column=sentense is no column of .* Did you mean sentence"),
        ({}, {"text_column": "label"}, "column label of .* holds no text"),
        ({"sentence": None}, {}, "has no column that looks like the texts"),
        ({"label": None}, {}, "has no column that looks like the labels"),
        ({"sentence": {5: "  "}}, {}, "Row 5 of .*, split train, has an empty sentence"),
        ({"sentence": {6: None}}, {}, "Row 6 of .*, split train, has an empty sentence"),
        ({"label": {7: None}}, {}, "Row 7 of .*, split train, has no label"),
        ({"label": dict.fromkeys(range(40), 0.5)}, {}, "does not hold one label for each text"),
        ({"label": dict.fromkeys(range(40), 1)}, {}, "All texts of .* have the same label"),
        ({}, {"batch_size": 500}, "batch_size=500 is larger than the 32 training rows"),
        ({}, {"tokenizer": "wrod"}, "tokenizer=wrod is no tokenizer. Did you mean word?"),
    ],
)
def test_wrong_sources_are_refused(tmp_path, change, options, words):
    rows = table(40)
    for column, cells in change.items():
        if cells is None:
            del rows[column]
        else:
            rows[column] = [cells.get(i, value) for i, value in enumerate(rows[column])]
    pq.write_table(pa.table(rows), tmp_path / "set.parquet")
    with pytest.raises(ConfigError, match=words):
        prepared(tmp_path / "set.parquet", **options)


def test_a_label_that_train_does_not_have(tmp_path):
    for split, label in (("train", "bad"), ("test", "awful")):
        rows = {"text": ["some text"] * 20, "label": ["good", label] * 10}
        pq.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    with pytest.raises(ConfigError, match="has labels in test that train does not have: awful"):
        prepared(tmp_path)
