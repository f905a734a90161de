"""Translation: its loss, its metrics, and the files of a test."""

import csv
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from epochal.core.specs import BEGIN, END, PAD
from epochal.data import Batch, Reverse
from epochal.models import Seq2Seq, Transformer
from epochal.tasks import Translation
from epochal.tasks.sequences import length_bins
from epochal.tasks.text_metrics import bleu, scores
from epochal.tasks.visuals.sequences import labelled_blocks
from helpers.training import train

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 100}
SOURCE = torch.tensor([[5, 6, END], [7, END, PAD]])
TARGET = torch.tensor([[BEGIN, 6, 5, END], [BEGIN, 7, END, PAD]])
BATCH = Batch(SOURCE, TARGET, 0, torch.tensor([3, 2]))


class Fixed(torch.nn.Module):
    """Always returns the same logits, and keeps the arguments of each call in `calls`."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.calls = logits, []

    def forward(self, source, target, lengths=None, *, teacher_forcing=1.0):
        self.calls.append((target, lengths, teacher_forcing))
        return self.logits


class Echo(torch.nn.Module):
    """Returns its source as the translation."""

    def __init__(self):
        super().__init__()
        self.widths = []

    def generate(self, source, lengths, **options):
        self.widths.append(source.shape[1])
        return source


def task(model, **options):
    return Translation(model=model, **OPTIONS, **options)


def logits():
    return torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))


def reverse(**options):
    data = Reverse(name="reverse", length=5, train_size=64, validation=30, test=40, **options)
    data.learns = "target_text"
    data.prepare()
    return data


def with_data(objective, data):
    objective.trainer = SimpleNamespace(
        datamodule=data,
        world_size=1,
        callback_metrics={},
        loggers=[],
        num_test_batches=[9],
    )
    return objective


def test_padding_counts_neither_in_the_loss_nor_in_the_metrics():
    out = logits()
    loss, metrics = task(Fixed(out)).step(BATCH)
    told = torch.tensor([6, 5, END, 7, END])
    real = torch.cat((out[0], out[1, :2]))
    torch.testing.assert_close(loss, F.cross_entropy(real, told))
    assert metrics["accuracy"].item() == pytest.approx((real.argmax(1) == told).float().mean().item())
    assert metrics["tokens"].item() * len(BATCH.targets) == 5 + 5, "read and written"
    assert task(Fixed(out)).weight(BATCH) == 5


def test_the_model_reads_all_target_tokens_but_the_last():
    model = Fixed(logits())
    task(model).step(BATCH)
    ((read, lengths, _),) = model.calls
    assert read.tolist() == TARGET[:, :-1].tolist() and lengths.tolist() == [3, 2]


def test_label_smoothing_applies_in_training_only():
    out = logits()
    smooth, plain = task(Fixed(out), label_smoothing=0.1), task(Fixed(out))
    assert smooth.step(BATCH)[0] != plain.step(BATCH)[0]
    assert smooth.eval().step(BATCH)[0] == plain.eval().step(BATCH)[0]


def test_teacher_forcing_decreases_linearly():
    class At(Translation):
        global_step = 50  # of 100

    model = Fixed(logits())
    objective = At(model=model, teacher_forcing=0.4, **OPTIONS)
    objective.step(BATCH)
    objective.eval().step(BATCH)
    assert [forcing for *_, forcing in model.calls] == [pytest.approx(0.7), 1.0], "a validation is fed the truth"


def test_teacher_forcing_is_refused_for_a_model_that_cannot_be_trained_on_its_own_predictions():
    small = {"source_vocab_size": 8, "target_vocab_size": 8}
    with pytest.raises(
        ValueError, match=r"teacher_forcing=0.5 needs a model that can be trained on its own predictions: seq2seq"
    ):
        task(Transformer(**small, depth=1, embed_dim=8, num_heads=2, feedforward_dim=8), teacher_forcing=0.5)
    task(Seq2Seq(**small, hidden_size=4, embed_dim=4), teacher_forcing=0.5)


@pytest.mark.parametrize(
    "option, says",
    [
        ({"beam_size": 0}, "beam_size=0 must be a whole number from 1 to 1,000"),
        ({"beam_size": 2.5}, "beam_size=2.5 must be a whole number"),
        ({"length_penalty": -1}, "length_penalty=-1 must be a number of at least 0"),
        ({"label_smoothing": 1}, "label_smoothing=1 must be a number of at least 0 and below 1"),
        ({"teacher_forcing": 1.5}, "teacher_forcing=1.5 must be a number of at least 0 and at most 1"),
        ({"generated": -1}, "generated=-1 must be a whole number of at least 0"),
        ({"max_length": 0}, "max_length=0 must be a whole number of at least 1"),
    ],
)
def test_wrong_options_are_refused(option, says):
    with pytest.raises(ValueError, match=says):
        task(Fixed(logits()), **option)


def test_translations_are_in_the_order_of_their_rows_though_batched_by_length():
    data = reverse(eval_batch_size=8)
    objective = with_data(task(Echo()), data)
    written = objective.generate("val", torch.arange(30), beam_size=1, length_penalty=0.0)
    assert [data.source_tokenizer.decode(ids) for ids in written] == data.sources("val")
    assert objective.model.widths == sorted(objective.model.widths) and len(objective.model.widths) == 4


def test_scores_are_those_of_sacrebleu_with_its_signatures():
    texts, references = ["a dog runs on grass", "a cat"], [["a dog runs on grass"], ["the cat"]]
    metrics, lines = scores(texts, references)
    assert metrics["exact"] == 0.5 and 0 < metrics["bleu"] < 100 and 0 < metrics["chrf"] < 100
    assert "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" in lines and f"{metrics['bleu']:.2f}" in lines
    perfect, _ = scores(texts, [["another dog", texts[0]], [texts[1]]])
    assert perfect == {"bleu": pytest.approx(100), "chrf": pytest.approx(100), "exact": 1}, "each reference counts"


@pytest.mark.parametrize(
    "written, right, tokens",
    [
        ("这部电影好看", "这部电影很好看", "char"),
        ("ねこがいた", "いぬがいた", "char"),
        ("개가 뛴다", "개가 잔다", "13a"),
    ],
)
def test_bleu_counts_characters_where_words_have_no_spaces(written, right, tokens):
    metrics, lines = scores([written] * 3, [[right]] * 3)
    assert f"tok:{tokens}" in lines and bleu([written] * 3, [[right]] * 3) == metrics["bleu"]
    assert (metrics["bleu"] > 5) == (tokens == "char")


def test_length_bins_have_about_equal_sizes():
    lengths = torch.randint(1, 40, (400,), generator=torch.Generator().manual_seed(0)).numpy()
    groups = length_bins(lengths)
    assert len(groups) == 8 and sum(map(len, groups)) == 400 and min(map(len, groups)) > 30
    ends = [(lengths[group].min(), lengths[group].max()) for group in groups]
    assert all(most < least for (_, most), (least, _) in pairwise(ends))
    assert len(length_bins(lengths * 0 + 7)) == 1


def test_blocks_are_aligned():
    assert labelled_blocks({"source": ["a", "b"], "translation": ["c", "d"]}).splitlines() == [
        *("source       a", "translation  c", "", "source       b", "translation  d")
    ]


def test_a_run_writes_scores_translations_and_pictures(home):
    job = train(
        *("model=seq2seq", "model.hidden_size=8", "model.embed_dim=8", "model.attention=dot", "dataset=reverse"),
        *("task=translation", "dataset.length=6", "dataset.train_size=64", "dataset.validation=40", "dataset.test=30"),
        *("duration=2steps", "logger=none", "task.generated=20", "task.beam_size=2"),
    )
    kinds = {"loss", "accuracy", "perplexity", "bleu", "chrf", "exact"}
    assert {name for name in job.task.measured if name.startswith("test/")} >= {f"test/{kind}" for kind in kinds}
    metrics = job.run.summary()["metrics"]
    assert metrics["train/tokens_per_second"] > 0
    assert metrics["test/bleu_short"] >= 0 and metrics["test/bleu_long"] >= 0 and metrics["val/chrf"] >= 0
    assert metrics["test/perplexity"] == pytest.approx(torch.tensor(metrics["test/loss"]).exp().item(), rel=1e-5)
    text = (job.run.pictures / "test_translations.txt").read_text()
    assert text.startswith("BLEU") and text.count("reference ") == 30
    assert (job.run.pictures / "translations_000002.txt").read_text().count("reference ") == 10
    assert min(Image.open(job.run.pictures / "test_attention.png").size) > 100
    with (job.run.pictures / "test_bleu_by_length.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["words in the source", "BLEU"] and [float(x) for x, _ in rows[1:]] == [1, 2, 3, 4, 5, 6]
