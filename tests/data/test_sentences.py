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
from epochal.core.specs import BEGIN, END, PAD, UNKNOWN, Classes, Tokens
from epochal.data import CaptionData, PairData, SentenceData, SwappedWords, TextData
from epochal.data.batching import BatchIndices
from epochal.data.sentences import swap_words
from epochal.data.tokenizers import to_huggingface

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


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_test_split_without_the_column_of_labels_is_left_out(tmp_path, suffix):
    for split, rows in (("train", table(40)), ("test", {"sentence": table(8)["sentence"]})):
        getattr(datasets.Dataset.from_dict(rows), f"to_{suffix}")(str(tmp_path / f"{split}.{suffix}"))
    assert prepared(tmp_path, test=10, validation=10).sizes() == {"train": 20, "val": 10, "test": 10}


def test_a_split_without_the_column_of_texts_is_refused(tmp_path):
    for split, rows in (("train", table(40)), ("test", {"label": table(8)["label"], "words": table(8)["sentence"]})):
        datasets.Dataset.from_dict(rows).to_csv(str(tmp_path / f"{split}.csv"))
    with pytest.raises(
        ConfigError, match="The split test of .* has no column sentence, as train has; it has: label, words"
    ):
        prepared(tmp_path)


def test_minus_one_is_a_label_where_train_has_it(tmp_path):
    for split, count in (("train", 40), ("test", 8)):
        rows = table(count)
        rows["label"] = [-1] * count if split == "test" else [2 * label - 1 for label in rows["label"]]
        datasets.Dataset.from_dict(rows).to_csv(str(tmp_path / f"{split}.csv"))
    assert prepared(tmp_path, validation=10).sizes() == {"train": 30, "val": 10, "test": 8}


def test_tables_of_two_kinds_in_a_folder_are_refused(tmp_path):
    datasets.Dataset.from_dict(table(40)).to_csv(str(tmp_path / "a.csv"))
    datasets.Dataset.from_dict(table(40)).to_parquet(str(tmp_path / "b.parquet"))
    with pytest.raises(ConfigError, match=r"holds .parquet and .csv files, and only one kind of table can be read"):
        prepared(tmp_path)


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


# -- texts as targets, and pairs --------------------------------------------------------------------------------------


def whole(data: SentenceData, split: str = "train") -> Any:
    """All rows of a split as one batch."""
    rows, count = data.rows(split)
    return rows[BatchIndices(torch.arange(count), 0)]


def learning_text(path: Path, **options: Any) -> SentenceData:
    data = SentenceData(name="sentences", path=str(path), **{"batch_size": 4, "min_count": 1, **options})
    data.learns = "text"
    data.prepare()
    return data


def test_a_text_that_is_the_target_stands_between_begin_and_end(file):
    data = learning_text(file, tokenizer="byte", max_length=12)
    batch = whole(data)
    assert torch.equal(batch.inputs, batch.targets) and (batch.inputs[:, 0] == BEGIN).all()
    assert (batch.inputs.gather(1, batch.lengths[:, None] - 1) == END).all() and batch.lengths.max() == 12
    assert data.specs("text") == (Tokens(264, 12), Tokens(264, 12))
    classes = prepared(file, tokenizer="byte")
    assert [data.text("test", i) for i in range(10)] == [classes.text("test", i) for i in range(10)]


@pytest.mark.parametrize("tokenizer, tokens", [("byte", 11.5), ("word", 3.5)])
def test_bits_per_byte_of_texts_count_their_ends(tmp_path, tokenizer, tokens):
    rows = {"text": ["abcdefghij", "ab cd efgh"] * 40}
    pq.write_table(pa.table(rows), tmp_path / "set.parquet")  # no labels
    data = learning_text(tmp_path / "set.parquet", tokenizer=tokenizer)
    predicted = (whole(data).lengths - 1).double().mean().item()
    assert data.bytes_per_token["train"] == pytest.approx(10 / predicted)
    assert data.characters_per_token == data.bytes_per_token


def test_what_begins_from_a_language_model_reads_texts_as_it_did(file):
    model = learning_text(file)
    for asked, special in ((None, True), (False, False), (True, True)):
        data = SentenceData(name="sentences", path=str(file), batch_size=4, min_count=1, add_special_tokens=asked)
        data.load_state(json.loads(json.dumps(model.state())))
        data.prepare()
        assert bool((whole(data).inputs[:, 0] == BEGIN).all()) == special == data.state()["special_tokens"]
        assert bool((data.encode(["good film"])[0][:, 0] == BEGIN).all()) == special
    assert not (whole(prepared(file)).inputs == BEGIN).any()


def test_a_tokenizer_json_says_whether_texts_have_a_begin_and_an_end(file, tmp_path):
    for special in (True, False):
        made = prepared(file, tokenizer="byte")
        (tmp_path / "tokenizer.json").write_text(to_huggingface(made.tokenizer, special_tokens=special))
        data = prepared(file, tokenizer=str(tmp_path))
        assert data.kind == "huggingface" and data.note == "" and data.specs("classes")[0].vocab_size == 264
        inputs, lengths = data.encode(["good film", "bad"])
        plain = made.encode(["good film", "bad"])[0]
        assert torch.equal(inputs[0], torch.tensor([BEGIN, *plain[0].tolist(), END]) if special else plain[0])
        assert inputs[1, lengths[1] :].eq(PAD).all()
    assert prepared(file, tokenizer=f"{tmp_path}/tokenizer.json").state()["special_tokens"] is False


PAIR = {"sentence1": ["a b c d"] * 40, "sentence2": ["x y"] * 40, "label": [0, 1] * 20, "idx": list(range(40))}


@pytest.mark.parametrize(
    "columns",
    [("sentence1", "sentence2"), ("question1", "question2"), ("premise", "hypothesis"), ("question", "sentence")],
)
def test_pairs_have_segments(tmp_path, columns):
    names = dict(zip(("sentence1", "sentence2"), columns))
    pq.write_table(pa.table({names.get(k, k): v for k, v in PAIR.items()}), tmp_path / "set.parquet")
    data = prepared(tmp_path / "set.parquet", second_column="guess")
    batch = whole(data)
    assert data.tokenizer.decode(batch.inputs[0].tolist()) == "a b c d x y"
    assert (batch.inputs[0] == BEGIN).nonzero().flatten().tolist() == [0]
    assert (batch.inputs[0] == END).nonzero().flatten().tolist() == [5, 8]
    assert batch.segments[0].tolist() == [0] * 6 + [1] * 3
    assert data.text("train", 0) == "a b c d\tx y"
    inputs, lengths = data.encode([("a b", "x y"), "a\tx"])
    assert lengths.tolist() == [7, 5] and data.segments(inputs, lengths).tolist() == [
        [0, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 0, 0],
    ]
    with pytest.raises(ConfigError, match="a pair, or one text with a tab"):
        data.encode(["a b"])


@pytest.mark.parametrize("most, kept", [(9, "a b c d x y"), (7, "a b x y"), (8, "a b c x y"), (6, "a b x"), (5, "a x")])
def test_the_longer_text_of_a_pair_is_cut_first(tmp_path, most, kept):
    pq.write_table(pa.table(PAIR), tmp_path / "set.parquet")
    data = prepared(tmp_path / "set.parquet", second_column="sentence2", max_length=most)
    assert {data.tokenizer.decode(row) for row in whole(data).inputs.tolist()} == {kept}


def test_pairs_are_found_where_there_are_some(file, tmp_path):
    assert prepared(file, second_column="guess").pairs is False
    pq.write_table(pa.table(PAIR), tmp_path / "pairs.parquet")
    with pytest.raises(
        ConfigError, match="second_column=label .*also dataset.label_column|The column label .* holds no text"
    ):
        prepared(tmp_path / "pairs.parquet", second_column="label")
    with pytest.raises(ConfigError, match="second_column=sentence3 is no column"):
        prepared(tmp_path / "pairs.parquet", second_column="sentence3")
    with pytest.raises(ConfigError, match="max_length=4 leaves no room"):
        prepared(tmp_path / "pairs.parquet", second_column="guess", max_length=4)


def test_glue_is_read_by_the_name_of_its_part(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_DATA", str(tmp_path))
    for name, count, label in (
        ("train", 40, [0, 1]),
        ("validation_matched", 8, [0, 1]),
        ("test_matched", 8, [-1, -1]),
    ):
        (tmp_path / "glue" / "mnli").mkdir(parents=True, exist_ok=True)
        rows = {
            "premise": [f"a man {i}" for i in range(count)],
            "hypothesis": [f"a person {name}"] * count,
            "label": label * (count // 2),
        }
        pq.write_table(pa.table(rows), tmp_path / "glue" / "mnli" / f"{name}.parquet")
    data = SentenceData(
        name="glue", path="nyu-mll/glue", config="mnli", second_column="guess", tokenizer="byte", batch_size=4, test=4
    )
    data.prepare()
    assert data.sizes() == {"train": 36, "val": 8, "test": 4} and data.text("val", 0).endswith(
        "a person validation_matched"
    )


# -- weights travel ---------------------------------------------------------------------------------------------------

KINDS = ("character", "byte", "bpe", "word")


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_all_kinds_are_read_with_each_others_vocabulary(file, tmp_path, kind):
    (tmp_path / "text.txt").write_text("a really good film! bad, what a bad film this is\n" * 90)
    pq.write_table(pa.table({"de": ["ein Film"] * 40, "en": ["a film"] * 40}), tmp_path / "pairs.parquet")
    same = {"batch_size": 2}
    made = {
        "running": TextData(name="running", path=str(tmp_path / "text.txt"), context_length=8, **same),
        "sentences": SentenceData(name="sentences", path=str(file), **same),
        "pairs": PairData(name="pairs", path=str(tmp_path / "pairs.parquet"), source="de", target="en", **same),
    }
    first = SentenceData(name="first", path=str(file), tokenizer=kind, vocab_size=300, min_count=1, **same)
    first.prepare()
    state = json.loads(json.dumps(first.state()))
    text = "a good film"
    for name, data in made.items():
        data.load_state(state)
        data.prepare()
        tokenizer = data.source_tokenizer if name == "pairs" else data.tokenizer
        assert tokenizer.encode(text).tolist() == first.tokenizer.encode(text).tolist(), name
        again = json.loads(json.dumps(data.state()))
        assert {key: again[key] for key in ("tokenizer", "vocabulary", "reserved")} == {
            key: state[key] for key in ("tokenizer", "vocabulary", "reserved")
        }
        state = again  # goes on to the next


@pytest.mark.parametrize(
    "state, words",
    [
        ({"mean": [0.5], "std": [0.2]}, "has no vocabulary to read it with"),
        ({"tokenizer": "morse", "vocabulary": "", "reserved": 8}, "tokenizer is morse, which there is not"),
        ({"tokenizer": "word", "vocabularies": ["a", "b"]}, "one for each of two languages"),
        (
            {"tokenizer": "word", "vocabulary": "a", "target_vocabulary": "b", "reserved": 8},
            "one for each of two languages",
        ),
    ],
)
def test_a_state_that_cannot_be_used_is_refused(file, state, words):
    for data in (SentenceData(name="sentences", path=str(file)), TextData(name="text", path=str(file))):
        with pytest.raises(ConfigError, match=words):
            data.load_state(state)


def test_vocabularies_without_the_ids_that_are_needed_are_refused(file, tmp_path):
    running = {"tokenizer": "byte", "vocabulary": "", "reserved": 0}  # an older run's
    for data in (PairData(name="pairs", path="x", source="de", target="en"), CaptionData(name="captions", path="x")):
        with pytest.raises(ConfigError, match="writes texts from BEGIN to END"):
            data.load_state(running)
    data = SentenceData(name="sentences", path=str(file))
    data.learns = "text"
    data.load_state(running)
    with pytest.raises(ConfigError, match="needs a token at the end of each text"):
        data.prepare()
    with pytest.raises(ConfigError, match="The vocabulary of the tokenizer bpe cannot be read"):
        data.load_state({"tokenizer": "bpe", "vocabulary": "{", "reserved": 8})
        data.prepare()


def test_a_state_of_an_older_run_gives_the_same_ids(file):
    data = SentenceData(name="sentences", path=str(file), batch_size=2)
    data.load_state({"tokenizer": "word", "vocabulary": "film\ngood"})
    data.prepare()
    assert data.encode(["Good film!"])[0].tolist() == [[5, 4, UNKNOWN]] and data.specs("classes")[0].vocab_size == 6


# -- swapped words ----------------------------------------------------------------------------------------------------


def test_half_of_the_texts_have_two_words_swapped(tmp_path):
    texts = [f"a man in blue number{i} stands there ." for i in range(200)] + ["two"]
    pq.write_table(pa.table({"en": texts, "de": texts}), tmp_path / "set.parquet")

    def made(**options: Any) -> list[tuple[str, int]]:
        data = SwappedWords(
            name="swapped", path=str(tmp_path / "set.parquet"), text_column="en", batch_size=4, **options
        )
        data.prepare()
        assert sum(data.sizes().values()) == 200 and data.classes.count == 2
        return [(data.text(s, i), int(data.rows(s)[0].labels[i])) for s, n in data.sizes().items() for i in range(n)]

    rows = made()
    assert 70 < sum(label for _, label in rows) < 130
    assert all((text in texts) == (label == 0) and text.endswith(" .") for text, label in rows)
    for text, label in rows:
        (row,) = (t.split() for t in texts if sorted(t.split()) == sorted(text.split()))
        moved = [i for i, (one, other) in enumerate(zip(row, text.split())) if one != other]
        assert moved == [] if not label else len(moved) == 2 and moved[1] == moved[0] + 1
    assert made(seed=7) == rows != made(split_seed=1)
    data = SwappedWords(name="swapped", path=str(tmp_path / "set.parquet"), text_column="en", batch_size=4)
    data.learns = "text"
    data.prepare()
    assert all(data.text(split, i) in texts for split, count in data.sizes().items() for i in range(count))


@pytest.mark.parametrize(
    "text, swapped",
    [
        ("A man sleeps.", None),  # the capital and the full stop stay
        ("A tall man sleeps.", {"A man tall sleeps."}),
        ("a tall man sleeps", {"tall a man sleeps", "a man tall sleeps", "a tall sleeps man"}),
        ("so so", None),
        ("good, bad", None),
        ("", None),
    ],
)
def test_only_the_order_tells_that_words_are_swapped(text, swapped):
    found = {swap_words(text, place / 10) for place in range(10)}
    assert found == ({None} if swapped is None else swapped)
