"""lm-evaluation-harness: how texts are encoded and scored, tasks of one's own, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError
from epochal.core.specs import BEGIN
from epochal.data.tokenizers import Bytes, Characters, HuggingFace
from epochal.inference.harness import Scorer, check_disjoint, load_task, plain_metrics, run_tasks
from epochal.models.common.sampling import AutoregressiveModel
from epochal.tasks import LanguageModeling

CPU = torch.device("cpu")
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {train}, test: {test}}}}}
{output}
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "{{{{q}}}}"
target_delimiter: " "
"""
CHOICE = """\
output_type: multiple_choice
doc_to_choice: ["yes", "no"]
doc_to_target: a
metric_list: [{metric: acc}, {metric: acc_norm}]"""
WRITES = """\
output_type: generate_until
doc_to_target: "{{a}}"
generation_kwargs: {until: ["."], max_gen_toks: 5}
metric_list: [{metric: exact_match}]"""
ROLLS = """\
output_type: loglikelihood_rolling
doc_to_target: "{{q}}"
metric_list: [{metric: bits_per_byte}]"""


class Next(nn.Module):
    """The id after each id is one more, most probably."""

    def __init__(self, vocab_size: int = 264, context_length: int | None = 16) -> None:
        super().__init__()
        self.vocab_size, self.context_length = vocab_size, context_length

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        assert self.context_length is None or tokens.shape[1] <= self.context_length
        return 3.0 * nn.functional.one_hot((tokens + 1) % self.vocab_size, self.vocab_size).float()

    def generate(self, prompt: Tensor, *, length: int, **_: Any) -> Tensor:
        more = prompt[:, -1:] + 1 + torch.arange(length)
        return torch.cat((prompt, more), dim=1)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(Next(), Bytes(), CPU)


@pytest.mark.parametrize(
    ("context", "answer", "joined"),
    [
        ("Q: a\nA:", " yes", "Q: a\nA: yes"),
        ("A: ", "yes", "A: yes"),
        ("A: ", " yes", "A: yes"),
        ("A:\n", "yes", "A:\nyes"),
    ],
)
def test_context_and_answer_are_encoded_apart_with_one_space(scorer, context, answer, joined):
    first, second = scorer.pair(context, answer)
    assert first[0] == BEGIN
    assert scorer.tokenizer.decode(first + second) == joined
    assert scorer.tokenizer.decode(second).startswith(" ") == (" yes" in joined)


def test_a_long_context_is_cut_on_the_left_and_a_long_answer_refused(scorer):
    first, second = scorer.pair("0123456789" * 9, "abc")
    assert len(first) + len(second) == 17, "the model reads all but the last"
    assert scorer.tokenizer.decode(first) == ("0123456789" * 9)[-14:]
    with pytest.raises(ConfigError, match="is 17 tokens, and the model reads 1 to 16"):
        scorer.pair("", "a" * 17)
    with pytest.raises(ConfigError, match="is 0 tokens"):
        scorer.pair("a", "")


def test_scores_are_those_of_each_row_alone_and_tell_the_greedy(scorer):
    rows = [scorer.pair("a", answer) for answer in ("bcd", "bce", "x")]
    (next_one, greedy), (other, not_greedy), _ = scorer.scores(rows)
    assert greedy and not not_greedy
    logs = torch.tensor([3.0, *[0.0] * 263]).log_softmax(0)
    assert next_one == pytest.approx(3 * logs[0].item(), abs=1e-5)
    assert other == pytest.approx((2 * logs[0] + logs[1]).item(), abs=1e-5)
    alone = [scorer.scores([row])[0] for row in rows]
    assert [score for score, _ in alone] == pytest.approx([score for score, _ in scorer.scores(rows)], abs=1e-5)


def test_a_vocabulary_without_reserved_ids_begins_with_a_new_line():
    older = Characters("\nabc", reserved=0)
    assert Scorer(Next(4), older, CPU).first == [0]


def test_it_writes_up_to_where_the_task_ends(scorer):
    assert scorer.write("a", {"max_gen_toks": 3}) == "bcd"
    assert scorer.write("a", {"until": ["d"], "max_gen_toks": 9}) == "bc"


class Ends(AutoregressiveModel):
    """Writes an "a" after the prompt, then the id that ends a text."""

    context_length = 16

    def __init__(self, vocab_size: int, ids: list[int]) -> None:
        super().__init__()
        self.vocab_size, self.ids = vocab_size, ids

    def initial_state(self, steps: int) -> int:
        return 0

    def next_logits(self, text: Tensor, state: int) -> tuple[Tensor, int]:
        token = torch.tensor([self.ids[min(state, 1)]] * len(text))
        return 99.0 * nn.functional.one_hot(token, self.vocab_size), state + 1


def test_what_stands_behind_the_end_of_a_text_is_no_text():
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer(library.models.BPE())  # as GPT-2's: no padding, and id 0 is "!"
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = library.decoders.ByteLevel()
    alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    trainer = library.trainers.BpeTrainer(vocab_size=256, initial_alphabet=alphabet)
    engine.train_from_iterator([], trainer)
    engine.add_special_tokens(["<|endoftext|>"])
    tokenizer = HuggingFace(engine.to_str())
    assert tokenizer.ids.pad is None and tokenizer.ids.end == 256 and tokenizer.decode([0]) == "!"
    model = Ends(len(tokenizer), [int(tokenizer.encode("a")[0]), 256])
    assert Scorer(model, tokenizer, CPU).write("b", {"max_gen_toks": 9}) == "a"
    writer = LanguageModeling(model=model, optimizer=None, scheduler=None, total_steps=1, sample_length=9)
    data = SimpleNamespace(tokenizer=tokenizer, prompt=None, seed=1)
    writer._trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    assert writer.respond("b") == ["ba", "ba"]


def test_a_vocabulary_that_a_text_cannot_begin_in(tmp_path, monkeypatch):
    monkeypatch.setattr("epochal.inference.harness._harness", lambda: (None, ""))
    with pytest.raises(ConfigError, match="neither a token for the beginning of a text nor a newline"):
        run_tasks(
            SimpleNamespace(lm_eval="x", shots=None),
            Next(3),
            SimpleNamespace(tokenizer=Characters("abc", reserved=0), prompt="a"),
            CPU,
            tmp_path,
        )


def test_examples_that_are_questions_are_refused():
    docs = [{"q": f"{n}", "a": 0} for n in range(4)]

    def task(examples: Any) -> Any:
        return SimpleNamespace(
            config=SimpleNamespace(task="mine"),
            has_test_docs=lambda: True,
            test_docs=lambda: docs[:2],
            fewshot_docs=lambda: examples,
        )

    check_disjoint(task(docs[2:]), 4)
    check_disjoint(task(docs), 0)
    with pytest.raises(ConfigError, match="2 of the 2 questions of the task mine are also its few-shot examples"):
        check_disjoint(task(docs), 1)


def test_metrics_have_the_name_of_another_filter():
    results = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": "N/A", "exact_match,strict": 1, "sample_len": 3}
    assert plain_metrics(results) == {"acc": 0.5, "exact_match (strict)": 1.0}


def test_without_the_harness_the_extra_is_named(copied, refuse, monkeypatch):
    copied("run", "text")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    refuse("evaluate", "run=run", "lm_eval=[any]", says=["pip install 'epochal[lm_eval]'"])


@pytest.mark.parametrize(
    ("kind", "further", "says"),
    [
        ("images", (), "goes with a language model; this run learned classification"),
        ("text", ("dataset=sst2",), "lm_eval brings its own data"),
        ("text", ("shots=-1",), "must be whole numbers of zero or more"),
    ],
)
def test_what_does_not_fit_is_refused(copied, refuse, kind, further, says):
    copied("run", kind)
    refuse("evaluate", "run=run", "lm_eval=[any]", *further, says=[says])


@pytest.fixture
def tasks(home: Path) -> Path:
    """A folder with tasks of each kind, and their data."""
    pytest.importorskip("lm_eval")
    folder = home / "tasks"
    folder.mkdir()
    for split, start in (("train", 0), ("test", 10)):
        rows = [{"q": f"{n} fox", "a": n % 2} for n in range(start, start + 6)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    for name, output in (("choice", CHOICE), ("writes", WRITES), ("rolls", ROLLS)):
        (folder / f"{name}.yaml").write_text(TASK.format(name=f"my_{name}", output=output, **files))
    same = TASK.format(name="my_same", output=CHOICE, train="test.jsonl", test="test.jsonl")
    (folder / "same.yaml").write_text(same)
    return folder


def test_tasks_of_ones_own_go_into_the_run_and_the_leaderboard(tasks, copied, command, home):
    run = copied("outputs/runs/run", "text", status="finished")
    names = ",".join(f"tasks/{name}.yaml" for name in ("choice", "writes", "rolls"))
    outcome = command("evaluate", f"run={run}", f"lm_eval=[{names}]", "shots=0")
    assert outcome.status == 0, outcome.error
    folder = run / "evaluation" / "lm_eval"
    assert {file.name for file in folder.iterdir()} == {f"my_{n}_0shot.json" for n in ("choice", "writes", "rolls")}
    choice = json.loads((folder / "my_choice_0shot.json").read_text())
    assert choice["questions"] == 6 and 0 <= choice["metrics"]["acc"] <= 1
    assert json.loads((folder / "my_rolls_0shot.json").read_text())["metrics"]["bits_per_byte"] > 1
    assert "my_choice/shots_0/acc" in outcome.out
    assert command("leaderboard").status == 0
    assert "my_choice 0-shot acc_norm" in Path("outputs/leaderboard.csv").read_text()


def test_few_shot_examples_come_before_the_question_and_must_be_others(tasks, copied, command, home):
    run = copied("run", "text")
    outcome = command("evaluate", f"run={run}", "lm_eval=[tasks/choice.yaml]", "shots=[0,1]")
    assert outcome.status == 0, outcome.error
    assert (run / "evaluation" / "lm_eval" / "my_choice_1shot.json").exists()
    outcome = command("evaluate", f"run={run}", "lm_eval=[tasks/same.yaml]", "shots=1")
    assert outcome.status == 2
    assert "6 of the 6 questions of the task my_same are also its few-shot examples" in outcome.error
    assert command("evaluate", f"run={run}", "lm_eval=[tasks/same.yaml]", "shots=0").status == 0


def test_a_task_that_is_not_there_is_named(tasks):
    with pytest.raises(ConfigError, match="There is no file tasks/none.yaml"):
        list(load_task("tasks/none.yaml"))
    (tasks / "train.jsonl").unlink()
    with pytest.raises(ConfigError, match="lm_eval=tasks/choice.yaml cannot be loaded"):
        list(load_task("tasks/choice.yaml"))
