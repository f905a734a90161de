"""The leaderboard of language models: which runs are in it, what it finds in their folders, and its order."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from epochal.compare import leaderboard
from helpers.run_folders import run_folder

CONFIG = {"task.name": "language_modeling", "dataset.name": "text", "dataset.tokenizer": "byte"}


def language_model(parent: Path, name: str, bits: float | None, **choices: Any) -> Path:
    metrics = {"val/loss": 1.0, **({"test/bits_per_byte": bits, "test/perplexity": 2**bits} if bits else {})}
    return run_folder(parent, name, model="gpt", metrics=metrics, config=CONFIG, **choices)


@pytest.fixture
def runs(home: Path) -> Path:
    parent = home / "outputs" / "runs"
    worse = language_model(parent, "worse", 2.5, parameters=10)
    language_model(parent, "better", 1.5, parameters=2000)
    language_model(parent, "untested", None)
    language_model(parent, "broken", 1.0, status="failed")
    run_folder(parent, "classifier", config={"task.name": "classification"})
    _write(worse / "evaluation" / "sst2_few_shot" / "metrics.json", {"test/shots_4/accuracy": 0.75,
           "test/shots_16/accuracy": 0.8, "test/shots_4_permuted/accuracy": 0.5})  # fmt: skip
    found = {"task": "brackets", "shots": 2, "metrics": {"acc": 0.3, "acc_norm": 0.4, "acc_stderr": "N/A"}}
    _write(worse / "evaluation" / "lm_eval" / "brackets_2shot.json", found)
    return parent


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def rows(file: str = "outputs/leaderboard.csv") -> list[dict[str, str]]:
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def test_language_models_stand_in_order_of_their_bits_per_byte(runs, command):
    outcome = command("leaderboard")
    assert outcome.status == 0, outcome.error
    assert "3 language models" in outcome.out and "broken" not in outcome.out
    assert [row["run"] for row in rows()] == ["better", "worse", "untested"]
    assert outcome.out.index("better") < outcome.out.index("worse")


def test_the_tokenizer_is_the_one_that_texts_were_read_with(home, command):
    parent = home / "outputs" / "runs"
    for name, kind, further in (
        ("taken over", "bpe", {}),
        ("own file", "huggingface", {"dataset.tokenizer": "/a/wiki.json"}),
        ("published", "huggingface", {"model.pretrained": "openai-community/gpt2"}),
    ):
        folder = run_folder(
            parent, name, model="gpt", metrics={"test/bits_per_byte": 1.0}, config={**CONFIG, **further}
        )
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "tokenizer": kind}))
    assert command("leaderboard").status == 0
    assert {row["run"]: row["tokenizer"] for row in rows()} == {
        "taken over": "bpe",
        "own file": "wiki.json",
        "published": "openai-community/gpt2",
    }


def test_what_was_measured_later_has_columns(runs, command):
    assert command("leaderboard", str(runs), "to=board.csv").status == 0
    worse = rows("board.csv")[1]
    assert (worse["sst2 4-shot"], worse["brackets 2-shot acc_norm"]) == ("0.75", "0.4")
    assert (worse["sst2 4-shot, permuted labels"], worse["brackets 2-shot acc"]) == ("0.5", "0.3")
    assert worse["parameters"] == "10" and worse["tokenizer"] == "byte"
    names = list(worse)
    assert names.index("sst2 4-shot") < names.index("sst2 16-shot"), "by number, not by letters"
    assert rows("board.csv")[0]["sst2 4-shot"] == ""


def test_a_model_that_answers_is_in_it_once_it_was_measured(runs, command):
    for name in ("chat", "unmeasured"):
        run_folder(runs, name, model="gpt", metrics={"val/loss": 1.0}, config={**CONFIG, "task.name": "rlhf"})
    _write(runs / "chat" / "evaluation" / "sst2_few_shot" / "metrics.json", {"test/shots_4/accuracy": 0.9})
    assert command("leaderboard", "sort=sst2 4-shot").status == 0
    assert [row["run"] for row in rows()][:2] == ["chat", "worse"]
    assert {row["run"] for row in rows()} == {"chat", "worse", "better", "untested"}


@pytest.mark.parametrize(
    ("by", "first"), [("parameters", "worse"), ("perplexity", "better"), ("sst2 4-shot", "worse"), ("run", "better")]
)
def test_another_column_sorts(runs, command, by, first):
    assert command("leaderboard", f"sort={by}").status == 0
    assert rows()[0]["run"] == first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sort=bits per bite",), "Did you mean bits per byte?"),
        (("sorted=run",), "There is no option sorted. Did you mean sort?"),
        (("to=",), "to= has no value"),
        (("to=board.png",), "to=board.png must be the name of a .csv file"),
        (("--live",), "--live is no option"),
        (("nowhere",), "There is nothing at nowhere"),
        (("outputs/runs/classifier",), "no run of a language model in outputs/runs/classifier"),
        (("to=outputs/runs/worse/config.yaml/board.csv",), "cannot be written"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(runs, command, arguments, says):
    outcome = command("leaderboard", *arguments)
    assert outcome.status == 2
    assert says in outcome.error
    assert not Path("outputs/leaderboard.csv").exists()


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"task": 3}', '{"metrics": {"acc": NaN}, "task": "a", "shots": 1}'])
def test_broken_results_are_left_out(runs, command, content):
    _write(runs / "better" / "evaluation" / "lm_eval" / "a.json", content)
    assert command("leaderboard").status == 0
    assert not [name for name in rows()[0] if name.startswith("a ")]


def test_results_of_another_program_are_left_out(runs, command):
    _write(runs / "better" / "evaluation" / "x_few_shot" / "metrics.json", {"test/shots_4_permuted/loss": 1.0})
    assert command("leaderboard").status == 0
    assert not [name for name in rows()[0] if name.startswith("x ")]


def test_a_link_to_a_file_elsewhere_is_not_read(runs, home):
    _write(home / "secret" / "secret.json", {"task": "secret", "shots": 0, "metrics": {"acc": 1.0}})
    folder = runs / "better" / "evaluation" / "lm_eval"
    folder.mkdir(parents=True)
    (folder / "secret.json").symlink_to(home / "secret" / "secret.json")
    assert "secret 0-shot acc" not in leaderboard.columns(leaderboard.entries([str(runs)]))
