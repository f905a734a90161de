"""Published weights of language models to begin with: their sizes and tokenizer are the run's, and what does not fit is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from epochal.data.tokenizers import BytePairs, HuggingFace, to_huggingface
from epochal.models import BERT, GPT
from epochal.models.pretrained.huggingface_save import save
from epochal.training.run_folder import comparable
from helpers.training import composed, train

TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on\n" * 90
LM = ("model=gpt", "dataset=text", "dataset.context_length=8", "dataset.batch_size=4", "logger=none", "duration=2steps")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 and a BERT in the Hub's layout, and a text."""
    folder, tokenizer = tmp_path_factory.mktemp("hub"), BytePairs.learn([TEXT], vocab_size=280)
    sizes = {"vocab_size": len(tokenizer), "context_length": 16, "depth": 1, "num_heads": 2, "embed_dim": 8}
    torch.manual_seed(0)
    save(GPT(variant="gpt2", **sizes), folder / "gpt", ids=tokenizer.ids)
    save(BERT(**sizes, next_sentence=True), folder / "bert", ids=tokenizer.ids)
    for name in ("gpt", "bert"):
        (folder / name / "tokenizer.json").write_text(to_huggingface(tokenizer, special_tokens=name == "bert"))
    for name, rows in (("padded", 304), ("small", 200)):  # rows of the embedding that are not those of the tokenizer
        save(GPT(variant="gpt2", **sizes | {"vocab_size": rows}), folder / name, ids=tokenizer.ids)
        (folder / name / "tokenizer.json").write_text(to_huggingface(tokenizer))
    (folder / "text.txt").write_text(TEXT)
    lines = [f"{'fox' if n % 2 else 'dog'} number {n},{'a' if n % 2 else 'b'}" for n in range(80)]
    (folder / "sentences.csv").write_text("sentence,label\n" + "\n".join(lines))
    return folder


def test_a_run_has_the_sizes_the_tokenizer_and_the_weights(folders: Path, home: Path) -> None:
    given = (*LM, f"dataset.path={folders / 'text.txt'}", f"model.pretrained={folders / 'gpt'}", "optimizer.lr=1e-12")
    job = train(*given, "optimizer.weight_decay=0")
    network = job.task.model
    assert network.context_length == 16 and len(network.blocks) == 1
    theirs = load_file(folders / "gpt" / "model.safetensors")
    torch.testing.assert_close(network.embed.weight, theirs["transformer.wte.weight"])
    torch.testing.assert_close(network.position.weight, theirs["transformer.wpe.weight"])
    assert job.config.model.depth == 1 and job.config.model.feedforward == "gelu_tanh"
    assert job.data.tokenizer.kind == "huggingface"
    typed = comparable(composed(*given, "optimizer.weight_decay=0"))
    assert comparable(job.run.config()) == typed, "resume=auto knows what was typed, though the sizes were filled in"


def test_the_rows_of_a_rounded_embedding_are_kept(folders: Path, home: Path) -> None:
    """Rounded up to a multiple of 64 or so, as many are: the ids beyond the tokenizer's own are unused, and no text has them."""
    tokenizer = f"dataset.tokenizer={folders / 'padded'}"  # typed, but the same
    given = (*LM, tokenizer, f"dataset.path={folders / 'text.txt'}", f"model.pretrained={folders / 'padded'}")
    job = train(*given, "optimizer.lr=1e-12", "optimizer.weight_decay=0")
    theirs = load_file(folders / "padded" / "model.safetensors")
    torch.testing.assert_close(job.task.model.embed.weight, theirs["transformer.wte.weight"])
    ours, own = job.data.tokenizer, HuggingFace.open(folders / "padded")
    assert (len(own), len(ours)) == (280, 304)
    assert ours.encode("a fox <unused_290>").tolist() == own.encode("a fox <unused_290>").tolist()
    assert ours.decode([*own.encode("a fox"), 290]) == "a fox"
    assert ours.ids == own.ids


def test_bert_is_fine_tuned_with_a_fresh_head(folders: Path, home: Path) -> None:
    data = (
        "dataset=sentences",
        f"dataset.path={folders / 'sentences.csv'}",
        "dataset.max_length=16",
        "dataset.batch_size=8",
    )
    job = train("model=bert", *data, f"model.pretrained={folders / 'bert'}", "duration=2steps", "logger=none")
    assert job.task.model.head.out_features == 2
    assert job.data.rows("train")[0][_first(job)].inputs[0, 0] == job.data.tokenizer.ids.begin


def _first(job):
    from epochal.data.batching import BatchIndices

    return BatchIndices(torch.arange(1), 0)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("model=bert", "model.pretrained={folder}/gpt"), "is a gpt; choose model=gpt"),
        (("model=gpt", "model.pretrained=true"), "name the weights, a folder or a repository of the Hub"),
        (("model=gpt", "model.pretrained={folder}/nothing"), "neither a folder with config.json"),
        (("model=gpt", "model.pretrained={folder}/gpt", "model.depth=5"), "have 1; leave it out"),
        (("model=gpt", "model.pretrained={folder}/gpt", "model.norm=rms"), "have layer; leave it out"),
        (("model=gpt", "model.pretrained={folder}/gpt", "dataset.context_length=64"), "context_length=16 is shorter"),
        (("model=gpt", "model.pretrained={folder}/gpt", "init_from=run"), "both choose the weights"),
        (("model=gpt", "model.pretrained={folder}/gpt", "dataset.tokenizer=byte"), "leave dataset.tokenizer out"),
        (("model=gpt", "model.pretrained={folder}/small"), "tokenizer.json has 280 ids and the embedding 200"),
    ],
)
def test_what_does_not_fit_is_said(overrides: tuple[str, ...], says: str, folders: Path, refuse) -> None:
    given = [override.format(folder=folders) for override in overrides]
    refuse("train", "dataset=text", f"dataset.path={folders / 'text.txt'}", "logger=none", *given, says=(says,))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_head": "2"}, "config.json gives '2' for what is num_heads here; it must be a whole number above zero"),
        ({"n_embd": None}, "config.json gives None for what is embed_dim here"),
        ({"n_embd": None, "n_inner": None}, "config.json has a value of another kind than it should be"),
        ({"layer_norm_epsilon": "1e-5"}, "config.json gives '1e-5' for what is eps here; it must be a number"),
        ({"model_type": ["gpt2"]}, "ours are gpt2 openai-gpt bert llama"),
        ({"quantization_config": {"bits": 8}}, "of a form that ours has not: quantization_config"),
    ],
)
def test_a_config_with_odd_values_is_refused(change, says, folders: Path, tmp_path: Path, refuse) -> None:
    for file in (folders / "gpt").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(described | change))
    refuse("train", *LM, f"dataset.path={folders / 'text.txt'}", f"model.pretrained={tmp_path}", says=(says,))


@pytest.mark.parametrize(
    ("change", "says"),
    [(lambda t: t.to(torch.int8), "quantised weights cannot be read"), (lambda t: t * torch.nan, "not finite")],
)
def test_weights_that_are_no_numbers_to_compute_with_are_refused(change, says, folders, tmp_path, refuse) -> None:
    for file in (folders / "gpt").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = {name: change(tensor) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    refuse("train", *LM, f"dataset.path={folders / 'text.txt'}", f"model.pretrained={tmp_path}", says=(says,))


@pytest.mark.parametrize("named", [["a"], None, {"x": 3}, {"x": "../gpt/model.safetensors"}])
def test_an_index_that_names_no_files_is_refused(named, folders: Path, tmp_path: Path, refuse) -> None:
    for file in (folders / "gpt").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    given = (*LM, f"dataset.path={folders / 'text.txt'}", f"model.pretrained={tmp_path}")
    refuse("train", *given, says=("must name a file of the folder for each tensor in its weight_map",))


def test_weights_without_a_tokenizer_are_refused(folders: Path, tmp_path: Path, refuse) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders / "gpt" / name).read_bytes())
    given = (
        "dataset=text",
        f"dataset.path={folders / 'text.txt'}",
        "model=gpt",
        f"model.pretrained={tmp_path}",
        "dataset.context_length=16",
    )
    refuse("train", *given, "logger=none", says=("has no tokenizer.json",))
    (tmp_path / "model.safetensors").write_bytes((folders / "gpt" / "model.safetensors").read_bytes()[:500])
    (tmp_path / "tokenizer.json").write_bytes((folders / "gpt" / "tokenizer.json").read_bytes())
    refuse("train", *given, "logger=none", says=("model.safetensors",))
