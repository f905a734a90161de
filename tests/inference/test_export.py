"""A run as a folder for other programs: what is in it, what is refused, and that it is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import epochal
from epochal.inference import export as module
from epochal.inference import onnx_graph
from epochal.models.pretrained import huggingface
from epochal.models.pretrained.huggingface_names import CLASSES
from helpers.exports import loaded

TEXTS = ("dataset=sentences", "dataset.path={reviews}", "dataset.batch_size=4", "model.depth=1", "model.embed_dim=16")


@pytest.fixture
def reviews(home: Path) -> Path:
    file = home / "reviews.csv"
    lines = [f"this film {number} is {word},{word}" for number in range(40) for word in ("good", "bad")]
    file.write_text("sentence,label\n" + "\n".join(lines))
    return file


def outputs(run: Any, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return run.model(inputs)


def test_safetensors_are_a_run_that_opens_again(command, copied):
    run = copied("run")
    outcome = command("export", f"run={run}", "to=safetensors")
    assert outcome.status == 0, outcome.error
    folder = run / "export" / "safetensors"
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    assert "README.md, config.json, model.safetensors are in" in outcome.out
    ours, theirs = epochal.load(run), epochal.load(folder)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(outputs(ours, images), outputs(theirs, images))
    pixels = torch.randint(256, (2, 8, 8), dtype=torch.uint8).numpy()
    assert (ours.predict(pixels).probabilities == theirs.predict(pixels).probabilities).all(), "normalised alike"
    described = json.loads((folder / "config.json").read_text())
    assert described["classes"] == list("0123456789")
    assert not {"output_dir", "logger", "callbacks"} & described["config"].keys()
    assert len(described["data"]["mean"]) == 1


def test_the_card_tells_what_it_is_and_how_it_was_made(command, copied, home):
    run = copied("run", "text", status="finished")
    assert command("export", f"run={run}", "to=safetensors", "path=out").status == 0
    text = (home / "out" / "README.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    metric = f"{summary['metrics']['test/perplexity']:.2f}"[:4]
    for words in (
        "# gpt on text",
        "language modeling",
        "test perplexity",
        metric,
        "parameters",
        "tokenizer: character",
    ):
        assert words in text, words
    assert "epochal train model=gpt" in text and "dataset.path=text.txt" in text and "seed=1" in text
    assert (summary["git_commit"] or "").rstrip("+") in text
    assert "torch" in text
    assert str(home.parents[1]) not in text, "no paths of this machine"
    assert str(home.parents[1]) not in (home / "out" / "config.json").read_text()


def test_a_language_model_is_written_as_transformers_has_it(command, copied, home):
    run = copied("run", "text")
    outcome = command("export", f"run={run}", "to=huggingface", "path=gpt")
    assert outcome.status == 0, outcome.error
    config, state = huggingface.load(home / "gpt")
    ours = epochal.load(run)
    theirs = CLASSES[config.pop("name")](**config).eval()
    theirs.load_state_dict(state)
    tokens = torch.randint(8, 20, (2, 6))
    with torch.no_grad():
        assert torch.allclose(theirs(tokens), outputs(ours, tokens), atol=1e-6)
    from epochal.data.tokenizers import HuggingFace

    text = "the lazy dog."
    assert HuggingFace.open(home / "gpt").encode(text).tolist() == ours.tokenizer.encode(text).tolist()
    tokenizer = json.loads((home / "gpt" / "tokenizer_config.json").read_text())
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    assert "GPT2LMHeadModel.from_pretrained" in (home / "gpt" / "README.md").read_text()


def test_bert_reads_which_text_a_token_is_of_and_names_its_classes(reviews: Path, tmp_path: Path):
    run = loaded("model=bert", "model.num_heads=2", *_on(reviews), "dataset.tokenizer=byte")
    assert module.to_transformers(run, tmp_path) == []
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "token_type_ids" in tokenizer["model_input_names"]


def _on(reviews: Path) -> list[str]:
    return [choice.format(reviews=reviews) for choice in TEXTS]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Give one of to=huggingface to=safetensors to=onnx"),
        (("to=onx",), "Did you mean onnx?"),
        (("to=huggingface",), "for model=mlp give to=safetensors or to=onnx"),
        (("to=safetensors", "hub=mine"), "name one as owner/name"),
        (("to=safetensors", "private=false"), "private=false goes with hub="),
        (("to=safetensors", "path=full"), "full is there already, and nothing is overwritten"),
        (("to=safetensors", "path=full/file"), "full/file is there already"),
        (("to=safetensors", "path=full/file/inside"), "cannot be written"),
        (("to=safetensors", "run=nowhere"), "There is no run folder nowhere"),
        (("to=safetensors", "-m"), "looks at one run at a time"),
        (("to=safetensors", "ran=run"), "There is no key ran"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(arguments, says, copied, refuse, home):
    copied("run")
    (home / "full").mkdir()
    (home / "full" / "file").write_text("kept")
    refuse("export", "run=run", *arguments, says=[says])
    assert (home / "full" / "file").read_text() == "kept"


def test_an_error_leaves_no_half_written_folder(command, copied, home, monkeypatch):
    run = copied("run")

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "card", full)
    outcome = command("export", f"run={run}", "to=safetensors", "path=out")
    assert outcome.status == 2 and "out cannot be written (No space left on device)" in outcome.error
    assert not list(home.glob("*out*")) and not list(home.glob(".*out*"))


class Hub:
    """Takes the place of huggingface_hub.HfApi."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.calls = refuses, list[Any]()

    def __call__(self) -> Hub:
        return self

    def create_repo(self, repository: str, **options: Any) -> str:
        if self.refuses:
            raise ValueError(self.refuses)
        self.calls.append((repository, options))
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        self.calls.append((repo_id, sorted(file.name for file in folder_path.iterdir())))
        return SimpleNamespace()


def test_a_folder_is_uploaded_as_a_private_repository(command, copied, monkeypatch):
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", hub)
    monkeypatch.setattr(module, "hub_is_reachable", lambda: True)
    outcome = command("export", f"run={copied('run')}", "to=safetensors", "path=out", "hub=me/digits")
    assert outcome.status == 0, outcome.error
    assert hub.calls[0] == ("me/digits", {"private": True, "exist_ok": True})
    assert hub.calls[1] == ("me/digits", ["README.md", "config.json", "model.safetensors"])
    assert "https://huggingface.co/me/digits" in outcome.out
    assert 'epochal.load("me/digits")' in Path("out/README.md").read_text()


@pytest.mark.parametrize(
    ("reachable", "says"), [(True, "The Hub does not take me/digits: no token"), (False, "cannot be reached")]
)
def test_what_the_hub_does_not_take_stays_here(command, copied, monkeypatch, home, reachable, says):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub(refuses="no token"))
    monkeypatch.setattr(module, "hub_is_reachable", lambda: reachable)
    outcome = command("export", f"run={copied('run')}", "to=safetensors", "path=out", "hub=me/digits")
    assert outcome.status == 2
    assert says in outcome.error and "hf upload me/digits out" in outcome.error
    assert (home / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "choices",
    [
        ("model=vit", "dataset=digits"),
        ("model=transformer_encoder", *TEXTS[:3], "model.pool=last"),
        ("model=gpt", "model.num_heads=2", *TEXTS, "dataset.tokenizer=byte"),
        ("model=bert", "model.num_heads=2", *TEXTS, "dataset.tokenizer=byte"),
    ],
    ids=lambda choices: choices[0],
)
def test_no_forward_fixes_the_number_of_rows_or_steps(choices, reviews: Path):
    run = loaded(*[choice.format(reviews=reviews) for choice in choices])
    graph = onnx_graph.make_graph(run)
    traced = onnx_graph.program(graph).module()
    for given in onnx_graph.others(graph):
        assert torch.allclose(traced(*given.values()), graph.module(*given.values()), atol=1e-6)


def test_onnx_without_its_packages_says_how_to_get_them(copied, refuse, monkeypatch):
    import sys

    copied("run")
    monkeypatch.setitem(sys.modules, "onnx", None)
    refuse("export", "run=run", "to=onnx", says=["pip install 'epochal[onnx]'"])
