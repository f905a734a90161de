"""Questions over letters: that the answers are right, that only they are asked for, and what can read them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import IGNORED
from epochal.data import LetterTasks
from epochal.data.batching import BatchIndices
from epochal.data.letter_tasks import KINDS
from epochal.data.tokenizers import BytePairs, Characters


def tasks(**options: Any) -> LetterTasks:
    data = LetterTasks(name="letter_tasks", **{"batch_size": 8, "length": 8, **options})
    data.learns = "text"
    data.prepare()
    return data


def questions(data: LetterTasks, count: int = 200) -> list[tuple[str, str]]:
    """What is read up to the answer, and what is asked for."""
    batch = data.make("test", BatchIndices(torch.arange(count), 0))
    found = []
    for inputs, targets in zip(batch.inputs, batch.targets):
        asked = targets != IGNORED
        first = int(asked.int().argmax())
        assert asked[first : first + int(asked.sum())].all(), "the answer has no gap"
        found.append(
            (data.tokenizer.decode(inputs[: first + 1].tolist()), data.tokenizer.decode(targets[asked].tolist()))
        )
    return found


def closed(text: str) -> str:
    """What closes the letters that are open, by a stack."""
    stack: list[str] = []
    for sign in text:
        if sign.islower():
            stack.append(sign)
        else:
            assert stack.pop() == sign.lower()
    return "".join(stack[::-1]).upper()


ANSWERS = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "lookup": lambda text: dict(zip(text.split()[0][::2], text.split()[0][1::2]))[text.split()[1]],
    "nesting": lambda text: closed(text) + "\n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_are_right_and_only_they_are_asked_for(kind):
    found = questions(tasks(kind=kind))
    assert all(question.endswith(":") and answer == ANSWERS[kind](question[:-1]) for question, answer in found)
    assert len(set(found)) > 190
    if kind == "nesting":
        assert len({len(answer) for _, answer in found}) > 3
    if kind == "lookup":
        assert all(question[:8].count(question[-2]) == 1 for question, _ in found), "the letter stands there once"


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_length_that_the_specs_say_and_a_prompt_that_is_a_question(kind):
    data = tasks(kind=kind)
    assert data.make("test", BatchIndices(torch.arange(500), 0)).inputs.shape == (500, data.specs("text")[0].length)
    assert data.prompt.endswith(":") and ANSWERS[kind](data.prompt[:-1])


def test_the_letters_are_read_by_the_tokenizer_of_another_run():
    data = tasks()
    data.load_state(Characters(" :\nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").state())
    data.prepare()
    assert all(answer == question[:-1] for question, answer in questions(data))
    for tokenizer in (Characters("abc:"), BytePairs.learn(["the cat"] * 50, vocab_size=300)):
        with pytest.raises(ConfigError, match="is read letter by letter"):
            data.load_state(tokenizer.state())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "sort"}, "dataset.kind=sort must be one of copy, reverse, lookup, nesting"),
        ({"kind": "lookup", "length": 7}, "dataset.length=7 must be even"),
        ({"kind": "lookup", "length": 52}, "below 52"),
    ],
)
def test_wrong_options_are_a_sentence(options, says):
    with pytest.raises(ConfigError, match=says):
        LetterTasks(name="letter_tasks", **options)
