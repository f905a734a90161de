"""How trials, keys and values are written in the table and the figures of a search."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from epochal.experiments.sweeps.study import has_diverged

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
KINDS = ("finished", "pruned", "diverged", "failed", "running")


def state(trial: FrozenTrial) -> str:
    """finished, pruned, diverged, failed or running."""
    return "diverged" if has_diverged(trial) else STATES[trial.state]


def leaves(names: Sequence[str]) -> list[str]:
    """The last part of each dotted name, where no other name ends in it too: `lr` for optimizer.lr."""
    last = [name if "/" in name else name.rpartition(".")[2] for name in names]
    return [leaf if last.count(leaf) == 1 else name for leaf, name in zip(last, names)]


def shortened(texts: Sequence[str], width: int) -> list[str]:
    """The texts, the long ones cut in the middle, so that those that differ still do.

    Args:
        texts: Of one column or axis.
        width: Characters that each should have at most; more if they would read alike.
    """
    different = len(set(texts))
    longest = max(map(len, texts), default=0)
    for room in range(max(width, 3), longest + 1):
        for tail in sorted(range(room), key=lambda end: abs(end - room // 2)):
            head = room - 1 - tail
            cut = [t if len(t) <= room else f"{t[:head]}…{t[len(t) - tail :]}" for t in texts]
            if len(set(cut)) == different:
                return cut
    return list(texts)
