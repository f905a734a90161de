"""Which tokenizer a data set has: chosen, learned, or taken from the state of another run."""

from __future__ import annotations

import pytest

from epochal.core.errors import ConfigError
from epochal.core.specs import RESERVED, UNKNOWN
from epochal.data.tokenizers import Words
from epochal.data.vocabularies import chosen, learn_or_restore, note, read_state, reserves_others


@pytest.mark.parametrize(
    "texts, kind",
    [
        (["这部电影太无聊了", "很好看"], "bpe"),
        (["この映画はとても面白い"], "bpe"),
        (["ภาพยนตร์ดีมาก"], "bpe"),
        (["너무 지루한 영화"], "word"),
        (["यह फिल्म"], "word"),
        (["a good film 很"], "word"),
    ],
)
def test_byte_pairs_take_the_place_of_words_where_there_are_no_spaces(texts, kind):
    made = learn_or_restore("word", None, texts, vocab_size=1000)
    assert made.kind == kind and (UNKNOWN not in made.encode(texts[0]))
    said = note("word", made, [made.encode(texts[0])])
    assert ("dataset.tokenizer=bpe takes the place of word" in said) == (kind == "bpe")


@pytest.mark.parametrize("vocab_size", [100, 264])
def test_byte_pairs_that_were_chosen_for_the_user_need_a_vocabulary(vocab_size):
    with pytest.raises(ConfigError, match="tokenizer=bpe takes the place of word, and dataset.vocab_size=.* too small"):
        learn_or_restore("word", None, ["这部电影太无聊了"], vocab_size=vocab_size)


def test_many_unknown_tokens_are_told_with_their_share():
    words = Words.learn(["good good film"], vocab_size=1000, min_count=2)
    assert note("word", words, [words.encode("good good film x")]).startswith("50% of the tokens are unknown")
    assert note("word", words, [words.encode("good " * 19 + "x")]) == ""  # 5 %


@pytest.mark.parametrize(
    "content, words",
    [(None, "does not exist"), ("", "has no tokenizer.json"), ("{}", "cannot be read as a tokenizer")],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "folder").mkdir()
    if content:
        (tmp_path / "folder" / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        chosen(str(tmp_path / "folder"), ("byte",))


WORDS = {"tokenizer": "word", "vocabulary": "a\nb", "reserved": RESERVED}


@pytest.mark.parametrize(
    "state, most, words",
    [
        ({}, 2, "the other run has no vocabulary"),
        ({**WORDS, "target_vocabulary": "c"}, 1, "one for each of two languages"),
        ({**WORDS, "tokenizer": "syllable"}, 2, "tokenizer is syllable, which there is not. There are: .*word"),
        ({**WORDS, "reserved": 0}, 2, "has no such ids of its own"),
    ],
)
def test_a_vocabulary_that_cannot_read_the_data_is_refused(state, most, words):
    with pytest.raises(ConfigError, match=words):
        read_state(state, "mine", older=RESERVED, pads=True, most=most)


def test_the_state_of_another_run_says_what_it_reserves_or_is_of_an_older_one():
    assert read_state(WORDS, "mine", older=4) == WORDS and not reserves_others(WORDS)
    older = {"tokenizer": "word", "vocabularies": ["a\nb", "c"]}
    assert read_state(older, "mine", older=4) == {**WORDS, "reserved": 4} and reserves_others(older)
