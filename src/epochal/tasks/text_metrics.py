"""BLEU and chrF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU alone, with the signature that `scores` tells."""
    from sacrebleu.metrics import BLEU

    return float(BLEU(force=True).corpus_score(texts, _streams(references)).score)


def scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, float], str]:
    """BLEU, chrF (both 0 to 100) and the share that is exact; and the lines that tell them, with their signatures."""
    from sacrebleu.metrics import BLEU, CHRF

    metrics, lines = {}, []
    # force: no warning where the end of each sentence stands apart, as it does in texts of words
    for name, metric in (("BLEU", BLEU(force=True)), ("chrF", CHRF())):
        score = metric.corpus_score(texts, _streams(references)).score
        metrics[name.lower()] = score
        lines.append(f"{name}   {score:5.2f}   {metric.get_signature()}")
    exact = [text in those for text, those in zip(texts, references, strict=True)]
    metrics["exact"] = sum(exact) / len(exact)
    return metrics, "\n".join([*lines, f"exact  {metrics['exact']:.1%}"])


def _streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """As sacrebleu wants them: the first reference of each text, then the second; None where there is none."""
    return [
        [those[place] if place < len(those) else None for those in references]
        for place in range(max(map(len, references)))
    ]
