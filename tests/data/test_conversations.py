"""Conversations, preferences and prompts: layouts, templates, what is learned of them, and rows that are refused."""

from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import ASSISTANT, BEGIN, END, IGNORED, PAD, SYSTEM, USER
from epochal.data import ConversationData, PreferenceData
from epochal.data.batching import BatchIndices
from epochal.data.conversations import packed


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def chats(count=12):
    return [{"messages": [user(f"say {'a' * (n % 4 + 1)}"), assistant("b" * (n % 3 + 1))]} for n in range(count)]


def pairs(count=12):
    return [{"prompt": f"pick {n}", "chosen": "yes" + "!" * (n % 3), "rejected": "no"} for n in range(count)]


def prepared(folder, rows, kind=ConversationData, learns=None, **options):
    file = folder / "rows.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    data = kind(name="mine", path=str(file), batch_size=2, **{"tokenizer": "byte", **options})
    data.learns = learns or kind.targets[0]
    data.prepare()
    return data


def batch(data, split="train"):
    rows, count = data.rows(split)
    return rows[BatchIndices(torch.arange(count), 0)]


def whole(data, split="train"):
    """The tokens of each row without padding, and which of them are learned."""
    made = batch(data, split)
    for inputs, targets, length in zip(made.inputs, made.targets, made.lengths):
        yield inputs[:length].tolist(), targets[:length].tolist()


def test_only_the_assistants_tokens_are_learned_each_from_the_one_before_it(tmp_path):
    data = prepared(tmp_path, chats())
    for inputs, targets in whole(data):
        assert inputs[:2] == [BEGIN, USER] and inputs.count(ASSISTANT) == 1
        place = inputs.index(ASSISTANT)
        assert set(targets[:place]) == {IGNORED}, "the prompt"
        assert targets[place:] == [*inputs[place + 1 :], END], "from the first token of the answer to its end"
    made = batch(data)
    assert made.inputs.shape == made.targets.shape
    assert (made.inputs[torch.arange(made.inputs.shape[1]) >= made.lengths[:, None]] == PAD).all()
    assert data.conversational and data.state()["template"] == "chat"


def test_a_prompt_ends_where_the_answer_begins(tmp_path):
    learned, asked = (prepared(tmp_path, chats(), learns=learns) for learns in ("answers", "prompts"))
    prompts = {tuple(row[: row.index(ASSISTANT) + 1]) for row, _ in whole(learned)}
    made = batch(asked)
    assert {tuple(row[:length].tolist()) for row, length in zip(made.inputs, made.lengths)} == prompts
    assert made.targets.tolist() == list(range(len(made.targets)))


def test_a_plain_prompt_is_a_text_that_goes_on(tmp_path):
    rows = [{"prompt": "" if n % 2 else "once upon", "completion": " a time"} for n in range(12)]
    data = prepared(tmp_path, rows, template="plain")
    answer = [*data.tokenizer.encode(" a time").tolist(), END]
    for inputs, targets in whole(data):
        assert inputs[0] == BEGIN and targets[-len(answer) :] == answer
        assert set(targets[: -len(answer)]) <= {IGNORED}
    prompts = prepared(tmp_path, rows, template="plain", learns="prompts")
    assert int(batch(prompts).lengths.min()) == 1, "an empty prompt is the beginning of a text"
    assert not data.conversational


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [user("hi"), assistant("ho")]},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
        {"prompt": "hi", "completion": "ho"},
        {"prompt": [user("hi")], "completion": [assistant("ho")]},
        {"instruction": "hi", "input": "", "output": "ho"},
        {"question": "hi", "answer": "ho"},
    ],
    ids=lambda row: "+".join(row),
)
def test_layouts_of_conversations(tmp_path, row):
    data = prepared(tmp_path, [row] * 10)
    expected = [BEGIN, USER, *data.tokenizer.encode("hi"), END, ASSISTANT, *data.tokenizer.encode("ho")]
    assert next(whole(data))[0] == expected


@pytest.mark.parametrize(
    "row",
    [
        {"system": "be brief", "messages": [user("a"), assistant("b"), user("hi"), assistant("ho")]},
        {"system": "be brief", "instruction": "hi", "history": [["a", "b"]], "output": "ho"},
        {"system": "be brief", "prompt": [user("a"), assistant("b"), user("hi")], "completion": "ho"},
    ],
    ids=lambda row: "+".join(row),
)
def test_what_was_said_before_the_prompt(tmp_path, row):
    data = prepared(tmp_path, [row] * 10)
    said = [(SYSTEM, "be brief"), (USER, "a"), (ASSISTANT, "b"), (USER, "hi"), (ASSISTANT, "ho")]
    ids = [[role, *data.tokenizer.encode(text), END] for role, text in said]
    assert next(whole(data))[0] == [BEGIN, *chain.from_iterable(ids)][:-1]


def test_a_preference_can_have_a_system_message(tmp_path):
    row = {"system": "be brief", "prompt": "hi", "chosen": "ho", "rejected": "no"}
    made = batch(prepared(tmp_path, [row] * 10, kind=PreferenceData))
    assert made.inputs[0, 0, :2].tolist() == [BEGIN, SYSTEM]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "ho", "rejected": "no"},
        {"prompt": [user("hi")], "chosen": [assistant("ho")], "rejected": [assistant("no")]},
        {"chosen": [user("hi"), assistant("ho")], "rejected": [user("hi"), assistant("no")]},
        {"prompt": "hi", "chosen": [user("hi"), assistant("ho")], "rejected": [user("hi"), assistant("no")]},
        {"chosen": "\n\nHuman: hi\n\nAssistant: ho", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
    ],
    ids=["texts", "messages", "whole", "whole and prompt", "hh-rlhf"],
)
def test_layouts_of_preferences(tmp_path, row):
    data = prepared(tmp_path, [row] * 10, kind=PreferenceData)
    made = batch(data)
    prompt = [BEGIN, USER, *data.tokenizer.encode("hi"), END, ASSISTANT]
    for side, answer in enumerate(("ho", "no")):
        ids = [*data.tokenizer.encode(answer), END]
        assert made.inputs[0, side].tolist() == prompt + ids
        assert made.targets[0, side].tolist() == [IGNORED] * len(prompt) + ids
    assert made.lengths[0].tolist() == [len(prompt) + 3] * 2


def test_the_chosen_answers_can_be_learned_as_conversations(tmp_path):
    data = prepared(tmp_path, pairs(), kind=PreferenceData, learns="answers")
    said = {data.tokenizer.decode([token for token in targets if token != IGNORED]) for _, targets in whole(data)}
    assert said == {"yes", "yes!", "yes!!"}


BAD = [
    ({"prompt": "a", "chosen": "same", "rejected": "same "}, True, "chosen and rejected are equal"),
    ({"prompt": "a", "chosen": "b"}, True, "there is no rejected answer"),
    ({"prompt": "a", "chosen": " ", "rejected": "b"}, True, "the chosen answer is empty"),
    ({"prompt": "a", "chosen": [user("b")], "rejected": "c"}, True, "chosen must be one answer of the assistant"),
    ({"prompt": "a", "chosen": 3, "rejected": "c"}, True, "chosen must be a text or a list of messages"),
    ({"chosen": "b", "rejected": "c"}, True, "Message 1, of the user, is empty"),
    ({"messages": [assistant("a")]}, False, "no message of the user"),
    ({"messages": [user("a"), {"role": "tool", "content": "b"}]}, False, "has the role 'tool'"),
    ({"messages": [user("a"), user("b")]}, False, "Message 2 is the user's where the assistant's belongs"),
    ({"messages": [user("a"), assistant("")]}, False, "Message 2, of the assistant, is empty"),
    ({"messages": [user("a")]}, False, "no answer of the assistant"),
    ({"text": "a"}, False, "neither a conversation"),
    ({"prompt": "a", "completion": "b", "label": False}, False, "an answer that is not wanted"),
    ({"prompt": "a", "completion": "b", "tools": [{"name": "f"}]}, False, "the column tools"),
    ({"prompt": "a", "completion": "b", "history": ["c"]}, False, "history must be a list of pairs"),
    ({"messages": [user("a"), {**assistant("b"), "weight": 0}]}, False, "a message has weight=0"),
    ({"messages": [user("a"), {**assistant("b"), "tool_calls": [{}]}]}, False, "a message calls a function"),
    ({"system": "x", "messages": [{"role": "system", "content": "y"}, user("a"), assistant("b")]}, False, "two system"),
    ("{not json", False, "is not JSON"),
    ("[1]", False, "is no object"),
]


@pytest.mark.parametrize("row, preferences, sentence", BAD, ids=[sentence for *_, sentence in BAD])
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, preferences, sentence):
    rows = [*(pairs() if preferences else chats()), "", row]
    with pytest.raises(ConfigError) as raised:
        prepared(tmp_path, rows, kind=PreferenceData if preferences else ConversationData)
    assert str(raised.value).startswith("Line 14 of ") and "rows.jsonl" in str(raised.value)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


def test_a_conversation_longer_than_the_context_is_cut_or_left_out(tmp_path):
    long_answer = {"messages": [user("a"), assistant("b" * 99)]}
    long_prompt = {"messages": [user("a" * 99), assistant("b")]}
    data = prepared(tmp_path, [long_answer] * 8 + [long_prompt] * 2, max_length=16, validation=2, test=2, split_seed=1)
    assert "left out, as no answer is within dataset.max_length=16" in data.note
    for split in ("train", "val", "test"):
        assert batch(data, split).inputs.shape[1] == 15
        assert ((batch(data, split).targets != IGNORED).sum(1) > 0).all()
    with pytest.raises(ConfigError, match="has an answer within dataset.max_length=16"):
        prepared(tmp_path, [long_prompt] * 10, max_length=16)


def test_packing_joins_whole_conversations(tmp_path):
    alone, joined = (prepared(tmp_path, chats(40), packing=packing, max_length=64) for packing in (False, True))
    assert joined.rows("train")[1] < alone.rows("train")[1] / 2
    assert joined.rows("val")[1] == alone.rows("val")[1]
    learned = [int((batch(data).targets != IGNORED).sum()) for data in (alone, joined)]
    assert learned[0] == learned[1], "no token is lost"
    assert batch(joined).inputs.shape[1] < 64


def test_packed_rows_are_whole_and_fit():
    random = np.random.default_rng(0)
    ids = [np.full(length, number) for number, length in enumerate(random.integers(1, 30, 50))]
    rows, flags = packed(ids, [row % 2 == 0 for row in ids], 32)
    assert max(map(len, rows)) <= 32 and len(rows) < 1.1 * sum(map(len, ids)) / 32 + 1
    assert np.array_equal(np.sort(np.concatenate(rows)), np.concatenate(ids))
    for row, flag in zip(rows, flags):
        assert np.array_equal(row % 2 == 0, flag)
        assert all(len(ids[number]) == (row == number).sum() for number in np.unique(row))


def test_another_runs_vocabulary_without_roles_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Line \d+ of .*no token for system, user, assistant"):
        file = tmp_path / "old.jsonl"
        file.write_text("\n".join(map(json.dumps, chats())))
        data = ConversationData(name="mine", path=str(file), batch_size=2)
        data.learns = "answers"
        data.load_state({"tokenizer": "byte", "vocabulary": "", "reserved": 4})
        data.prepare()


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="template=jinja must be one of chat, plain"):
        ConversationData(name="mine", path="x", template="jinja")
    with pytest.raises(ConfigError, match="max_length"):
        ConversationData(name="mine", path="x", max_length=2)
