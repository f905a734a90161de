"""Few-shot classification: a language model tells classes apart by examples in its prompt, without any training.

Brown et al.: Language Models are Few-Shot Learners, 2020 (arXiv 2005.14165). With the labels of the examples permuted,
accuracy shows what the model takes from them (Min et al. 2022, arXiv 2202.12837).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from epochal.core.errors import ConfigError
from epochal.core.seeds import mix
from epochal.core.specs import PAD
from epochal.data.tokenizers import HuggingFace
from epochal.inference.load import SavedRun
from epochal.tasks.artifacts import Artifacts, Profile
from epochal.training.factories import new_data

QUESTIONS = 500  # test texts, at most
AT_ONCE = 64  # prompts read together
TRIES = 100  # draws of an example before it may be one that is taken


@dataclass(frozen=True)
class Prompts:
    """How examples and questions are written: `text`, a new line, `answer`, and an empty line, each encoded for itself,
    so that no token reaches across.

    Attributes:
        begin: Ids before everything.
        answers: Ids of each class's answer.
        line, blank: Ids of a new line and of the empty line behind an answer.
    """

    tokenizer: Any
    begin: list[int]
    answers: list[list[int]]
    line: list[int]
    blank: list[int]

    @classmethod
    def of(cls, tokenizer: Any, words: Sequence[str], begin: Sequence[int] = ()) -> Prompts:
        """Raises ConfigError if the vocabulary lacks an answer, or reads two of them alike."""
        if missing := tokenizer.missing("".join(words)):
            raise ConfigError(
                f"The vocabulary lacks these characters of the classes: {' '.join(map(repr, missing))}. Name the classes in "
                "words that it has: label_words=<word>,<word>"
            )
        line, blank, *answers = (tokenizer.encode(text).tolist() for text in ("\n", "\n\n", *words))
        if empty := [word for word, ids in zip(words, answers) if not ids]:
            raise ConfigError(
                f"The class {empty[0]} has no tokens in the vocabulary; choose others: label_words=<word>,<word>"
            )
        advice = "choose others: label_words=<word>,<word>"
        if unknown := [word for word, ids in zip(words, answers) if tokenizer.ids.unknown in ids]:
            raise ConfigError(f"The vocabulary does not know {unknown[0]}, which stands for a class; {advice}")
        if twice := [word for word, ids in zip(words, answers) if answers.count(ids) > 1]:
            raise ConfigError(f"{' and '.join(twice)} are the same tokens in the vocabulary; {advice}")
        return cls(tokenizer, list(begin), answers, line, blank)

    def written(self, examples: Sequence[tuple[str, int]], question: str) -> list[int]:
        """The ids of a prompt, up to the answer to its question."""
        ids = list(self.begin)
        for text, label in examples:
            ids += [*self.tokenizer.encode(text).tolist(), *self.line, *self.answers[label], *self.blank]
        return [*ids, *self.tokenizer.encode(question).tolist(), *self.line]


def beginning(tokenizer: Any, *, running: bool) -> list[int]:
    """What stands before a text: BEGIN, but a new line for a network that read windows of running text, which have no BEGIN.

    Args:
        tokenizer: One with ids of its own comes with published weights, which know its BEGIN.
        running: Whether the run's data is running text.
    """
    begin, line = tokenizer.ids.begin, [] if tokenizer.missing("\n") else tokenizer.encode("\n")[:1].tolist()
    if begin is None or (running and line and tokenizer.kind != HuggingFace.kind):
        return line
    return [begin]


def shots_of(config: DictConfig) -> list[int]:
    """The numbers of examples that `shots` names, one or several.

    Raises:
        ConfigError: If one is no whole number of zero or more.
    """
    given = list(config.shots) if isinstance(config.shots, ListConfig | list | tuple) else [config.shots]
    given = [int(part) if isinstance(part, str) and part.strip().isdigit() else part for part in given]
    if not given or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in given):
        raise ConfigError(f"shots={config.shots} must be whole numbers of zero or more, e.g. shots=0,1,4,16.")
    return sorted(set(given))


def labelled_data(saved: SavedRun) -> Any:
    """The data of a run's config, prepared to tell its classes, with the run's tokenizer.

    Raises:
        ConfigError: If it has no texts with classes.
    """
    data: Any = new_data(saved.config, saved.data)
    if "classes" not in data.targets or not hasattr(type(data), "text"):
        raise ConfigError(
            f"shots needs texts with classes, and dataset={data.name} has none; choose some, e.g. dataset=sst2."
        )
    data.learns = "classes"
    data.prepare()
    return data


@torch.no_grad()
def few_shot(
    model: nn.Module,
    data: Any,
    shots: Sequence[int],
    words: Sequence[str] | None,
    device: torch.device,
    *,
    running: bool = False,
) -> tuple[dict[str, float], Artifacts]:
    """The accuracy by number of examples, with their own labels and with permuted ones.

    Of each test text the class is chosen whose answer is the most probable as a whole. Examples are drawn from the
    training texts anew for each question, of all classes alike and never the question itself; they depend on the number
    of the question and of examples alone.

    Args:
        model: A language model, on the device and in eval mode.
        data: Of `labelled_data`.
        shots: Numbers of examples.
        words: What stands for each class; None: its name.
        running: Whether the model learned from running text, see `beginning`.

    Raises:
        ConfigError: If the words are not as many as the classes or one stands for two, or the prompts are longer than the
            model reads.
    """
    names = data.classes.names
    if words is not None and len(words) != len(names):
        raise ConfigError(f"label_words has {len(words)} words for the {len(names)} classes {', '.join(names)}.")
    if twice := next((word for word in words or () if list(words or ()).count(word) > 1), None):
        raise ConfigError(f"label_words has {twice} for two classes; each needs a word of its own.")
    prompts = Prompts.of(data.tokenizer, words or names, beginning(data.tokenizer, running=running))
    labels = data.rows("test")[0].labels[:QUESTIONS].tolist()
    metrics: dict[str, float] = {}
    table: list[tuple[str, ...]] = [("examples", "accuracy", "with permuted labels", "questions")]
    longest: Any = model.context_length
    written: dict[tuple[int, bool], list[list[int]]] = {}
    most = len(data.rows("train")[0].labels)
    if shots[-1] > most:
        raise ConfigError(
            f"shots={shots[-1]} are more examples than the {most:,} training texts of dataset={data.name}."
        )
    for count in shots:  # of the first question, as to write all takes a while
        first = prompts.written(_examples(data, 0, count, False), data.text("test", 0))
        _check_length([first], prompts, count, longest, shots)
    for count in shots:
        for permuted in (False, True)[: 1 if count < 2 else 2]:  # one label has no other order
            questions = ((_examples(data, row, count, permuted), data.text("test", row)) for row in range(len(labels)))
            written[count, permuted] = [prompts.written(examples, question) for examples, question in questions]
        _check_length(written[count, False], prompts, count, longest, shots)
    for count in shots:
        asked = [ids for (number, _), ids in written.items() if number == count]
        right = [accuracy(model, ids, prompts.answers, labels, device) for ids in asked]
        metrics[f"test/shots_{count}/accuracy"] = right[0]
        if count > 1:
            metrics[f"test/shots_{count}_permuted/accuracy"] = right[1]
        table.append((str(count), *(f"{value:.2%}" for value in right), *[""] * (2 - len(right)), str(len(labels))))
    own = [metrics[f"test/shots_{count}/accuracy"] for count in shots]
    profile = Profile("examples in the prompt", "test accuracy", own, [float(count) for count in shots])
    return metrics, Artifacts(table=table, profiles={"few_shot": profile})


def accuracy(
    model: nn.Module, prompts: Sequence[list[int]], answers: Sequence[list[int]], labels: Sequence[int], device: Any
) -> float:
    """The fraction of prompts whose own answer is more probable than the others."""
    scores = torch.empty(len(prompts), len(answers))
    for label, answer in enumerate(answers):
        for start in range(0, len(prompts), AT_ONCE):
            rows = [torch.tensor([*prompt, *answer]) for prompt in prompts[start : start + AT_ONCE]]
            scores[start : start + AT_ONCE, label] = _log_probabilities(model, rows, len(answer), device)
    return (scores.argmax(1) == torch.tensor(labels)).float().mean().item()


def _log_probabilities(model: nn.Module, rows: list[Tensor], count: int, device: torch.device) -> Tensor:
    """The log-probability of the last `count` tokens of each row, in nats (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    tokens = pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)
    logs = model(tokens[:, :-1]).float().log_softmax(-1).cpu()  # padding is on the right, which no token before it sees
    places = lengths[:, None] - 1 + torch.arange(-count, 0)  # (B, count), of the tokens before those asked for
    asked = tokens.cpu().gather(1, places + 1)
    return logs[torch.arange(len(rows))[:, None], places, asked].sum(1)


def _examples(data: Any, row: int, count: int, permuted: bool) -> list[tuple[str, int]]:
    """Training texts and their labels for the question of a test row."""
    labels = data.rows("train")[0].labels
    generator = torch.Generator().manual_seed(mix(row, count))
    question, classes = data.text("test", row), torch.randperm(len(data.classes.names), generator=generator)
    found: list[tuple[str, int]] = []
    taken = set[int]()
    for number in range(count):
        label = int(classes[number % len(classes)])
        rows = torch.nonzero(labels == label).flatten()
        for attempt in range(TRIES):
            chosen = int(rows[torch.randint(len(rows), (), generator=generator)])
            text = data.text("train", chosen)
            if text != question and (chosen not in taken or attempt > TRIES // 2):  # twice only where there are too few
                break
        else:
            raise ConfigError(
                f"dataset={data.name} has no training text of the class {data.classes.names[label]} but the question itself."
            )
        taken.add(chosen)
        found.append((text, label))
    order = torch.randperm(count, generator=generator).tolist()
    given = [found[place] for place in order]
    if not permuted:
        return given
    shuffled = torch.randperm(count, generator=generator).tolist()
    return [(text, given[other][1]) for (text, _), other in zip(given, shuffled, strict=True)]


def _check_length(
    written: Sequence[list[int]], prompts: Prompts, count: int, longest: int | None, shots: Sequence[int]
) -> None:
    """Raises ConfigError if a prompt with its answer is longer than the model reads."""
    needed = max(map(len, written)) + max(map(len, prompts.answers))
    if longest is None or needed <= longest:
        return
    smaller = [number for number in shots if number < count]
    advice = (
        f"shots={','.join(map(str, smaller))} would fit"
        if smaller
        else "only a model with a longer context can read them"
    )
    raise ConfigError(
        f"shots={count} makes a prompt of {needed:,} tokens, and the model reads {longest:,} at once; {advice}."
    )
