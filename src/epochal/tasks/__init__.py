"""Objectives as LightningModules, one a file; the network inside does not depend on its objective."""

from epochal.tasks.adversarial import Adversarial
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.base import Task
from epochal.tasks.captioning import Captioning
from epochal.tasks.classification import Classification
from epochal.tasks.language_modeling import LanguageModeling
from epochal.tasks.masked_lm import MaskedLM
from epochal.tasks.patches import MaskedPatch, NextPatch
from epochal.tasks.post_training.dpo import DPO
from epochal.tasks.post_training.reward_modeling import RewardModeling
from epochal.tasks.post_training.rlhf import RLHF
from epochal.tasks.post_training.supervised_finetuning import SupervisedFinetuning
from epochal.tasks.regression import Regression
from epochal.tasks.sequence_labeling import SequenceLabeling
from epochal.tasks.translation import Translation

__all__ = [
    "DPO",
    "RLHF",
    "Adversarial",
    "Artifacts",
    "Captioning",
    "Classification",
    "LanguageModeling",
    "MaskedLM",
    "MaskedPatch",
    "NextPatch",
    "Regression",
    "RewardModeling",
    "SequenceLabeling",
    "SupervisedFinetuning",
    "Task",
    "Translation",
]
