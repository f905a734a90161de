"""Conversations as token ids: who speaks is a reserved id, which no text can contain.

    BEGIN  SYSTEM text END  USER text END  ASSISTANT text END  USER text END  ASSISTANT text END

BEGIN and the system's message are there if there are such. The contents are encoded as text, so a message that holds the name
of a special token cannot pretend to be another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epochal.core.errors import did_you_mean
from epochal.core.specs import ReservedIds
from epochal.data.tokenizers import Tokenizer

ROLES = ("system", "user", "assistant")
Message = Mapping[str, str]  # {"role": one of ROLES, "content": text}


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, *, generation_prompt: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (T,), int32, of a conversation, and which of them the assistant writes, bool (T,): its texts and the END of each.

    Args:
        messages: See `check`.
        tokenizer: Its vocabulary must have ids of the roles, and an END.
        generation_prompt: End with the id of the assistant, so that its answer comes next; then the user speaks last.

    Raises:
        ValueError: If the messages are no conversation, see `check`, a text has no token, or the vocabulary lacks a role.
    """
    check(messages, generation_prompt=generation_prompt)
    ids = role_ids(tokenizer)
    parts = [] if tokenizer.ids.begin is None else [np.array([tokenizer.ids.begin])]
    written = [np.zeros(len(part), bool) for part in parts]
    for number, message in enumerate(messages, start=1):
        text = tokenizer.encode(message["content"])
        if not len(text):
            raise ValueError(f"Message {number} holds nothing that the vocabulary has a token for.")
        parts.append(np.concatenate([[ids[message["role"]]], text, [ids["end"]]]))
        written.append(np.full(len(text) + 2, message["role"] == "assistant"))
        written[-1][0] = False  # who speaks is given, not written
    if generation_prompt:
        parts.append(np.array([ids["assistant"]]))
        written.append(np.zeros(1, bool))
    return np.concatenate(parts).astype(np.int32), np.concatenate(written)


def check(messages: Sequence[Message], *, generation_prompt: bool = False) -> None:
    """Checks that messages are a conversation: perhaps one of the system, then user and assistant in turn, the user first.

    Args:
        messages: At least one of them the user's.
        generation_prompt: Whether the assistant is to speak next.

    Raises:
        ValueError: If they are not, in one sentence that names the message, the first being 1.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise ValueError(
            f'A conversation is a list of messages such as {{"role": "user", "content": "..."}}, not {type(messages).__name__}.'
        )
    for number, message in enumerate(messages, start=1):
        _check_message(message, number)
    roles = [message["role"] for message in messages]
    if "user" not in roles:
        raise ValueError("The conversation has no message of the user; it needs one at least.")
    turns = roles[roles[0] == "system" :]
    for number, role in enumerate(turns, start=1 + len(roles) - len(turns)):
        expected = ("user", "assistant")[(number - 1 - len(roles) + len(turns)) % 2]
        if role != expected:
            raise ValueError(
                f"Message {number} is the {role}'s where the {expected}'s belongs: after at most one message of the system, "
                "user and assistant speak in turn, the user first."
            )
    if generation_prompt and roles[-1] != "user":
        raise ValueError("The last message must be the user's: the assistant answers it.")


def role_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of the roles, and "end".

    Raises:
        ValueError: If the vocabulary lacks one.
    """
    ids: ReservedIds = tokenizer.ids
    found = {"system": ids.system, "user": ids.user, "assistant": ids.assistant, "end": ids.end}
    if missing := [name for name, number in found.items() if number is None]:
        raise ValueError(
            f"The vocabulary has no token for {', '.join(missing)}, so it cannot hold a conversation; vocabularies that are "
            "learned here have them."
        )
    return {name: number for name, number in found.items() if number is not None}


def _check_message(message: Any, number: int) -> None:
    """Raises ValueError unless a message has a known role and a text."""
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise ValueError(f'Message {number} must be like {{"role": "user", "content": "..."}}.')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ValueError(
            f"Message {number} has the role {role!r}.{did_you_mean(str(role), ROLES)} There are: {', '.join(ROLES)}."
        )
    if not isinstance(content, str):
        raise ValueError(f"The content of message {number} must be a text, not {type(content).__name__}.")
    if not content.strip():
        raise ValueError(f"Message {number}, of the {role}, is empty.")
