"""Tasks of lm-evaluation-harness (EleutherAI) on any of our language models: an adapter, and the results in the run's folder.

Gao et al.: The Language Model Evaluation Harness, 2023 (zenodo 12608602).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from epochal.core.errors import ConfigError
from epochal.core.files import expanded, slug, write_atomically
from epochal.core.specs import PAD
from epochal.inference.few_shot import beginning, shots_of

AT_ONCE = 32  # rows read together
LONGEST = 1024  # tokens that a network without a context length reads at once
WRITTEN = 128  # most tokens that it writes where a task does not say
MISSING = "lm_eval needs a package that is not installed: pip install 'epochal[lm_eval]'"


@dataclass(frozen=True)
class Scorer:
    """What a language model makes of texts.

    Attributes:
        model: On the device, in eval mode.
        tokenizer: Of its data.
        device: Of the model.
        running: Whether its data is running text.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    running: bool = False

    @property
    def length(self) -> int:
        """Most tokens that it reads at once."""
        return self.model.context_length or LONGEST

    @property
    def first(self) -> list[int]:
        """What stands before a text."""
        return beginning(self.tokenizer, running=self.running)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).tolist()

    def pair(self, context: str, answer: str) -> tuple[list[int], list[int]]:
        """The ids of a context, cut on the left so that both fit, and of its answer: encoded apart, so that no token
        reaches across. A space between them belongs to the answer, and is one.

        Raises:
            ConfigError: If the answer alone is longer than the model reads, or has no tokens.
        """
        if (kept := context.rstrip(" ")) != context:
            context, answer = kept, " " + answer.lstrip(" ")
        asked = self.encode(answer)
        if not asked or len(asked) > self.length:
            raise ConfigError(
                f"The answer {answer[:40]!r} is {len(asked):,} tokens, and the model reads 1 to {self.length:,} at once."
            )
        ids = [*self.first, *self.encode(context)]
        return ids[-(self.length + 1 - len(asked)) :], asked

    @torch.no_grad()
    def scores(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Of each pair of ids: the log-probability of the second after the first in nats, and whether it is greedy."""
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]) + len(rows[row][1]))
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            texts = [torch.tensor(rows[row][0] + rows[row][1]) for row in some]
            tokens = pad_sequence(texts, batch_first=True, padding_value=PAD).to(self.device)
            logs = self.model(tokens[:, :-1]).float().log_softmax(-1).cpu()  # no token sees the padding on its right
            for row, text, each in zip(some, texts, logs):
                found[row] = _score(text, each[: len(text) - 1], len(rows[row][1]))
        return [found[row] for row in range(len(rows))]

    def rolling(self, text: str) -> float:
        """The log-probability of a whole text, in windows that together hold each token once as what is predicted."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows = get_rolling_token_windows(self.encode(text), self.first[0], self.length, 1)
        return sum(score for score, _ in self.scores([make_disjoint_window(window) for window in windows]))

    @torch.no_grad()
    def write(self, context: str, options: Mapping[str, Any]) -> str:
        """How a text goes on, up to the first of the options' `until`."""
        until, ids = options.get("until") or [], self.tokenizer.ids
        given = [*self.first, *self.encode(context)][-self.length :]
        temperature = float(options.get("temperature") or 0) if options.get("do_sample") else 0.0
        tokens = self.model.generate(
            torch.tensor([given], device=self.device),
            length=int(options.get("max_gen_toks", WRITTEN)),
            temperature=temperature,
            stop=ids.end,
            forbidden=[token for token in ids.known() if token != ids.end],
            pad=ids.filler,
            generator=torch.Generator(self.device).manual_seed(0),
        )
        text = self.tokenizer.decode(tokens[0, len(given) :].tolist())
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text


def _score(text: Tensor, logs: Tensor, count: int) -> tuple[float, bool]:
    """Of the last `count` ids of a text (T,), by the log-probabilities (T - 1, V) of its ids after the first."""
    asked, given = text[-count:], logs[-count:]
    return given.gather(1, asked[:, None]).sum().item(), bool((given.argmax(1) == asked).all())


def adapter(scorer: Scorer) -> Any:
    """The model as the harness wants it."""
    from lm_eval.api.model import LM

    class Ours(LM):
        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return scorer.scores([scorer.pair(*request.args) for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            return [scorer.rolling(request.args[0]) for request in requests]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return [scorer.write(*request.args) for request in requests]

    return Ours()


def run_tasks(config: DictConfig, model: nn.Module, data: Any, device: torch.device, folder: Path) -> dict[str, float]:
    """Runs the tasks that `lm_eval` names, each with the numbers of examples that `shots` names or the task's own.

    Writes `<folder>/<task>_<n>shot.json` for each, with its metrics, the number of its questions and the harness's version.

    Args:
        config: As composed from `conf/evaluate.yaml`.
        model: A language model, on the device.
        data: Of the run, restored.
        device: Of the model.
        folder: `<run>/evaluation/lm_eval`.

    Returns:
        The metrics, `<task>/shots_<n>/<metric>`.

    Raises:
        ConfigError: If the harness is not installed, there is no such task, its few-shot examples are among its questions,
            or the folder cannot be written.
    """
    given = list(config.lm_eval) if isinstance(config.lm_eval, ListConfig | list) else [config.lm_eval]
    shots = [None] if config.shots is None else shots_of(config)
    harness, version = _harness()
    scorer = Scorer(model.eval(), data.tokenizer, device, data.prompt is not None)
    if not scorer.first:
        raise ConfigError(
            "lm_eval asks for the probability of whole texts, and this vocabulary has neither a token for the beginning of a "
            "text nor a newline to predict the first one from."
        )
    found: dict[str, float] = {}
    with quiet():
        tasks = [task for name in given for task in load_task(str(name))]
        for count in shots:
            for task in tasks:
                number = task.config.num_fewshot or 0 if count is None else count
                check_disjoint(task, number)
                results = harness.simple_evaluate(
                    adapter(scorer), tasks=[task], num_fewshot=number, bootstrap_iters=1000, log_samples=False
                )
                name = task.config.task
                metrics = plain_metrics(results["results"][name])
                questions = results.get("n-samples", {}).get(name, {}).get("effective")
                found |= {f"{name}/shots_{number}/{metric}": value for metric, value in metrics.items()}
                written = {
                    "task": name,
                    "shots": number,
                    "metrics": metrics,
                    "questions": questions,
                    "lm_eval": version,
                }
                _write(folder / f"{slug(name)}_{number}shot.json", written)
    return found


def _harness() -> tuple[Any, str]:
    """The package and its version.

    Raises:
        ConfigError: If it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        import importlib.metadata

        import lm_eval
        import lm_eval.tasks
        from lm_eval import evaluator  # noqa: F401
    except ImportError as error:
        raise ConfigError(MISSING) from error
    return lm_eval, importlib.metadata.version("lm_eval")


def load_task(name: str) -> Iterator[Any]:
    """The tasks of a name of the harness, or of a YAML file, in whose folder its relative `data_files` are.

    Raises:
        ConfigError: If there is none, or its data cannot be had.
    """
    from lm_eval.tasks import TaskManager, get_task_dict

    path = expanded(name).absolute()
    local = name.endswith((".yaml", ".yml"))
    if local and not path.is_file():
        raise ConfigError(f"There is no file {name} with a task.")
    try:
        with folder_of(path) if local else contextlib.nullcontext():
            # only a name needs the index of the harness's own thousands of tasks, which takes seconds
            loaded = get_task_dict([str(path) if local else name], TaskManager(include_defaults=not local))
    except Exception as error:  # of many classes: unknown names, data that is not there, a broken YAML
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
        raise ConfigError(f"lm_eval={name} cannot be loaded: {reason}") from error
    yield from _leaves(loaded)


def _leaves(loaded: Any) -> Iterator[Any]:
    for each in loaded.values():
        if isinstance(each, Mapping):
            yield from _leaves(each)
        else:
            yield each


@contextlib.contextmanager
def folder_of(file: Path) -> Iterator[None]:
    """Makes the folder of a file the current one, from which the harness reads relative paths."""
    before = os.getcwd()
    os.chdir(file.parent)
    try:
        yield
    finally:
        os.chdir(before)


def check_disjoint(task: Any, count: int) -> None:
    """Raises ConfigError if the examples in the prompt of a task can be its questions: the answer would stand in it."""
    if not count:
        return

    def written(docs: Any) -> set[str]:
        return {json.dumps(doc, sort_keys=True, default=str) for doc in docs}

    questions = written(task.test_docs() if task.has_test_docs() else task.validation_docs())
    if shared := questions & written(task.fewshot_docs()):
        raise ConfigError(
            f"{len(shared):,} of the {len(questions):,} questions of the task {task.config.task} are also its few-shot "
            "examples: give it a fewshot_split or training_split without them, or shots=0."
        )


def plain_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among a task's results: `acc` for "acc,none", `exact_match (strict-match)` for another filter."""
    found = {}
    for key, value in results.items():
        metric, comma, kind = key.partition(",")
        if comma and isinstance(value, int | float) and not isinstance(value, bool):
            found[metric if kind == "none" else f"{metric} ({kind})"] = float(value)
    return found


def _write(file: Path, content: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}).") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the harness and the libraries below it from printing warnings and bars."""
    from datasets.utils.logging import disable_progress_bar

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    disable_progress_bar()
    shown, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # also of git, which it asks for its commit
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # bars of tqdm
            yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nothing)
        logging.disable(level)
