"""Which tasks a data set and a model have in common: derived from what tasks need, with no list of tasks anywhere else."""

from __future__ import annotations

import pytest

from epochal import data, models
from epochal.config.compose import choices
from epochal.config.instantiate import target_class
from epochal.config.objectives import common_tasks, target_of, tasks_of_model
from epochal.core.protocols import HEADS, TARGETS


@pytest.mark.parametrize(
    ("kind", "model", "tasks"),
    [
        (data.SentenceData, models.BERT, ["classification", "masked_lm"]),
        (data.SentenceData, models.GPT, ["classification", "language_modeling"]),
        (data.TextData, models.BERT, ["masked_lm"]),
        (data.TextData, models.LLaMA, ["language_modeling"]),
        (data.ImageData, models.ViT, ["classification", "masked_patch", "next_patch"]),
        (data.ImageData, models.GAN, ["adversarial"]),
        (data.Reverse, models.RNN, ["sequence_labeling"]),
        (data.PairData, models.GPT, []),
    ],
)
def test_tasks_come_in_the_order_of_the_datas_targets(kind, model, tasks):
    assert common_tasks(kind, model) == tasks


def test_every_task_needs_a_head_and_a_target_that_have_a_name():
    for name in choices()["task"]:
        if name != "auto":
            task = target_class(target_of("task", name))
            assert task.head in HEADS and task.target in TARGETS


def test_a_class_that_was_written_for_the_first_version_lists_its_tasks():
    class Old:
        tasks = ("classification", "adversarial", "gone")

    assert tasks_of_model(Old) == ["classification", "adversarial"]
