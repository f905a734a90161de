"""Every metric: its name, label, unit and direction."""

from __future__ import annotations

import re

GOOD_WHEN_LARGE = re.compile(
    r"accuracy|bleu|chrf|exact|whole|solved|f1|precision|recall|score|auc|per_second", re.IGNORECASE
)


def larger_is_better(name: str) -> bool:
    """Of accuracy, BLEU, speed; not of loss, error, perplexity, time, and what is unknown."""
    return GOOD_WHEN_LARGE.search(name.rpartition("/")[2]) is not None


def is_share(name: str) -> bool:
    """Accuracies and errors, which are shown in percent."""
    return name.rpartition("/")[2].endswith(("accuracy", "error"))
