"""Text as it is written: whole characters, stops, ends, seeds, log-probabilities, and what is too long to read."""

from __future__ import annotations

import pytest
import torch

from epochal.core.specs import ASSISTANT, BEGIN, END, RESERVED, USER
from epochal.data.tokenizers import Bytes, Words
from epochal.inference.writing import ContextFullError, Settings, Writer
from epochal.models import GPT
from helpers.writers import scripted

WORDS = Words("hello\nthere\nbye")


def written(writer, prompt="x", **settings):
    """The pieces of a text, and why it ended."""
    pieces = list(writer.write(writer.text_prompt(prompt), Settings(**{"length": 1000, **settings})))
    assert [piece.finish is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return [piece.text for piece in pieces], pieces[-1].finish


def random_writer(vocab=RESERVED + 256):
    torch.manual_seed(0)
    model = GPT(vocab_size=vocab, context_length=16, depth=1, num_heads=2, embed_dim=8)
    return Writer(model.eval(), Bytes(), begins=False, converses=False)


def test_a_character_comes_with_the_last_of_its_tokens():
    assert written(scripted("é漢🙂a")) == (["", "é", "", "", "漢", "", "", "", "🙂", "a", ""], "stop")


def test_bytes_that_are_no_character_are_shown_as_such_once_that_is_certain():
    assert written(scripted(b"a\xffb")) == (["a", "", "\ufffdb", ""], "stop")
    assert written(scripted(b"a\xe6")) == (["a", "", "\ufffd"], "stop")
    assert written(scripted(b"\xe6\xbc\xe6\xbc\xa2"))[0] == ["", "", "\ufffd", "", "漢", ""]


def test_half_a_character_at_the_last_token_is_left_out():
    assert written(scripted("é漢"), length=4) == (["", "é", "", ""], "length")


def test_a_long_text_is_the_same_in_pieces_as_at_once():
    text = "한국어 and ελληνικά, 漢字🙂! " * 6
    assert "".join(written(scripted(text), length=5000)[0]) == text


def test_words_that_go_on_with_a_text_keep_their_space_and_those_of_an_answer_begin_without_one():
    writer = scripted("there bye", tokenizer=WORDS)
    assert written(writer, "hello")[0] == [" there", " bye", ""]
    prompt = writer.conversation_prompt([{"role": "user", "content": "hello"}])
    assert prompt == [BEGIN, USER, *WORDS.encode("hello"), END, ASSISTANT]
    assert [piece.text for piece in writer.write(prompt, Settings(length=9))] == ["there", " bye", ""]


def test_single_texts_begin_with_begin():
    writer = scripted("a", begins=True)
    written(writer, "b")
    assert writer.model.prompts == [[BEGIN, *Bytes().encode("b").tolist()]]


@pytest.mark.parametrize(
    "text, stop, pieces, finish",
    [
        ("abENDc", ("END",), ["a", "b", "", "", ""], "stop"),
        ("abENc", ("END",), ["a", "b", "", "", "ENc", ""], "stop"),
        ("aEEND", ("END",), ["a", "", "E", "", ""], "stop"),
        ("abc", ("bc", "b"), ["a", ""], "stop"),
        ("a\n\nb", ("\n\n",), ["a", "", ""], "stop"),
        ("aé漢", ("漢",), ["a", "", "é", "", "", ""], "stop"),
        ("abEN", ("END",), ["a", "b", "", "", "EN"], "stop"),
    ],
)
def test_a_stop_ends_the_text_and_nothing_of_it_is_shown(text, stop, pieces, finish):
    assert written(scripted(text), stop=stop) == (pieces, finish)


def test_what_might_have_been_a_stop_is_shown_at_the_last_token():
    assert written(scripted("abENx"), stop=("END",), length=4) == (["a", "b", "", "EN"], "length")


def test_after_its_end_nothing_more_is_drawn():
    writer = scripted("ab", "abcdef")
    pieces = list(writer.write([9], Settings(length=100, rows=2, stop=("cd",))))
    texts = ["".join(piece.text for piece in pieces if piece.row == row) for row in range(2)]
    assert texts == ["ab", "ab"] and writer.model.steps == 4
    assert [piece.finish for piece in pieces if piece.row == 0] == [None, None, "stop"]


def test_closing_it_stops_the_network():
    writer = scripted("abcdef")
    pieces = writer.write([9], Settings(length=100))
    next(pieces), next(pieces)
    pieces.close()
    assert writer.model.steps == 2


def test_one_seed_writes_one_text_and_no_seed_another_each_time():
    writer = random_writer()
    texts = ["".join(written(writer, length=40, seed=seed)[0]) for seed in (1, 1, 2, None, None)]
    assert texts[0] == texts[1] and len(set(texts)) == 4


def test_reserved_tokens_are_never_drawn():
    writer = random_writer(vocab=RESERVED + 256)
    with torch.no_grad():  # every token but END is as likely as the others
        writer.model.embed.weight.zero_()
    steps = writer.model.stream(torch.tensor([[9]]), length=1, forbidden=writer.forbidden)
    assert set(torch.isinf(next(steps).logits)[0].nonzero().flatten().tolist()) == set(range(RESERVED)) - {END}
    drawn = [
        piece.scored.text for piece in writer.write([9], Settings(length=400, alternatives=0, seed=1)) if piece.scored
    ]
    assert all(drawn)


def test_log_probabilities_are_those_of_the_network_at_temperature_one():
    writer = random_writer()
    pieces = list(writer.write([9, 10], Settings(length=6, temperature=0.5, seed=3, alternatives=2)))
    ids, logs = [9, 10], []
    forbidden = [token for token in range(RESERVED) if token != END]
    text = writer.model.generate(
        torch.tensor([[9, 10]]),
        length=6,
        temperature=0.5,
        forbidden=forbidden,
        generator=torch.Generator().manual_seed(3),
    )[0].tolist()
    for token in text[2:]:
        logits = writer.model(torch.tensor([ids]))[0, -1].index_fill(0, torch.tensor(forbidden), float("-inf"))
        logs.append(logits.log_softmax(0))
        ids.append(token)
    assert [piece.scored.text for piece in pieces] == [Bytes().decode([token]) for token in text[2:]]
    for piece, log, token in zip(pieces, logs, text[2:]):
        assert piece.scored.log_probability == pytest.approx(log[token].item(), abs=1e-5)
        assert [value for _, value in piece.scored.alternatives] == pytest.approx(log.topk(2).values.tolist(), abs=1e-5)


def test_what_the_context_has_no_room_for_is_refused():
    writer = scripted("a", context_length=8, begins=True)
    assert len(writer.text_prompt("1234567")) == 8
    with pytest.raises(ContextFullError, match="The prompt has 9 tokens, but 8 are the most"):
        writer.text_prompt("12345678")
    assert writer.room(writer.conversation_prompt([{"role": "user", "content": "123"}])) == 1
    with pytest.raises(ContextFullError, match="have 8 tokens, which leaves no room for an answer"):
        writer.conversation_prompt([{"role": "user", "content": "1234"}])


def test_a_text_may_be_cut_at_its_beginning():
    assert scripted("a", context_length=4, begins=True).text_prompt("12345", cut=True) == [
        BEGIN,
        *Bytes().encode("345"),
    ]
    assert scripted("a", begins=True).text_prompt("12345", cut=True) == [BEGIN, *Bytes().encode("12345")]
