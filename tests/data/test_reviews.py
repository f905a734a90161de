"""Sentences and their phrases: no sentence is in two parts or halves, and what is made of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import END, IGNORED
from epochal.data import ReviewConversations, ReviewPreferences, SentenceHalf
from epochal.data.batching import BatchIndices
from epochal.data.reviews import parts_by_sentence, sentences_of, whole_rows

SENTENCES = [f"film{n} was so very {'good' if n % 2 else 'bad'} that we saw it {n} times again" for n in range(40)]
PHRASES = [" ".join(text.split()[:3]) for text in SENTENCES] + [" ".join(text.split()[-3:]) for text in SENTENCES]
TEXTS = [*SENTENCES, *PHRASES, "so very good"]


@pytest.fixture
def folder(tmp_path):
    tmp_path = tmp_path / "treebank"
    tmp_path.mkdir()
    labels = [int("good" in text) if text in SENTENCES else n % 2 for n, text in enumerate(TEXTS)]
    pq.write_table(pa.table({"sentence": TEXTS, "label": labels}), tmp_path / "train.parquet")
    held = pa.table(
        {"sentence": ["a thing that is one and two and three and good"] * 4 + SENTENCES[:4], "label": [1, 0] * 4}
    )
    pq.write_table(held, tmp_path / "validation.parquet")
    return tmp_path


def prepared(kind, folder, learns, **options):
    data = kind(name="mine", path=str(folder), batch_size=2, tokenizer="word", min_count=1, **options)
    data.learns = learns
    data.prepare()
    return data


def test_a_phrase_belongs_to_the_sentences_that_have_it():
    found = sentences_of(["b c", "a b c d", "x b c", "a b c d", "d"])
    assert found[0] == {1, 2} and found[1] == found[3] and len(found[1]) == 1 and found[4] == found[1]
    assert whole_rows(["b c", "a b c", "x b c"]).tolist() == [1, 2]


def test_no_sentence_is_in_two_parts_or_halves():
    parts = {half: parts_by_sentence(TEXTS, half=half, test=0.25, seed=3) for half in ("first", "second")}
    sets = {(half, role): set(rows.tolist()) for half, found in parts.items() for role, rows in found.items()}
    assert [len(rows & set(range(40))) for rows in sets.values()] == [15, 5, 15, 5]
    assert sum(map(len, sets.values())) == len(set().union(*sets.values())) == len(TEXTS) - 1
    assert not any(len(TEXTS) - 1 in rows for rows in sets.values()), "a phrase of sentences in several parts"
    for rows in sets.values():
        films = {TEXTS[row].split()[0] for row in rows if TEXTS[row].startswith("film")}
        assert len(films) == len(rows & set(range(40))), "phrases go with their sentence"
    both = parts_by_sentence(TEXTS, half=None, test=None, seed=3)
    assert len(both["train"]) == len(TEXTS)


def test_a_judges_half_has_no_text_of_the_other(folder):
    halves = [prepared(SentenceHalf, folder, "classes", half=half, test=0.2) for half in ("first", "second")]
    texts = [
        {data.text(split, row) for split in ("train", "test") for row in range(data.rows(split)[1])} for data in halves
    ]
    assert not texts[0] & texts[1]
    assert halves[0].sizes() == {"train": 48, "val": 8, "test": 12}
    whole = prepared(SentenceHalf, folder, "text", half="first", whole=True, test=0.2)
    assert whole.sizes() == {"train": 16, "val": 5, "test": 4}


def test_the_first_words_of_a_sentence_are_the_prompt(folder):
    data = prepared(ReviewConversations, folder, "answers", template="plain", half="first", max_length=32)
    rows, count = data.rows("train")
    made = rows[BatchIndices(torch.arange(count), 0)]
    assert (made.targets[:, :3] == IGNORED).all() and (made.targets[:, 3] != IGNORED).all()
    ids = [token for token in made.targets[0].tolist() if token != IGNORED]
    assert ids[-1] == END and "so very" not in data.tokenizer.decode(ids), "three words are given"
    with pytest.raises(ConfigError, match="least_words=3 must be above dataset.prompt_words=3"):
        ReviewConversations(name="mine", path="x", least_words=3)
    with pytest.raises(ConfigError, match="split train, has dataset.least_words=99"):
        prepared(ReviewConversations, folder, "answers", template="plain", least_words=99)


def test_pairs_are_of_two_classes_and_of_one_length(folder):
    data = prepared(ReviewPreferences, folder, "preferences", template="plain", max_length=32)
    rows, count = data.rows("train")
    made = rows[BatchIndices(torch.arange(count), 0)]
    assert (made.lengths[:, 0] - made.lengths[:, 1]).abs().float().mean() < 3
    for pair, lengths in zip(made.inputs, made.lengths):
        good, bad = (data.tokenizer.decode(side[:n].tolist()) for side, n in zip(pair, lengths))
        assert "bad" not in good and "good" not in bad
    assert count > 30


def test_a_wrong_half_is_refused():
    with pytest.raises(ConfigError, match="half=third must be one of first, second, or null"):
        SentenceHalf(name="mine", path="x", half="third")


def test_the_seed_decides_which_sentences_are_where():
    first, again, other = (parts_by_sentence(TEXTS, half="first", test=0.2, seed=seed)["train"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
