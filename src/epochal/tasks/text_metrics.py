"""BLEU (Papineni et al. 2002) and chrF (Popović 2015), computed by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from epochal.core.format import number_text
from epochal.data.vocabularies import have_no_spaces


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU in [0, 100], with the settings of `scores`."""
    return float(_bleu(references).corpus_score(texts, _streams(references)).score)


def _bleu(references: Sequence[Sequence[str]]) -> Any:
    """BLEU of words as sacrebleu finds them; of characters where words have no spaces between them."""
    from sacrebleu.metrics import BLEU

    characters = have_no_spaces([text for right in references for text in right])
    # force: no warning about tokenised texts, whose full stops are separate words
    return BLEU(force=True, tokenize="char" if characters else None)


def scores(texts: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[dict[str, float], str]:
    """Scores of N texts against one or several references each.

    Returns:
        The metrics bleu and chrf in [0, 100], and exact, the fraction of texts that equal a reference; and lines of
        text with these values and sacrebleu's signatures.
    """
    from sacrebleu.metrics import CHRF

    metrics, lines = {}, []
    for name, metric in (("BLEU", _bleu(references)), ("chrF", CHRF())):
        score = metric.corpus_score(texts, _streams(references)).score
        metrics[name.lower()] = score
        lines.append(f"{name}   {score:5.2f}   {metric.get_signature()}")
    exact = [text in right for text, right in zip(texts, references, strict=True)]
    metrics["exact"] = sum(exact) / len(exact)
    return metrics, "\n".join([*lines, f"exact  {number_text('exact', metrics['exact'])}"])


def _streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """In sacrebleu's form: the first reference of each text, then the second ...; None where a text has fewer."""
    return [
        [right[place] if place < len(right) else None for right in references]
        for place in range(max(map(len, references)))
    ]
