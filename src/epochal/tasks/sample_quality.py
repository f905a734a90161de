"""How good generated images are: their features, as a classifier computes them, beside those of real images.

Heusel et al.: GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017 (arXiv 1706.08500).
Binkowski et al.: Demystifying MMD GANs, 2018 (arXiv 1801.01401).
Kynkaanniemi et al.: Improved Precision and Recall Metric for Assessing Generative Models, 2019 (arXiv 1904.06991).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from epochal.core.errors import ConfigError

NEIGHBOURS = 3  # k of precision and recall, as in the paper
SUBSET = 1000  # images in a subset of KID, as in the paper
SUBSETS = 10  # of KID; 100 there
COVERED = 0.1  # of a class's share of the real images, from which on a generator covers it
BATCH = 256  # images that the network reads at once
ROWS = 1000  # rows of a matrix of distances that are in memory at once


class Features(NamedTuple):
    """What a network sees in N images: features, float64 (N, F), and the class of each (N,); None without classes."""

    values: Tensor
    classes: Tensor | None


class FeatureNetwork:
    """A classifier, of which the input of the output layer is what an image's features are.

    It is no `nn.Module`, so that a task that holds it neither trains nor saves it.

    Args:
        network: Normalised images (B, C, H, W) -> logits (B, classes); used in eval mode.
        mean: Of each channel (C,), of pixels in [0, 1], that the network was trained with.
        std: Likewise.
        image_shape: (C, H, W) that it reads; None: any.
        run: Its name, for messages and the summary.
        fingerprint: Of its weights.

    Raises:
        ConfigError: If it has no linear output layer.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Tensor,
        std: Tensor,
        image_shape: tuple[int, int, int] | None,
        run: str,
        fingerprint: str,
    ) -> None:
        self.network, self.run, self.fingerprint = network.eval().requires_grad_(False), run, fingerprint
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.image_shape = image_shape
        self._seen: list[tuple[nn.Linear, Tensor]] = []  # the linear layers of a forward pass, and their inputs
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda layer, inputs: self._seen.append((layer, inputs[0])))
        self.count = self(torch.zeros(1, *(image_shape or (3, 299, 299)), dtype=torch.uint8)).values.shape[1]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """The features of uint8 images (N, C, H, W)."""
        values, classes = zip(*map(self.read, images.split(BATCH)), strict=True)
        return Features(torch.cat(values), None if None in classes else torch.cat(classes))

    def read(self, images: Tensor) -> Features:
        """The features of a batch of uint8 images (B, C, H, W)."""
        device = next(self.network.parameters()).device
        self._seen.clear()
        logits = self.network((images.to(device, torch.float32) / 255 - self.mean.to(device)) / self.std.to(device))
        layer, inputs = self._seen[-1] if self._seen else (None, logits)
        if layer is None or inputs.dim() != 2 or layer.out_features != logits.shape[1]:
            raise ConfigError(f"task.features={self.run} has no linear output layer, and so no features of an image.")
        self._seen.clear()
        return Features(inputs.double(), logits.argmax(1))


@dataclass
class RealImages:
    """Features of real images to compare with, and the distance that others of them have.

    Attributes:
        features: Of N images.
        labels: Their classes in the data (N,).
        floor: FID of N other real images, of the training part: what a generator that knew the data would have.
    """

    features: Features
    labels: Tensor
    floor: float


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID of features (N, F) and (M, F), float64."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1])).to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute().item()


def kernel_distance(real: Tensor, fake: Tensor, *, seed: int, subsets: int = SUBSETS) -> float:
    """KID of features (N, F) and (M, F), float64: the mean over random subsets of at most 1,000 images."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET, len(real), len(fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features in memory
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=subsets, subset_size=size)
    metric.to(real.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    with torch.random.fork_rng(devices=[]):  # it draws the subsets
        torch.default_generator.manual_seed(seed)
        return metric.compute()[0].item()


def precision_and_recall(real: Tensor, fake: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """The fraction of generated images among the real ones, and of real ones among the generated.

    An image is among others where it is no farther from one of these than that one's k-th nearest neighbour of its kind.

    Args:
        real: Features (N, F).
        fake: Features (M, F).
        neighbours: k, less than N and M.
    """
    around_real, around_fake = _radii(real, neighbours), _radii(fake, neighbours)
    among_real, among_fake = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part, radii in zip(fake.split(ROWS), around_fake.split(ROWS), strict=True):
        distances = _squared_distances(part, real)  # (B, N)
        among_real.append((distances <= around_real).any(1))
        among_fake |= (distances <= radii[:, None]).any(0)
    return torch.cat(among_real).double().mean().item(), among_fake.double().mean().item()


def modes_covered(real: Tensor, fake: Tensor) -> int:
    """How many classes of the real images have at least a tenth of their share among the generated ones.

    Args:
        real: Classes (N,).
        fake: Classes (M,), as a classifier sees them.
    """
    count = int(max(real.max(), fake.max())) + 1
    shares = [torch.bincount(classes, minlength=count) / len(classes) for classes in (real, fake)]
    return int(((shares[0] > 0) & (shares[1] >= COVERED * shares[0])).sum())


def compare(real: RealImages, fake: Features, *, seed: int, whole: bool) -> dict[str, float]:
    """The metrics of generated images.

    Args:
        real: With what they are compared.
        fake: Their features.
        seed: Of what KID draws.
        whole: False leaves out KID, precision and recall, which take long.
    """
    values = real.features.values
    found = {"fid": frechet_distance(values, fake.values), "fid_floor": real.floor}
    if whole:
        found["kid"] = kernel_distance(values, fake.values, seed=seed)
        found["sample_precision"], found["sample_recall"] = precision_and_recall(values, fake.values)
    if real.features.classes is not None and fake.classes is not None:
        found["modes_covered"] = modes_covered(real.features.classes, fake.classes)
    return found


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """The squared distance of each point (N, F) to its k-th nearest neighbour (N,)."""
    nearest = [
        _squared_distances(part, points).topk(neighbours + 1, largest=False).values[:, -1]  # the nearest is itself
        for part in points.split(ROWS)
    ]
    return torch.cat(nearest)


def _squared_distances(points: Tensor, others: Tensor) -> Tensor:  # (N, F), (M, F) -> (N, M)
    squares = points.square().sum(1)[:, None] + others.square().sum(1)
    return torch.addmm(squares, points, others.T, alpha=-2)


class _Given(nn.Module):
    """Stands for a network of torchmetrics where the features are known already."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features
