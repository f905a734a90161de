"""Objectives as LightningModules, one each; the architecture is the network inside."""

from epochal.tasks.adversarial import Adversarial
from epochal.tasks.base import Shown, Task
from epochal.tasks.classification import Classification
from epochal.tasks.language_modeling import LanguageModeling
from epochal.tasks.patches import MaskedPatch, NextPatch

__all__ = ["Adversarial", "Classification", "LanguageModeling", "MaskedPatch", "NextPatch", "Shown", "Task"]
