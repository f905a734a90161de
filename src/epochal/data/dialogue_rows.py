"""Rows of conversations and of preferences, in the layouts in which they are usually published, as messages with roles.

A conversation is a list of messages in a column `messages` or `conversations`, each {"role", "content"} or {"from", "value"};
or a prompt and an answer, texts or lists of messages: `prompt` and `completion`, `instruction` (with `input`, and `history`,
pairs of what was said before) and `output`, and the like. Each may have a `system` message beside it. A preference is a `chosen` and a `rejected` answer, texts or lists of messages; their `prompt`, or else what both
begin with; or two texts of "Human:" and "Assistant:" turns, as of Anthropic's hh-rlhf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epochal.core.errors import ConfigError
from epochal.data import sources, tables
from epochal.data.chat_template import check

MESSAGES = ("messages", "conversations", "conversation", "dialogue", "turns")
PROMPTS = ("prompt", "instruction", "question", "query")
ANSWERS = ("completion", "response", "answer", "output")
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "prompter": "user"}
TURN = re.compile(r"\n\nHuman:|\n\nAssistant:")

Messages = tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Row:
    """A conversation, or what comes before two answers.

    Attributes:
        where: The file and line, or the split and row, for messages.
        messages: Of a preference those before the answers; where texts are plain, a user's that may be empty, and an answer.
        answers: The chosen and the rejected one of a preference; else none.
    """

    where: str
    messages: Messages
    answers: tuple[str, ...] = ()

    @property
    def prompt(self) -> Messages:
        """The messages before the last answer."""
        return self.messages if self.messages[-1]["role"] != "assistant" else self.messages[:-1]

    @property
    def texts(self) -> list[str]:
        """All that is said."""
        return [message["content"] for message in self.messages] + list(self.answers)


def read(source: sources.Source, scratch: Path, *, preferences: bool, plain: bool) -> dict[str, list[Row]]:
    """The rows of a source by role (train, validation, test).

    Args:
        source: JSON lines and other tables, or a data set of the Hub.
        scratch: For temporary copies.
        preferences: Whether each row must hold a chosen and a rejected answer.
        plain: Whether a prompt is a text that the answer goes on with, and may be empty; else each row is a conversation.

    Raises:
        ConfigError: If a row is none of these, with its file and line.
    """
    found: dict[str, list[Row]] = {}
    for role, rows in _rows(source, scratch).items():
        found[role] = []
        for where, row in rows:
            try:
                made = _preference(row, where) if preferences else _conversation(row, where)
                _check(made, plain)
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from error
            found[role].append(made)
    return found


def _rows(source: sources.Source, scratch: Path) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    """Rows by role, each with where it stands: the line where files hold a row a line."""
    files = tables.table_files(source)
    if files is not None and all(tables.suffix(part) in tables.JSON for parts in files.values() for part in parts):
        read = {name: [row for part in parts for row in _json_rows(part, source)] for name, parts in files.items()}
        return {role: iter(rows) for role, rows in sources.by_role(source, read).items()}
    splits = tables.open_splits(source, scratch)
    return {
        role: ((f"Row {n} of {source.path}, split {role}", dict(row)) for n, row in enumerate(rows))
        for role, rows in splits.items()
    }


def _json_rows(file: Path, source: sources.Source) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file: one a line, or a list of them."""
    text = tables.read_text(file, source.encoding)

    def read(text: str) -> Any:
        return json.loads(text, object_pairs_hook=lambda pairs: tables.unique_keys(pairs, file))

    rows: list[tuple[str, Any]]
    try:
        whole = read(text)
        listed = whole if isinstance(whole, list) else [whole]
        rows = [(f"Row {number:,} of {file}", row) for number, row in enumerate(listed, start=1)]
    except json.JSONDecodeError:
        rows = [(f"Line {n:,} of {file}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for where, row in rows:
        if isinstance(row, str):
            try:
                row = read(row)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{where} is not JSON: {error.msg}.") from error
        if not isinstance(row, dict):
            raise ConfigError(f'{where} is no object such as {{"messages": [...]}}.')
        yield where, row


def _conversation(row: Mapping[str, Any], where: str) -> Row:
    """A row as a conversation.

    Raises:
        ValueError: If it is in none of the layouts.
    """
    _check_columns(row)
    if column := _first(row, MESSAGES):
        return Row(where, _with_system(row, _messages(row[column], column)))
    prompt, answer = _first(row, PROMPTS), _first(row, ANSWERS)
    if prompt is None:
        raise ValueError(
            f"there is neither a conversation ({', '.join(MESSAGES[:2])}) nor a prompt ({', '.join(PROMPTS)}); the columns "
            f"are {', '.join(map(str, row)) or 'none'}."
        )
    asked = _said(row[prompt], "user", prompt)
    if row.get("input"):  # Alpaca's: what the instruction is about
        asked = (*asked[:-1], {"role": "user", "content": f"{asked[-1]['content']}\n\n{row['input']}"})
    answered = () if answer is None else _said(row[answer], "assistant", answer)
    return Row(where, _with_system(row, (*_history(row), *asked, *answered)))


def _preference(row: Mapping[str, Any], where: str) -> Row:
    """A row as a preference.

    Raises:
        ValueError: If it is in none of the layouts, or the answers are equal.
    """
    _check_columns(row)
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise ValueError(f"there is no {name} answer; a preference has chosen and rejected, and mostly prompt.")
    sides = []
    for name in ("chosen", "rejected"):
        text = row[name]
        sides.append(_turns(text) if isinstance(text, str) and TURN.search(text) else _said(text, "assistant", name))
    given = _first(row, PROMPTS)
    prompt = () if given is None else _said(row[given], "user", given)
    if min(map(len, sides)) > 1:  # whole conversations, which begin alike
        shared = next((n for n, (a, b) in enumerate(zip(*sides)) if a != b), min(map(len, sides)))
        shared = min(shared, *(len(side) - 1 for side in sides))  # else of equal conversations no answer would be left
        prompt, sides = tuple(sides[0][:shared]), [side[shared:] for side in sides]
    for name, side in zip(("chosen", "rejected"), sides):
        if len(side) != 1 or side[0]["role"] != "assistant":
            raise ValueError(
                f"{name} must be one answer of the assistant, after what chosen and rejected have in common."
            )
        if not isinstance(side[0]["content"], str):
            raise ValueError(f"{name} must be a text, not {type(side[0]['content']).__name__}.")
    answers = tuple(side[0]["content"] for side in sides)
    if answers[0].strip() == answers[1].strip():
        raise ValueError("chosen and rejected are equal, so that none can be preferred; leave the row out.")
    return Row(where, _with_system(row, prompt or ({"role": "user", "content": ""},)), answers)


def _check_columns(row: Mapping[str, Any]) -> None:
    """Raises ValueError for columns that change what a row means and cannot be read."""
    if row.get("tools") not in (None, "", "[]", []):
        raise ValueError(
            "the column tools offers functions to call, which no template here can write; leave the row out."
        )
    if row.get("label") is False:
        raise ValueError("label=false marks an answer that is not wanted, and it would be learned; leave the row out.")


def _with_system(row: Mapping[str, Any], messages: Messages) -> Messages:
    """The messages after that of the column `system`, if it has one.

    Raises:
        ValueError: If they have another one themselves.
    """
    if not (system := row.get("system")):
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] != system:
            raise ValueError("the column system and the first message are two system messages; leave one out.")
        return messages
    return ({"role": "system", "content": system}, *messages)


def _history(row: Mapping[str, Any]) -> Messages:
    """What was said before the prompt: pairs of a prompt and its answer."""
    history = row.get("history") or []
    if not isinstance(history, Sequence) or not all(
        isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2 for pair in history
    ):
        raise ValueError("history must be a list of pairs of a prompt and its answer.")
    return tuple({"role": role, "content": text} for pair in history for role, text in zip(("user", "assistant"), pair))


def _check(row: Row, plain: bool) -> None:
    """Raises ValueError unless the messages of a row are a conversation, or of plain texts a prompt and an answer."""
    for name, answer in zip(("chosen", "rejected"), row.answers):
        if not answer.strip():
            raise ValueError(f"the {name} answer is empty.")
    if not plain:
        check(row.messages, generation_prompt=bool(row.answers))
        return
    roles = [message["role"] for message in row.messages]
    if roles not in (["user"], ["user", "assistant"]):
        raise ValueError(
            "template=plain reads one prompt and one answer; conversations of more turns, or with a system's message, need "
            "dataset.template=chat."
        )
    if not all(isinstance(message["content"], str) for message in row.messages):
        raise ValueError("prompt and answer must be texts.")
    if len(roles) == 2 and not row.messages[1]["content"].strip():
        raise ValueError("the answer is empty.")


def _said(value: Any, role: str, column: str) -> Messages:
    """A text as a message of this role; a list of messages as it is."""
    return ({"role": role, "content": value},) if isinstance(value, str) else _messages(value, column)


def _messages(value: Any, column: str) -> Messages:
    """A list of messages with the names of roles, and of keys, that are used here."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(m, Mapping) for m in value):
        raise ValueError(f'{column} must be a text or a list of messages such as {{"role": "user", "content": "..."}}.')
    made = []
    for message in value:
        if "role" not in message and "from" in message:
            message = {"role": message["from"], "content": message.get("value")}
        if message.get("tool_calls") or message.get("function_call"):
            raise ValueError("a message calls a function, which no template here can write; leave the row out.")
        if message.get("weight") not in (None, 1):
            raise ValueError(
                f"a message has weight={message['weight']}, and all answers are learned alike; leave the row out."
            )
        role = message.get("role")
        made.append({"role": ROLES.get(str(role), role), "content": message.get("content")})
    return tuple(made)  # `check` looks at what is in them


def _turns(text: str) -> Messages:
    """The turns of a text with "\n\nHuman:" and "\n\nAssistant:" before them."""
    spoken = [mark[2:-1] for mark in TURN.findall(text)]
    said = TURN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple({"role": roles[who], "content": what.strip()} for who, what in zip(spoken, said))


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first column of these names that has a value."""
    return next((name for name in names if row.get(name) is not None), None)
