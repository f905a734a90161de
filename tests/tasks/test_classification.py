"""Classification of texts: the texts, profiles and pictures it makes."""

from types import SimpleNamespace

import pytest
import torch

from epochal.core.specs import Classes, Tokens
from epochal.data import Batch
from epochal.tasks import Classification
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.visuals.sequences import add_state_gradients

OPTIONS = {"optimizer": None, "scheduler": None, "total_steps": 1}
LENGTHS = torch.tensor([3, 1, 2, 3] * 8)


class Sentences:
    """Rows of ones; the label is whether there is more than one. Row 3 and each fourth after it is mislabelled."""

    yields, classes, seed, eval_batch_size = Tokens, Classes(("short", "long")), 0, 10

    def rows(self, split):
        return self, len(LENGTHS)

    def lengths(self, split):
        return LENGTHS

    def text(self, split, number):
        return f"text {number}"

    def __getitem__(self, rows):
        lengths = LENGTHS[rows.rows]
        inputs = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        return Batch(inputs, ((lengths > 1) & (rows.rows % 4 != 3)).long(), 0, lengths)

    def transfer_batch_to_device(self, batch, device, number):
        return batch

    def on_after_batch_transfer(self, batch, number):
        return batch


class Counts(torch.nn.Module):
    """Logits that depend on the length of a row, and made-up gradients by state."""

    shows_state_gradients = True

    def forward(self, inputs, lengths):
        assert (inputs.sum(1) == lengths).all()
        return torch.stack((torch.full_like(lengths, 2), lengths.clamp(max=2) * 2 - 1), dim=1).float()

    def state_gradients(self, inputs, loss):
        assert inputs.all(), "a row is padded"
        return torch.arange(1.0, inputs.shape[1] + 1)


@pytest.fixture
def task():
    task = Classification(model=Counts(), **OPTIONS).eval()
    task.trainer = SimpleNamespace(datamodule=Sentences(), testing=True, world_size=1, num_test_batches=[4])
    return task


def test_texts_are_listed_with_their_predictions(task):
    blocks = task.validation_artifacts().texts["predictions"].split("\n\n")
    assert blocks[0] == "long, 73% sure, right\n    text 0"
    assert blocks[1] == "short, 73% sure, right\n    text 1"
    assert blocks[3] == "long, 73% sure, wrong: it is short\n    text 3"


def test_a_test_lists_the_texts_of_mistakes_and_accuracy_by_length(task):
    data = task.data
    for numbers in LENGTHS.argsort(stable=True).split(10):  # as the batches of a test come
        task.step(data[SimpleNamespace(rows=numbers)])
    artifacts = task.test_artifacts()
    mistakes = [line.strip() for line in artifacts.texts["mistakes"].splitlines() if "text" in line]
    assert mistakes == [f"text {number}" for number in range(3, 32, 4)]
    profile = artifacts.profiles["accuracy_by_length"]
    assert (profile.positions, profile.values) == ([1, 2, 3], [1, 1, 0.5])
    assert artifacts.table[0][1] == "texts" and "confusion" in artifacts.pictures


def test_a_test_of_some_batches_lists_the_texts_of_these(task):
    data, task.trainer.num_test_batches = task.data, [2]  # trainer.limit_test_batches=2
    for numbers in LENGTHS.argsort(stable=True).split(10)[:2]:
        task.step(data[SimpleNamespace(rows=numbers)])
    artifacts = task.test_artifacts()
    assert artifacts.profiles["accuracy_by_length"].positions == [1, 2, 3]
    first = set(LENGTHS.argsort(stable=True)[:20].tolist())
    mistakes = [int(line.split()[1]) for line in artifacts.texts["mistakes"].splitlines() if line.startswith("    ")]
    assert mistakes and set(mistakes) == {n for n in first if n % 4 == 3}


def test_gradients_by_time_step_are_those_of_rows_of_one_length(task):
    artifacts = Artifacts()
    add_state_gradients(task, artifacts, lambda out, labels: out.sum())
    assert artifacts.profiles["state_gradient"].values == [1, 2, 3], "the longest of which there are enough"


def test_padding_is_not_counted_as_tokens(task):
    batch = task.data[SimpleNamespace(rows=torch.arange(4))]
    assert task.step(batch)[1]["tokens"].sum() == 9


@pytest.mark.parametrize("smoothing", [-0.1, 1, "some"])
def test_label_smoothing_outside_0_to_1_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing={smoothing} must be a number"):
        Classification(model=Counts(), label_smoothing=smoothing, **OPTIONS)
