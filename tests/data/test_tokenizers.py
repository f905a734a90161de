"""Texts as ids and back, with and without ids reserved for padding, the unknown, beginning and end."""

from __future__ import annotations

import json
import runpy
import sys
import unicodedata
from typing import Any

import pytest

import epochal.data.tokenizers
from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN, END, MASK, PAD, RESERVED, UNKNOWN, ReservedIds
from epochal.data import tokenizers, vocabularies
from epochal.data.tokenizers import REPLACEMENT, BytePairs, Bytes, Characters, HuggingFace, Words, to_huggingface
from epochal.data.vocabularies import OLDER, chosen, from_state, learn

VARIED = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 漢字 🙂 e\u0301\n\t\x00\n\n  x  \u2028y\n"
LINES = ["the cat sat on the mat.", "The dog sat on the log!", "a cat and a dog"] * 20


@pytest.fixture(scope="module")
def pairs() -> BytePairs:
    return BytePairs.learn(LINES, vocab_size=300)


# -- every kind -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
@pytest.mark.parametrize("text", [*LINES[:3], VARIED])
def test_a_text_comes_back(kind, text):
    tokenizer = learn(kind, [*LINES, VARIED], vocab_size=400)
    ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(ids) == text
    assert min(ids) >= RESERVED and max(ids) < len(tokenizer)


@pytest.mark.parametrize("kind", ["character", "byte", "word", "bpe"])
def test_many_texts_are_encoded_as_one_by_one(kind):
    tokenizer = learn(kind, LINES, vocab_size=300)
    values, lengths = tokenizer.encode_all(LINES)
    assert values.tolist() == [i for line in LINES for i in tokenizer.encode(line).tolist()]
    assert lengths.tolist() == [len(tokenizer.encode(line)) for line in LINES]
    assert [len(part) for part in tokenizer.encode_all([])] == [0, 0]


@pytest.mark.parametrize("kind", ["character", "byte", "word", "bpe"])
def test_a_tokenizer_is_restored_from_its_vocabulary(kind):
    tokenizer = learn(kind, LINES, vocab_size=300)
    again = from_state(json.loads(json.dumps(tokenizer.state())))
    text = "the dog and a mouse"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist() and len(again) == len(tokenizer)
    assert again.ids == tokenizer.ids == ReservedIds(*range(8)) and again.ids.mask == MASK


@pytest.mark.parametrize("kind", ["character", "byte", "word", "bpe"])
def test_reserved_ids_are_no_text(kind):
    tokenizer = learn(kind, LINES, vocab_size=300)
    ids = tokenizer.encode("the cat").tolist()
    assert tokenizer.decode([BEGIN, *ids, END, MASK, 5, 6, 7, PAD, PAD]) == "the cat"
    assert not {PAD, BEGIN, END} & set(tokenizer.encode("<pad> <s> </s> [PAD] \x00\x01\x02\x03").tolist())


# -- characters and bytes -------------------------------------------------------------------------------------------


def test_halves_of_characters_are_characters():
    tokenizer = Characters.learn("a\ud800b")
    assert tokenizer.decode(tokenizer.encode("\ud800ab")) == "\ud800ab"


def test_an_unknown_character_is_the_reserved_one():
    tokenizer = Characters.learn("abc")
    assert tokenizer.encode("abz").tolist() == [8, 9, UNKNOWN] and len(tokenizer.encode("")) == 0
    assert tokenizer.decode([8, UNKNOWN]) == f"a{REPLACEMENT}" and len(tokenizer) == 11


# kind, vocabulary and reserved ids as older runs left them, a text, and its ids there
OLD = [
    ("character", f"abc{REPLACEMENT}", 0, "abz", [0, 1, 3], f"ab{REPLACEMENT}"),
    ("character", "abc", 0, "zabzc", [0, 1, 2], "abc"),  # it cannot say that a character is unknown
    ("character", "abc", 4, "abz", [4, 5, UNKNOWN], f"ab{REPLACEMENT}"),
    ("byte", "", 0, "ab", [97, 98], "ab"),
    ("byte", "", 4, "ab", [101, 102], "ab"),
    ("word", "the\ncat", 4, "the cat purrs", [4, 5, UNKNOWN], f"the cat {REPLACEMENT}"),
]


@pytest.mark.parametrize("kind, vocabulary, reserved, text, ids, back", OLD)
def test_the_vocabularies_of_older_runs_give_the_same_ids(kind, vocabulary, reserved, text, ids, back):
    state = {"tokenizer": kind, "vocabulary": vocabulary, "reserved": reserved}
    tokenizer = from_state(state)
    assert tokenizer.encode(text).tolist() == ids and tokenizer.decode(ids) == back
    assert tokenizer.state() == state
    assert tokenizer.ids == ReservedIds(*range(reserved)) and tokenizer.ids.mask is None


def test_older_byte_pairs_give_the_same_ids(pairs):
    for reserved in (0, OLDER):
        older = from_state({**pairs.state(), "reserved": reserved})
        assert (pairs.encode(LINES[0]) - older.encode(LINES[0]) == 8 - reserved).all()
        assert older.decode(older.encode(LINES[0]).tolist()) == LINES[0]


def test_the_characters_that_a_vocabulary_lacks_are_listed(pairs):
    assert Characters.learn("abc").missing("zaby€bz") == "zy€"
    assert Characters.learn("abc").missing("abc") == ""
    assert Bytes().missing("z€") == pairs.missing("z€") == ""


def test_bytes_are_those_of_utf8():
    ids = Bytes().encode("aä").tolist()
    assert ids == [8 + byte for byte in "aä".encode()] and len(Bytes()) == 264
    assert Bytes().decode(ids[:2]) == f"a{REPLACEMENT}"  # cut in the middle of a character


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, words",
    [
        ("It's GOOD, isn't it?", "it 's good , is n't it ?"),
        ("it 's good , is n't it ?", "it 's good , is n't it ?"),  # as the treebank writes
        ("well-made: 3.5/5 \n(really)", "well - made : 3 . 5 / 5 ( really )"),
        ("'quoted' rock'n'roll can't", "' quoted ' rock ' n ' roll ca n't"),
        ("Ärger über 漢字 🙂", "ärger über 漢 字 🙂"),
    ],
)
def test_words_and_punctuation_are_tokens(text, words):
    tokenizer = Words.learn([text], vocab_size=100, min_count=1)
    assert tokenizer.decode(tokenizer.encode(text)) == words


def test_rare_words_are_unknown():
    tokenizer = Words.learn(["a a a b b c", "b a c d"], vocab_size=100, min_count=2)
    assert tokenizer.vocabulary.split("\n") == ["a", "b", "c"]  # the most frequent first
    assert tokenizer.encode("a d c").tolist() == [8, UNKNOWN, 10] and len(tokenizer) == 11
    assert tokenizer.decode([8, UNKNOWN, 10]) == f"a {REPLACEMENT} c"
    assert len(Words.learn(["a a a b b c"], vocab_size=10, min_count=1)) == 10


# -- byte pairs -----------------------------------------------------------------------------------------------------


def test_frequent_words_are_one_token(pairs):
    assert len(pairs.encode("the cat sat")) == 3 and len(pairs.encode("xyz")) == 3
    assert 256 < len(pairs) <= 300


def test_byte_pairs_are_learned_the_same_each_time(pairs):
    assert BytePairs.learn(LINES, vocab_size=300).vocabulary == pairs.vocabulary


def test_a_long_line_is_encoded_in_pieces(pairs):
    text = "the cat sat on " * 3000
    assert pairs.decode(pairs.encode(text).tolist()) == text


def test_byte_pairs_replace_halves_of_characters(pairs):
    assert pairs.decode(pairs.encode("a\ud800b").tolist()) == "a?b"


def test_a_vocabulary_must_hold_the_bytes():
    with pytest.raises(ConfigError, match="vocab_size=264 is too small for dataset.tokenizer=bpe: 264 are taken"):
        learn("bpe", LINES, vocab_size=264)


def test_the_library_is_only_imported_by_byte_pairs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # to import it is an error now
    module = runpy.run_path(epochal.data.tokenizers.__file__)
    assert len(module["Characters"].learn(LINES).encode("the cat")) == len(module["Bytes"]().encode("the cat")) == 7
    assert len(module["Words"].learn(LINES, vocab_size=300, min_count=1).encode("the cat")) == 2
    with pytest.raises(ImportError):
        module["BytePairs"].learn(LINES, vocab_size=300)


# -- words of all scripts -------------------------------------------------------------------------------------------


def words_of(text: str, learned_from: str | None = None) -> list[str]:
    words = tokenizers.Words.learn([learned_from or text], vocab_size=1000, min_count=1)
    return words.as_decoded(text).split(" ")


@pytest.mark.parametrize(
    "text, words",
    [
        ("यह फिल्म बुरी है।", ["यह", "फिल्म", "बुरी", "है", "।"]),
        ("فِيلْمٌ جَمِيل", ["فِيلْمٌ", "جَمِيل"]),
        ("Cafe\u0301 du\u0308nn", ["cafe\u0301", "du\u0308nn"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("İyi", ["i\u0307yi"]),
        ("너무 좋다!", ["너무", "좋다", "!"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("👩\u200d🔬👍🏽 ❤\ufe0f", ["👩\u200d🔬", "👍🏽", "❤\ufe0f"]),
        ("很好看 it isn't", ["很", "好", "看", "it", "is", "n't"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
    ],
)
def test_words_follow_unicode(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize("text", ["Don't stop: it's 3.5, o'clock_x!", "Grüße aus Köln, naïve ñandú", "Привет, мир"])
def test_texts_without_marks_keep_their_vocabulary_and_words(text):
    words = tokenizers.Words.learn([text], vocab_size=1000, min_count=1)
    assert sorted(words.vocabulary.split("\n")) == sorted(set(tokenizers.WORD.findall(text.lower())))
    assert words_of(text) == words_of(text, learned_from=text + " 好") == tokenizers.WORD.findall(text.lower())


def test_an_old_vocabulary_splits_as_when_it_was_learned():
    words = from_state({"tokenizer": "word", "vocabulary": "फ\nि\nल", "reserved": OLDER})
    assert words.encode("फिल").tolist() == [4, 5, 6]


def test_a_new_vocabulary_is_restored_with_its_rules():
    made = tokenizers.Words.learn(["यह फिल्म"], vocab_size=1000, min_count=1)
    again = from_state(made.state())
    assert len(again) == len(made) == 10 and again.decode(again.encode("फिल्म यह")) == "फिल्म यह"


LANGUAGES = {
    "Korean": "정말 재미있는 영화였다! 또 보고 싶다.",
    "Chinese": "这部电影非常好看，我很喜欢。",
    "Japanese": "この映画はとても面白かった。カタカナも。",
    "Hindi": "यह फिल्म बहुत अच्छी है।",
    "Arabic": "هذا الفِيلم رائع جدًّا، شكرا!",
    "Hebrew": "הסרט הזה נפלא מאוד.",
    "Thai": "ภาพยนตร์เรื่องนี้ดีมาก",
    "Russian": "Очень хороший фильм.",
    "accents, composed": "für déjà vu naïve Größe",
    "accents, apart": "fu\u0308r de\u0301ja\u0300 vu",
    "emoji": "👍🏽 🎉 👩‍👩‍👧 ❤️ 🇰🇷",
    "both directions": "film هذا 3 סרט 영화",
    "old and rare": "𠮷野家 𝒳 𐍈 ﷽",
}


@pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)
@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
@pytest.mark.parametrize("reserved", [0, OLDER, RESERVED])
def test_a_text_of_any_language_comes_back_as_it_was(text, kind, reserved):
    made = learn(kind, [text] * 3, vocab_size=400)
    again = from_state({**made.state(), "reserved": reserved})
    assert again.decode(again.encode(text)) == text
    assert UNKNOWN not in again.encode(text) or not reserved


@pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)
def test_words_of_any_language_are_known_and_lose_spaces_and_capitals_alone(text):
    made = vocabularies.learn_or_restore("word", None, [text], vocab_size=1000)
    ids = made.encode(text)
    assert UNKNOWN not in ids and made.decode(ids) == made.as_decoded(text)
    assert "".join(made.decode(ids).split()) == "".join(text.lower().split())
    starts = [made.decode([token])[:1] for token in ids if made.kind == "word"]
    assert len(ids) > 1 and not any(unicodedata.category(start).startswith("M") for start in starts)


@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_a_text_in_parts_has_the_ids_of_the_whole(kind, size, monkeypatch):
    monkeypatch.setattr(tokenizers, "AT_ONCE", 5)
    text = VARIED + "a\r\nb\r" + " ".join(LINES[:3]) + "\n\n"
    tokenizer = learn(kind, [*LINES, text], vocab_size=400)
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(tokenizers.pieces(parts)) == list(tokenizers.pieces([text]))
    found = [i for ids in tokenizer.encode_running(parts) for i in ids.tolist()]
    assert found == tokenizer.encode(text).tolist() == [i for p in [text] for i in tokenizer.encode(p).tolist()]


def test_pieces_are_the_lines_and_the_parts_of_long_ones(monkeypatch):
    monkeypatch.setattr(tokenizers, "AT_ONCE", 5)
    assert list(tokenizers.pieces(["ab\n", "c", "defghijk\n\n", "l"])) == ["ab\n", "cdefg", "hijk\n", "\n", "l"]


# -- tokenizer.json -------------------------------------------------------------------------------------------------


def byte_level() -> Any:
    """Byte pairs as GPT-2 has them."""
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer(library.models.BPE())
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet()
    )
    engine.train_from_iterator(LINES, trainer)
    return engine


def word_piece() -> Any:
    """Word pieces as BERT has them, with its template."""
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = library.normalizers.BertNormalizer()
    engine.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    engine.decoder = library.decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    engine.train_from_iterator(LINES, library.trainers.WordPieceTrainer(vocab_size=80, special_tokens=names))
    engine.post_processor = library.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    engine.enable_padding()
    engine.enable_truncation(8)
    return engine


def meta_space() -> Any:
    """Pieces with ▁ and bytes, as Llama has them."""
    library = pytest.importorskip("tokenizers")
    names = ["<unk>", "<s>", "</s>"]
    tokens = [*names, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    engine = library.Tokenizer(
        library.models.BPE({t: i for i, t in enumerate(tokens)}, [], unk_token="<unk>", byte_fallback=True)
    )
    engine.normalizer = library.normalizers.Sequence(
        [library.normalizers.Prepend("▁"), library.normalizers.Replace(" ", "▁")]
    )
    decoders = library.decoders
    engine.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    engine.add_special_tokens(names)
    return engine


FILES = {
    "gpt2": (byte_level, {"begin": 0, "end": 0}),
    "bert": (word_piece, {"pad": 0, "unknown": 1, "begin": 2, "end": 3, "mask": 4}),
    "llama": (meta_space, {"unknown": 0, "begin": 1, "end": 2}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_tokenizer_json_gives_the_ids_of_the_library(name, tmp_path):
    make, ids = FILES[name]
    engine = make()
    engine.save(str(tmp_path / "tokenizer.json"))
    kind, state = chosen(str(tmp_path), ("byte",))
    assert kind == "huggingface" and chosen(str(tmp_path / "tokenizer.json"), ("byte",)) == (kind, state)
    tokenizer = from_state(json.loads(json.dumps(state)))
    assert tokenizer.ids == ReservedIds(**ids) and len(tokenizer) == engine.get_vocab_size()
    assert tokenizer.adds_special == (name == "bert")
    engine.no_truncation()
    for text in (*LINES[:3], *LANGUAGES.values(), VARIED):
        found = tokenizer.encode(text)
        assert found.tolist() == engine.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode_all([text, "a"])[0].tolist() == [*found.tolist(), *tokenizer.encode("a").tolist()]
        if name != "bert":
            assert tokenizer.decode([*found.tolist(), ids["end"]]) == text
    assert not set(ids.values()) & set(tokenizer.encode("<|endoftext|> <s> </s> [CLS]".replace(" ", "")).tolist()) - {
        ids.get("unknown")
    }


def test_a_long_text_is_encoded_in_long_pieces(monkeypatch):
    monkeypatch.setattr(tokenizers, "LONG_PIECE", 40)
    tokenizer = HuggingFace(byte_level().to_str())
    text = "\n".join(LINES) + "x" * 100
    found = []
    for size in (7, 1000, len(text)):
        parts = (text[start : start + size] for start in range(0, len(text), size))
        found.append([i for ids in tokenizer.encode_running(parts) for i in ids.tolist()])
    assert found[0] == found[1] == found[2] and tokenizer.decode(found[0]) == text


@pytest.mark.parametrize("texts", [LINES, [*LINES, *LANGUAGES.values(), VARIED, "it's, don't! İstanbul ΣΑΣΑ"]])
@pytest.mark.parametrize("reserved", [OLDER, RESERVED])
def test_words_are_written_as_a_tokenizer_json(texts, reserved):
    """Whether or not they have combining marks or scripts without spaces, which another pattern splits."""
    library = pytest.importorskip("tokenizers")
    learned = Words.learn(texts, vocab_size=300, min_count=1)
    tokenizer = from_state({**learned.state(), "reserved": reserved})
    engine = library.Tokenizer.from_str(to_huggingface(tokenizer))
    assert engine.get_vocab_size() == len(tokenizer)
    for text in (*texts, "the Unseen word's end", "caf\u0065\u0301 x_1 ½"):
        ids = tokenizer.encode(text).tolist()
        assert engine.encode(text).ids == ids, text
        assert engine.decode(ids, skip_special_tokens=False).replace("<unk>", REPLACEMENT) == tokenizer.decode(ids)
    again = HuggingFace(engine.to_str())
    assert again.word_starts().all() and not again.keeps_text and not tokenizer.keeps_text


@pytest.mark.parametrize("kind", ["character", "byte", "bpe"])
@pytest.mark.parametrize("reserved", [0, OLDER, RESERVED])
def test_a_tokenizer_is_written_as_a_tokenizer_json(kind, reserved):
    library = pytest.importorskip("tokenizers")
    texts = [*LINES, *LANGUAGES.values(), VARIED, "<s>bold</s> <pad>" * 9, "a\n\nb\r\n  c"]
    tokenizer = from_state({**learn(kind, texts, vocab_size=900).state(), "reserved": reserved})
    engine = library.Tokenizer.from_str(to_huggingface(tokenizer))
    assert engine.get_vocab_size() == len(tokenizer)
    for text in texts:
        if "<s>" in text:
            continue  # there it is the reserved token
        ids = tokenizer.encode(text).tolist()
        assert engine.encode(text).ids == ids, text
        assert engine.decode(ids) == text
    again = HuggingFace(engine.to_str())
    assert again.encode("the cat").tolist() == tokenizer.encode("the cat").tolist()
    if reserved and kind != "bpe":  # byte pairs have learned <s>
        assert again.ids == tokenizer.ids and to_huggingface(again) == again.vocabulary


def test_a_tokenizer_json_puts_texts_between_begin_and_end(pairs):
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer.from_str(to_huggingface(pairs, special_tokens=True))
    first, second = (pairs.encode(text).tolist() for text in ("the cat", "a dog"))
    assert engine.encode("the cat").ids == [BEGIN, *first, END]
    both = engine.encode("the cat", "a dog")
    assert both.ids == [BEGIN, *first, END, *second, END] and both.type_ids == [0] * (len(first) + 2) + [1] * (
        len(second) + 1
    )


@pytest.mark.parametrize("name", [*FILES, "byte", "bpe", "character"])
def test_a_word_is_known_by_its_first_token(name):
    """Of each way in which tokenizers mark words: a space before GPT-2's, Llama's block, BERT's ## within words."""
    text = "über dog xyz"
    made = HuggingFace(FILES[name][0]().to_str()) if name in FILES else None
    tokenizer = made or learn(name, [text, *LINES], vocab_size=300)
    starts = tokenizer.word_starts()[tokenizer.encode(text)]
    starts[0] = True  # as the text does
    assert starts.sum() == 3
