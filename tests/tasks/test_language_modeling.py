"""A recurrent network that goes on from window to window at the test, and bits per byte."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from epochal.core.errors import ConfigError
from epochal.data import TextData
from epochal.data.tokenizers import BytePairs, Words
from epochal.models import GPT, RNN
from epochal.tasks import LanguageModeling
from epochal.tasks.language_modeling import bits

OPTIONS: dict[str, Any] = {"optimizer": None, "scheduler": None, "total_steps": 1, "carry_state": True}


def prepared(folder: Path, **options: Any) -> TextData:
    (folder / "text.txt").write_text("To be, or not to be, that is the question. " * 60)
    data = TextData(name="text", path=str(folder / "text.txt"), context_length=16, batch_size=3, test=0.2, **options)
    data.prepare()
    return data


def measured(task: LanguageModeling, data: TextData) -> dict[str, float]:
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.test(task, datamodule=data, verbose=False)
    return task.measured


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_carried_state_reads_the_text_as_if_it_were_one_window(tmp_path, cell):
    data = prepared(tmp_path)
    torch.manual_seed(1)
    network = RNN(vocab_size=len(data.tokenizer), cell=cell, hidden_size=8, embed_dim=4).eval()
    torch.nn.init.normal_(network.head.weight)
    task = LanguageModeling(model=network, samples=1, sample_length=1, **OPTIONS)
    rows, count = data.rows("test")
    text = rows.tokens[: count * 16 + 1].long()
    with torch.no_grad():
        expected = F.cross_entropy(network(text[None, :-1])[0], text[1:]).item()
    assert count > data.batch_size, "several batches"
    assert measured(task, data)["test/loss"] == pytest.approx(expected, rel=1e-5)
    assert measured(task, data)["test/loss"] == pytest.approx(expected, rel=1e-5), "each test begins anew"
    task.carry_state = False
    assert measured(task, data)["test/loss"] != pytest.approx(expected, rel=1e-4)


def test_what_has_no_state_or_no_running_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"carry_state=true goes with a recurrent network; GPT has no state"):
        LanguageModeling(model=GPT(vocab_size=20, context_length=16, depth=1, num_heads=1, embed_dim=4), **OPTIONS)
    data = prepared(tmp_path, eval_stride=8)
    task = LanguageModeling(model=RNN(vocab_size=len(data.tokenizer), hidden_size=4, embed_dim=4), **OPTIONS)
    with pytest.raises(ConfigError, match=r"dataset\.eval_stride=null"):
        measured(task, data)


def test_bits_are_of_tokenizers_that_keep_the_text():
    """Words lose upper case, spaces and what they do not know, which costs nothing to predict."""
    counts = {"characters_per_token": {"test": 2.0}, "bytes_per_token": {"test": 4.0}}
    pairs = SimpleNamespace(tokenizer=BytePairs.learn(["a b"], vocab_size=270), **counts)
    found = bits(pairs, 2 * math.log(2), "test")
    assert found == pytest.approx({"bits_per_character": 1.0, "bits_per_byte": 0.5})
    assert bits(SimpleNamespace(tokenizer=Words("a\nb"), **counts), 1.0, "test") == {}
