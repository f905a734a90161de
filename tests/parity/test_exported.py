"""Folders that `epochal export to=huggingface` writes, opened by transformers: the same ids and logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.inference.export import to_transformers
from helpers.exports import loaded

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

SMALL = ("model.depth=2", "model.embed_dim=16", "model.num_heads=2")
TEXT = (*SMALL, "dataset=text", "dataset.path={text}", "dataset.context_length=16", "dataset.batch_size=4")
SENTENCES = (*SMALL, "dataset=sentences", "dataset.path={reviews}", "dataset.batch_size=4", "dataset.tokenizer=byte")
LANGUAGES = (
    "Größe, naïve — “café”",
    "Привет, мир!",
    "你好,世界",
    "こんにちは",
    "مرحبا بالعالم",
    "नमस्ते",
    "🙂👩‍👩‍👧 a\nb  c\n",
)
CASES = {
    "gpt, characters": ("model=gpt", *TEXT, "dataset.tokenizer=character"),
    "gpt, byte pairs": ("model=gpt", *TEXT, "dataset.tokenizer=bpe", "dataset.vocab_size=300"),
    "llama, bytes": ("model=llama", *TEXT, "dataset.tokenizer=byte"),
    "bert, masked words": ("model=bert", *TEXT, "dataset.tokenizer=byte", "task=masked_lm"),
    "gpt, classes": ("model=gpt", *SENTENCES),
    "llama, classes": ("model=llama", *SENTENCES),
    "bert, words": ("model=bert", *SENTENCES, "dataset.add_special_tokens=true", "dataset.tokenizer=word"),
    "bert, classes": ("model=bert", *SENTENCES, "dataset.add_special_tokens=true"),
    "bert, pairs": ("model=bert", *SENTENCES, "dataset.path={pairs}", "dataset.second_column=guess"),
}


@pytest.mark.parametrize("case", CASES)
def test_auto_classes_give_the_same_ids_and_logits(case: str, tmp_path: Path):
    rows = [(number, word) for number in range(40) for word in ("good", "bad")]
    made = {name: tmp_path / f"{name}.csv" for name in ("text", "reviews", "pairs")}
    made["text"] = made["text"].with_suffix(".txt")
    made["text"].write_text("the quick brown fox jumps over the lazy dog\n" * 99)
    made["reviews"].write_text("sentence,label\n" + "\n".join(f"film {n} is {word},{word}" for n, word in rows))
    lines = "\n".join(f"film {n} is,rather {word},{word}" for n, word in rows)
    made["pairs"].write_text("sentence1,sentence2,label\n" + lines)
    run = loaded(*[choice.format(**made) for choice in CASES[case]])
    folder = tmp_path / "exported"
    folder.mkdir()
    to_transformers(run, folder)

    config = transformers.AutoConfig.from_pretrained(folder)
    theirs = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    body = transformers.AutoModel.from_pretrained(folder)
    assert type(body).__name__ in type(theirs.base_model).__name__
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    further: tuple[Any, ...] = ()
    if run.config.dataset.name == "text":
        texts: Any = ["the lazy dog"]
        encoded = tokenizer(texts, return_tensors="pt")
        inputs = torch.tensor([run.tokenizer.encode(text).tolist() for text in texts])
    else:
        texts = ["film 3 is\trather bad", "a\tb"] if run.data.pairs else ["film 3 is good", "good"]
        split = list(zip(*(text.split("\t") for text in texts)))
        encoded = tokenizer(*map(list, split), padding=True, return_tensors="pt")
        inputs, lengths = run.data.encode(texts)
        segments = run.data.segments(inputs, lengths)
        further = (lengths,) if segments is None else (lengths, segments)
    assert torch.equal(encoded["input_ids"], inputs)
    for text in LANGUAGES:
        ids = run.tokenizer.encode(text).tolist()
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        if run.tokenizer.kind not in ("character", "word"):
            assert tokenizer.decode(ids) == run.tokenizer.decode(ids) == text
    with torch.no_grad():
        torch.testing.assert_close(theirs(**encoded).logits, run.model(inputs, *further), rtol=0, atol=1e-6)
    if run.config.dataset.name == "text":
        assert tokenizer.decode(inputs[0]) == texts[0]
