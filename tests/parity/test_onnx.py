"""Networks as ONNX graphs, run by onnxruntime: the same outputs for any batch, in an environment of their own: make parity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from epochal.inference import export, onnx_graph
from helpers.exports import loaded

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.parity

SMALL = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2")
TEXT = ("dataset=text", "dataset.path={text}", "dataset.context_length=16", "dataset.batch_size=4")
SENTENCES = ("dataset=sentences", "dataset.path={reviews}", "dataset.batch_size=4", "dataset.tokenizer=byte")
PAIRS = ("dataset=sentences", "dataset.path={pairs}", "dataset.second_column=guess", "dataset.batch_size=4")
CASES = {
    "lenet": ("model=lenet", "dataset=digits"),
    "permuted pixels": ("model=mlp", "dataset=digits", "dataset.permuted=true"),
    "mlp": ("model=mlp", "dataset=digits"),
    "cnn": ("model=cnn", "dataset=digits", "dataset.image_size=16"),
    "alexnet": ("model=alexnet", "model.width=0.1", "dataset=digits", "dataset.image_size=32"),
    "vgg": ("model=vgg", "model.width=0.05", "dataset=digits", "dataset.image_size=32"),
    "googlenet": (
        "model=googlenet",
        "model.width=0.1",
        "model.auxiliary=true",
        "dataset=digits",
        "dataset.image_size=32",
    ),
    "resnet": ("model=resnet", "model.depth=8", "dataset=digits"),
    "plain": ("model=plain", "model.depth=8", "dataset=digits"),
    "efficientnet": (
        "model=efficientnet",
        "model.width=0.2",
        "model.depth=0.3",
        "dataset=digits",
        "dataset.image_size=32",
    ),
    "transformer encoder": (
        "model=transformer_encoder",
        "model.depth=1",
        "model.embed_dim=16",
        "model.num_heads=2",
        *SENTENCES,
    ),
    "rnn": ("model=rnn", "model.hidden_size=8", *SENTENCES),
    "labels of frames": ("model=lstm", "model.hidden_size=8", "dataset=copy", "dataset.train_size=64"),
    "char_rnn": ("model=char_rnn", "model.hidden_size=8", *TEXT),
    "bert, masked words": ("model=bert", *SMALL, *TEXT, "task=masked_lm"),
    "bert, next sentence": (
        "model=bert",
        *SMALL,
        *PAIRS,
        "dataset.tokenizer=byte",
        "task=masked_lm",
        "model.next_sentence=true",
    ),
    "gan with classes": ("model=gan", "model.conditional=true", "dataset=digits"),
    "wgan_gp": ("model=wgan_gp", "model.width=8", "dataset=digits"),
    "seq2seq with attention": ("model=seq2seq_attention", "dataset=reverse", "dataset.train_size=64"),
    "vit": ("model=vit", "dataset=digits", "model.depth=1"),
    "masked patches": ("model=vit", "dataset=digits", "task=masked_patch", "model.depth=1"),
    "gan": ("model=gan", "dataset=digits"),
    "gpt": ("model=gpt", *SMALL, *TEXT),
    "llama": ("model=llama", *SMALL, *TEXT),
    "bert, classes": ("model=bert", *SMALL, *SENTENCES),
    "bert, pairs": ("model=bert", *SMALL, *PAIRS, "dataset.tokenizer=byte"),
    "gru": ("model=gru", "model.hidden_size=8", *TEXT),
    "bidirectional lstm": ("model=lstm", "model.hidden_size=8", "model.bidirectional=true", *SENTENCES),
    "transformer": ("model=transformer", "model.depth=1", "dataset=reverse", "dataset.train_size=64"),
    "seq2seq": ("model=seq2seq", "dataset=reverse", "dataset.train_size=64"),
    "captioner": ("model=captioner", "dataset=digit_captions", "dataset.source=digits", "dataset.train_size=64"),
    "series": ("model=lstm", "dataset=adding", "dataset.train_size=64", "dataset.batch_size=16"),
    "videos": ("model=gru", "dataset=moving_digits", "dataset.source=digits", "dataset.train_size=64"),
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / f"{name}.csv" for name in ("text", "reviews", "pairs")}
    made["text"] = made["text"].with_suffix(".txt")
    made["text"].write_text("the quick brown fox jumps over the lazy dog\n" * 99)
    rows = [(number, word) for number in range(40) for word in ("good", "bad")]
    made["reviews"].write_text("sentence,label\n" + "\n".join(f"film {n} is {word},{word}" for n, word in rows))
    lines = "\n".join(f"film {n} is,rather {word},{word}" for n, word in rows)
    made["pairs"].write_text("sentence1,sentence2,label\n" + lines)
    return made


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_computes_the_same_for_batches_of_any_size(case, files, tmp_path):
    run = loaded(*[choice.format(**files) for choice in CASES[case]])
    folder = tmp_path / "graph"
    folder.mkdir()
    export.to_onnx(run, folder)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    described = json.loads((folder / "config.json").read_text())["onnx"]
    assert list(described["inputs"]) == [each.name for each in session.get_inputs()]
    graph = onnx_graph.make_graph(run)
    for given in onnx_graph.others(graph):
        with torch.no_grad():
            expected = graph.module(*given.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        feeds = {name: tensor.numpy() for name, tensor in given.items() if name in described["inputs"]}
        for found, right in zip(session.run(None, feeds), expected, strict=True):
            np.testing.assert_allclose(found, right.numpy(), rtol=0, atol=1e-5)


def test_pixels_are_normalised_in_the_graph(files, tmp_path):
    run = loaded(*CASES["permuted pixels"])
    export.to_onnx(run, tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), np.uint8)
    with torch.no_grad():
        expected = run.model(run.data.encode(list(images))[0])
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected.numpy(), rtol=0, atol=1e-5)
