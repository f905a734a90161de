"""Language models that write what they are told, for the tests of what is done with text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from epochal.core.specs import END
from epochal.data.tokenizers import Bytes, Tokenizer
from epochal.inference.server import Model, application
from epochal.inference.writing import Writer
from epochal.models.common.sampling import AutoregressiveModel
from helpers.web import served_app


class Scripted(AutoregressiveModel):
    """Writes the ids of a script, the same whatever the prompt and the temperature, and then END for ever.

    Args:
        scripts: Of each row; those beyond them follow the last.
        vocab_size: Size of the vocabulary.
        context_length: As of a language model.
        seconds: That each step takes.
    """

    def __init__(
        self,
        scripts: Sequence[Sequence[int]],
        vocab_size: int,
        context_length: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        super().__init__()
        self.scripts, self.vocab_size, self.context_length, self.seconds = scripts, vocab_size, context_length, seconds
        self.weight = nn.Parameter(torch.zeros(1))
        self.prompts: list[list[int]] = []  # that were read
        self.steps = 0

    def initial_state(self, steps: int) -> Any:
        return 0

    def next_logits(self, text: Tensor, state: Any) -> tuple[Tensor, Any]:
        if state == 0:
            self.prompts.append(text[0].tolist())
        self.steps += 1
        time.sleep(self.seconds)
        logits = torch.zeros(len(text), self.vocab_size)
        for row in range(len(text)):
            script = self.scripts[min(row, len(self.scripts) - 1)]
            logits[row, script[state] if state < len(script) else END] = 1000.0
        return logits, state + 1


def scripted(
    *texts: str | bytes,
    tokenizer: Tokenizer | None = None,
    begins: bool = False,
    converses: bool = True,
    **options: Any,
) -> Writer:
    """A writer that answers with these texts, one for each row.

    Args:
        texts: Bytes are ids of bytes as they stand.
        tokenizer: None: bytes.
        begins, converses: As of `Writer`.
        options: Of `Scripted`.
    """
    known = Bytes() if tokenizer is None else tokenizer
    scripts = [
        [byte + known.reserved for byte in text] if isinstance(text, bytes) else known.encode(text).tolist()
        for text in texts
    ]
    return Writer(Scripted(scripts, len(known), **options).eval(), known, begins=begins, converses=converses)


@contextmanager
def served(writer: Writer, name: str = "tiny") -> Iterator[int]:
    """A server in a thread of this process, with a model made at the second 7; yields its port."""
    with served_app(lambda: application(Model(writer, name, 7))) as port:
        yield port
