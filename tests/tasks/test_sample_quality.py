"""Metrics of generated images against direct computations, and against torchmetrics on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from epochal.core.errors import ConfigError
from epochal.models import CNN
from epochal.tasks import sample_quality
from epochal.tasks.sample_quality import FeatureNetwork, Features, RealImages


def points(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).double() + shift


@pytest.fixture
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    cnn = CNN(image_shape=(1, 8, 8), num_classes=3, filters=[4], hidden=6, dropout=0.5)
    options = {"mean": torch.tensor([0.3]), "std": torch.tensor([0.2]), "image_shape": (1, 8, 8)}
    return FeatureNetwork(cnn, **options, run="a run", fingerprint="0")


def images(count: int, seed: int) -> Tensor:
    return torch.randint(256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_features_are_what_the_output_layer_reads(network: FeatureNetwork) -> None:
    pixels = images(300, 1)  # more than one batch
    found = network(pixels)
    normal = (pixels / 255 - 0.3) / 0.2
    hidden = network.network.head[:-1](network.network.features(normal))
    assert found.values.dtype == torch.float64 and network.count == 6
    torch.testing.assert_close(found.values, hidden.double())
    assert torch.equal(found.classes, network.network(normal).argmax(1))
    assert not any(p.requires_grad for p in network.network.parameters())


def test_a_network_whose_output_is_no_linear_layer_has_no_features() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 2, 1), nn.Flatten())
    with pytest.raises(ConfigError, match="task.features=x has no linear output layer"):
        FeatureNetwork(network, mean=torch.zeros(1), std=torch.ones(1), image_shape=(1, 8, 8), run="x", fingerprint="")


def test_fid_is_the_distance_of_two_gaussians() -> None:
    real, fake = points(200, 1), points(150, 2, shift=0.5) * 1.3
    means, covariances = zip(*((x.mean(0).numpy(), np.cov(x.numpy().T)) for x in (real, fake)))
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors @ np.diag(values**0.5) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root)).sum()  # trace of the root of the product
    direct = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross
    assert sample_quality.frechet_distance(real, fake) == pytest.approx(direct, rel=1e-9)
    assert sample_quality.frechet_distance(real, real) == pytest.approx(0, abs=1e-9)


def test_kid_is_the_squared_distance_of_means_under_a_cubic_kernel() -> None:
    real, fake = points(40, 1), points(40, 2, shift=0.5)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / 4 + 1) ** 3

    within = sum((kernel(x, x).sum() - kernel(x, x).diag().sum()) / (40 * 39) for x in (real, fake))
    direct = within - 2 * kernel(real, fake).mean()
    assert sample_quality.kernel_distance(real, fake, subsets=2, seed=1) == pytest.approx(direct.item(), rel=1e-9)


def test_kid_draws_its_subsets_by_its_seed_and_leaves_the_random_numbers_as_they_are() -> None:
    real, fake = points(1200, 1), points(1100, 2, shift=0.1)
    torch.manual_seed(7)
    one = sample_quality.kernel_distance(real, fake, subsets=2, seed=1)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))
    assert one == sample_quality.kernel_distance(real, fake, subsets=2, seed=1)
    assert one != sample_quality.kernel_distance(real, fake, subsets=2, seed=2)


@pytest.mark.parametrize("rows", [7, 1000])
def test_precision_and_recall_are_counted_image_by_image(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_quality, "ROWS", rows)
    real, fake = points(30, 1), points(25, 2, shift=1.2)

    def share_within(images: Tensor, others: Tensor, k: int) -> float:
        radii = [sorted((one - two).norm().item() for two in others)[k] for one in others]  # the first is itself
        within = [any((x - y).norm().item() <= r for y, r in zip(others, radii)) for x in images]
        return sum(within) / len(within)

    found = sample_quality.precision_and_recall(real, fake, neighbours=3)
    assert found == pytest.approx((share_within(fake, real, 3), share_within(real, fake, 3)))
    assert 0 < found[0] < 1 and 0 < found[1] < 1 and found[0] != found[1], found
    assert sample_quality.precision_and_recall(real, real) == (1, 1)
    assert sample_quality.precision_and_recall(real, real + 100) == (0, 0)


def test_a_class_is_covered_from_a_tenth_of_its_share_on() -> None:
    real = torch.arange(1000) % 4  # a quarter each
    fake = torch.cat([torch.zeros(950), torch.ones(25), torch.full((24,), 2), torch.full((1,), 4)]).long()
    assert sample_quality.modes_covered(real, fake) == 2, "0 and 1; there is no real 4"
    assert sample_quality.modes_covered(real, real) == 4


def test_the_metrics_are_torchmetrics_of_the_same_network(network: FeatureNetwork) -> None:
    class Network(nn.Module):
        num_features = 6

        def forward(self, pixels: Tensor) -> Tensor:
            return network(pixels).values

    real, fake = images(60, 1), images(60, 2).clamp(max=180)
    found = sample_quality.compare(
        RealImages(network(real), torch.zeros(60), floor=0.25), network(fake), seed=4, whole=True
    )
    fid, kid = FrechetInceptionDistance(Network()), KernelInceptionDistance(Network(), subsets=1, subset_size=60)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    assert found["fid"] == pytest.approx(fid.compute().item(), rel=1e-9)
    assert found["kid"] == pytest.approx(kid.compute()[0].item(), rel=1e-9)
    assert found["fid_floor"] == 0.25 and 1 <= found["modes_covered"] <= 3
    assert "modes_covered" not in sample_quality.compare(
        RealImages(Features(points(9, 1), None), torch.zeros(9), 0.0), Features(points(9, 2), None), seed=1, whole=True
    )
    quick = sample_quality.compare(
        RealImages(network(real), torch.zeros(60), floor=0.25), network(fake), seed=4, whole=False
    )
    assert quick == {name: found[name] for name in ("fid", "fid_floor", "modes_covered")}
