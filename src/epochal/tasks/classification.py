"""One label out of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from epochal.data.base import Batch
from epochal.data.images import ImageRows
from epochal.tasks.base import Metrics, Profile, Shown, Task

SHOWN = 24  # pictures in a grid
SHOWN_ATTENTION = 8
LOOKED_AT = 64  # examples whose gradients are averaged


class Classification(Task):
    """Cross-entropy of the logits (B, classes) against the labels (B).

    Logs loss and accuracy; of a recurrent network how many powers of ten the gradient loses from its last state to its
    first; and top-5 accuracy where there are more than ten classes.

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes, in training alone.
        shifts: Pixels; the test images are tested again, moved by so many in each of the four directions.
        noises: Standard deviations, pixels from 0 to 1; they are tested again with so much noise on each pixel.

    Raises:
        ValueError: If one of these is no list of numbers above zero, or a shift is no whole number.
    """

    reports: ClassVar = ("val/accuracy", "max")
    example_metric: ClassVar = "accuracy"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        shifts: Sequence[int] = (),
        noises: Sequence[float] = (),
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.label_smoothing = label_smoothing
        _check_amounts("shifts", shifts, int, "[1,2,4]")
        _check_amounts("noises", noises, (int, float), "[0.1,0.2]")
        self.changes = {"shift": (moved, tuple(shifts)), "noise": (noisy, tuple(noises))}
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []  # (prediction, its probability, label) of the test

    def step(self, batch: Batch) -> tuple[Tensor, Metrics]:
        outputs = self.model(batch.inputs)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
        for others in auxiliary:  # heads in the middle of the network, in training alone
            loss = loss + self.model.auxiliary_weight * F.cross_entropy(
                others, batch.targets, label_smoothing=smoothing
            )
        metrics = {"loss": loss.detach(), "accuracy": (logits.argmax(1) == batch.targets).float().mean()}
        if logits.shape[1] > 10:
            best = logits.topk(5, dim=1).indices  # (B, 5)
            metrics["top5_accuracy"] = (best == batch.targets[:, None]).any(1).float().mean()
        if self.trainer.testing:
            confidence, prediction = logits.softmax(1).max(1)
            self._outputs.append((prediction.cpu(), confidence.float().cpu(), batch.targets.cpu()))
        return loss, metrics

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self._outputs = []

    @torch.no_grad()
    def show(self) -> Shown:
        rows, _ = self.data.rows("val")
        labels = rows.labels[rows.rows[:SHOWN]]
        images = rows.images[rows.rows[:SHOWN]]
        inputs = self.data.normalise(images.to(self.device))
        prediction = self.model(inputs).argmax(1).cpu()
        shown = Shown(pictures={"predictions": self._grid(images, prediction, labels)})
        if getattr(self.model, "shows_state_gradients", False):
            self._show_state_gradients(shown)
        if hasattr(self.model, "rollout"):
            shown.pictures["attention"] = self._attention(inputs[:SHOWN_ATTENTION])
        return shown

    def _attention(self, inputs: Tensor) -> Any:
        """Images as the network reads them, and below each where its answer comes from: yellow most, black least."""
        from epochal import pictures

        flow = self.model.rollout(inputs).float().cpu()  # (N, rows, columns)
        least, most = flow.amin((1, 2), keepdim=True), flow.amax((1, 2), keepdim=True)
        flow = F.interpolate(((flow - least) / (most - least).clamp_min(1e-12))[:, None], inputs.shape[2:])[:, 0]
        images = self.data.pixels(inputs).expand(-1, 3, -1, -1).numpy()
        over = images.mean(1, keepdims=True) / 2 + pictures.heat(flow.numpy()).transpose(0, 3, 1, 2) / 2
        return pictures.grid(
            np.concatenate((images, over.astype(np.uint8))),
            columns=len(images),
            title="Attention rollout: where the answer comes from",
        )

    def _show_state_gradients(self, shown: Shown) -> None:
        """How far back the loss of a recurrent network's answer reaches: the long-term dependency, looked at."""
        from epochal import pictures

        rows, _ = self.data.rows("val")
        few = rows.rows[:LOOKED_AT]
        with torch.inference_mode(False), torch.enable_grad():
            inputs, labels = self.data.normalise(rows.images[few].to(self.device)), rows.labels[few].to(self.device)
            norms = self.model.state_gradients(inputs, lambda out: F.cross_entropy(out, labels, reduction="sum"))
        exponents = norms.clamp_min(1e-38).log10().tolist()  # float32 ends there
        shown.profiles["state_gradient"] = Profile("time step", "gradient norm", norms.tolist())
        shown.pictures["state_gradient"] = pictures.curves(
            {"after training so far": (list(range(1, len(exponents) + 1)), exponents)},
            title="Gradient of the loss by each state",
            x_label="time step",
            y_label="norm, power of ten",
        )
        shown.metrics["gradient_decades_lost"] = exponents[-1] - exponents[0]

    def show_test(self) -> Shown:
        if self.trainer.world_size > 1:  # this process saw only its part
            return Shown()
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        from epochal import pictures

        names = self.data.classes.names
        prediction, confidence, labels = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
        counts = multiclass_confusion_matrix(prediction, labels, len(names)).numpy()
        shown = Shown(table=_per_class(counts, names))
        shown.pictures["confusion"] = pictures.confusion_matrix(
            counts, names, title="Test set: truth by row, prediction by column"
        )
        wrong = torch.nonzero(prediction != labels).flatten()
        wrong = wrong[confidence[wrong].argsort(descending=True)][:SHOWN]
        rows, _ = self.data.rows("test")
        if len(wrong):
            images = rows.images[rows.rows[wrong]]
            shown.pictures["mistakes"] = self._grid(
                images, prediction[wrong], labels[wrong], confidence[wrong], title="Most confident mistakes"
            )
        few = torch.arange(min(SHOWN, len(labels)))
        shown.pictures["predictions"] = self._grid(rows.images[rows.rows[few]], prediction[few], labels[few])
        self.examples = (rows.images[rows.rows[few]].numpy(), prediction[few].tolist(), labels[few].tolist())
        self._test_changed(shown, rows, clean=(prediction == labels).float().mean().item())
        return shown

    @torch.no_grad()
    def _test_changed(self, shown: Shown, rows: ImageRows, clean: float) -> None:
        """How much of its accuracy is left on images that are not quite where, or what, they were."""
        metrics = {}
        for name, (change, amounts) in self.changes.items():
            errors = []
            for amount in amounts:
                right = 0
                for number, index in enumerate(rows.rows.split(self.data.eval_batch_size)):
                    images, labels = (
                        part.index_select(0, index).to(self.device) for part in (rows.images, rows.labels)
                    )
                    prediction = self.model(self.data.normalise(change(images, amount, seed=number))).argmax(1)
                    right += int((prediction == labels).sum())
                metrics[f"{name}_{amount}/accuracy"] = right / len(rows.rows)
                errors.append(1 - right / len(rows.rows))
            if amounts:
                label = {"shift": "pixels moved", "noise": "deviation of the noise"}[name]
                shown.profiles[name] = Profile(label, "test error", [1 - clean, *errors], [0, *amounts])
        if metrics:
            self.measured |= {f"test/{name}": value for name, value in metrics.items()}
            self.record("test", metrics)

    def _grid(
        self,
        images: Tensor,
        prediction: Tensor,
        labels: Tensor,
        confidence: Tensor | None = None,
        title: str | None = None,
    ) -> Any:
        from epochal import pictures

        names = self.data.classes.names
        captions = []
        for number, (guess, truth) in enumerate(zip(prediction.tolist(), labels.tolist(), strict=True)):
            caption = names[guess] if guess == truth else f"{names[guess]}, not {names[truth]}"
            captions.append(caption if confidence is None else f"{caption}\n{confidence[number]:.0%} sure")
        return pictures.grid(images.numpy(), captions, highlight=(prediction != labels).tolist(), title=title)


def _check_amounts(name: str, amounts: Any, kind: Any, example: str) -> None:
    right = isinstance(amounts, Sequence) and not isinstance(amounts, str)
    if not right or not all(isinstance(a, kind) and not isinstance(a, bool) and a > 0 for a in amounts):
        raise ValueError(f"{name}={amounts} must be a list of numbers above zero, e.g. {example}.")


def moved(images: Tensor, pixels: float, seed: int) -> Tensor:
    """Moves each (C, H, W) up, down, left or right by so many whole pixels, the edge repeated; a quarter each way."""
    pixels = int(pixels)
    padded = F.pad(images.float(), (pixels,) * 4, mode="replicate").to(images.dtype)
    height, width = images.shape[-2:]
    out = torch.empty_like(images)
    for turn, (down, right) in enumerate(((0, 1), (2, 1), (1, 0), (1, 2))):
        part = slice((turn + seed) % 4, None, 4)
        rows, columns = down * pixels, right * pixels
        out[part] = padded[part, :, rows : rows + height, columns : columns + width]
    return out


def noisy(images: Tensor, deviation: float, seed: int) -> Tensor:
    """Adds normal noise to uint8 pixels, the same for every network, and cuts off what leaves 0 to 255."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    return (images + 255 * deviation * noise).round().clamp(0, 255).to(torch.uint8)


def _per_class(counts: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Precision, recall and what it is taken for, from a confusion matrix (truth by row)."""
    table: list[tuple[str, ...]] = [("class", "images", "precision", "recall", "most often taken for")]
    for number, name in enumerate(names):
        right, truth, guessed = counts[number, number], counts[number].sum(), counts[:, number].sum()
        others = counts[number].copy()
        others[number] = 0
        taken = f"{names[int(others.argmax())]} ({others.max():,})" if others.max() else ""
        precision = f"{right / guessed:.1%}" if guessed else "never"
        table.append((name, f"{truth:,}", precision, f"{right / truth:.1%}" if truth else "none", taken))
    return table
