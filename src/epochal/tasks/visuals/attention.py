"""Attention of an encoder-decoder: which part of the source each generated token comes from."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.core.protocols import SourceAttention
from epochal.core.specs import BEGIN, PAD
from epochal.data.batching import BatchIndices
from epochal.plots.heatmaps import attention_heatmap, video_strips
from epochal.tasks.artifacts import Artifacts
from epochal.tasks.seq2seq import Generated, Seq2SeqTask
from epochal.tasks.sequences import gather
from epochal.tasks.visuals.classification import overlay_heat
from epochal.tasks.visuals.sequences import token_labels

EXAMPLES = 4  # whose attention is drawn
CANDIDATES = 40  # sentences of which the longest are chosen
LONGEST = 18  # tokens of the longest source that is drawn
SIDE = 160  # pixels of the longer side of an image


@torch.no_grad()
def add_token_attention(task: Seq2SeqTask, artifacts: Artifacts, generated: Generated) -> None:
    """Adds heat maps of the longest sentences that are not too long; nothing if the model has no attention."""
    if not isinstance(task.model, SourceAttention):
        return
    batch = gather(task, generated.split, generated.numbers[:CANDIDATES])
    lengths = (batch.inputs != PAD).sum(1) if batch.lengths is None else batch.lengths
    chosen = lengths.masked_fill(lengths > LONGEST, 0).argsort(descending=True, stable=True)[:EXAMPLES]
    chosen = chosen[lengths[chosen] <= LONGEST]
    targets = [generated.ids[place][: 2 * LONGEST] for place in chosen.tolist()]
    if not any(targets):
        return
    weights = task.model.attention(batch.inputs[chosen], decoder_inputs(targets, task.device), lengths[chosen])
    if weights is None:
        return
    sources = [
        ids[:length] for ids, length in zip(batch.inputs[chosen].tolist(), lengths[chosen].tolist(), strict=True)
    ]
    artifacts.pictures["attention"] = attention_heatmap(
        [
            weight[: len(target), : len(source)].float().cpu().numpy()
            for weight, target, source in zip(weights, targets, sources, strict=True)
        ],
        [token_labels(task.data.target_tokenizer, target) for target in targets],
        [token_labels(task.data.source_tokenizer, source) for source in sources],
        title="Attention: which tokens of the source (columns) each written token (rows) comes from",
    )


@torch.no_grad()
def add_image_attention(task: Seq2SeqTask, artifacts: Artifacts, generated: Generated) -> None:
    """Adds the first images, each followed by its attention at each token, laid over it: yellow most, black least.

    Nothing is added if the model has no attention.
    """
    if not isinstance(task.model, SourceAttention):
        return
    numbers, captions = generated.numbers[:EXAMPLES], generated.ids[:EXAMPLES]
    batch = gather(task, generated.split, numbers)
    weights = task.model.attention(batch.inputs, decoder_inputs(captions, task.device))  # (N, T, rows, columns)
    if weights is None:
        return
    rows, _ = task.data.rows(generated.split)
    images = rows[BatchIndices(numbers, 0)].inputs.expand(-1, 3, -1, -1).numpy()  # uint8 (N, 3, H, W)
    strips, labels = [], []
    for image, maps, ids in zip(images, weights.float().cpu(), captions, strict=True):
        heat = F.interpolate(maps[: len(ids)][:, None], image.shape[1:], mode="bilinear")[:, 0]  # (T, H, W)
        heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)
        strips.append(np.concatenate((image[None], overlay_heat(image[None], heat))))
        labels.append(["", *token_labels(task.data.target_tokenizer, ids)])
    artifacts.pictures["attention"] = video_strips(
        strips, labels, side=SIDE, title="Attention: where in the image each token of its caption comes from"
    )


def decoder_inputs(rows: list[list[int]], device: torch.device) -> Tensor:
    """What a decoder reads while it generates these rows: BEGIN and all tokens but the last, padded (N, T)."""
    width = max(map(len, rows))
    return torch.tensor([[BEGIN, *row[:-1], *[PAD] * (width - len(row))] for row in rows], device=device)
