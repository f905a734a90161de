import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from epochal.core.specs import IGNORED
from epochal.data import Batch
from epochal.tasks import SequenceLabeling
from epochal.tasks.sequence_labeling import last_step_loss
from helpers.training import train

TARGETS = torch.tensor([[1, 0, IGNORED], [IGNORED, 2, 1]])
BATCH = Batch(torch.zeros(2, 3, 1), TARGETS, 0, torch.tensor([2, 3]))
SMALL = ("model=lstm", "model.hidden_size=8", "duration=2steps", "logger=none", "dataset.train_size=64")


def objective(logits):
    model = torch.nn.Identity()
    model.forward = lambda inputs, lengths: logits
    return SequenceLabeling(model=model, optimizer=None, scheduler=None, total_steps=1)


def logits_of(*labels):
    return 9.0 * F.one_hot(torch.tensor(labels), 3)


def test_only_labelled_steps_count():
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    loss, metrics = objective(logits).step(BATCH)
    asked = TARGETS != IGNORED
    torch.testing.assert_close(loss, F.cross_entropy(logits[asked], TARGETS[asked]))
    right = (logits[asked].argmax(1) == TARGETS[asked]).float().mean()
    assert metrics["accuracy"].item() == pytest.approx(right.item())
    assert objective(logits).weight(BATCH) == 4


def test_whole_is_the_fraction_of_sequences_without_a_mistake():
    task = objective(
        logits_of([1, 0, 2], [0, 2, 2])
    ).eval()  # the second row ends wrong; steps without a label do not count
    _, metrics = task.step(BATCH)
    means = task.derive({name: value.item() for name, value in metrics.items()}, "val")
    assert means["whole"] == 0.5 and means["accuracy"] == 0.75 and set(means) == {"loss", "accuracy", "whole"}


def test_the_last_step_loss_is_that_of_the_last_labelled_step():
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    found = F.cross_entropy(logits[0, 1:2], TARGETS[0, 1:2]) + F.cross_entropy(logits[1, 2:], TARGETS[1, 2:])
    torch.testing.assert_close(last_step_loss(logits, TARGETS), found)


def test_a_run_on_tokens_writes_texts_and_state_gradients(home):
    job = train(*SMALL, "dataset=copy", "dataset.length=4", "dataset.validation=30", "dataset.test=30")
    assert set(job.task.measured) == {"test/loss", "test/accuracy", "test/whole"}
    text = (job.run.pictures / "test_predictions.txt").read_text()
    assert text.count("sequence") == text.count("truth") == text.count("prediction") == 10
    norms = (job.run.pictures / "state_gradient_000002.csv").read_text().splitlines()
    assert len(norms) == 1 + 24, "a head, 10 symbols, 4 blanks, 10 answers"
    assert "val/gradient_decades_lost" in job.run.summary()["metrics"]


def test_a_run_on_videos_draws_them_frame_by_frame(home):
    videos = ("dataset=moving_digits", "dataset.source=digits", "dataset.length=3", "dataset.size=20")
    job = train(*SMALL, *videos, "dataset.validation=9", "dataset.test=9")
    width, height = Image.open(job.run.pictures / "test_films.png").size
    assert width > 3 * 60 and height > 6 * 60
