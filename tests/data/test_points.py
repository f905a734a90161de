"""Points in the plane: where they lie, how they are divided, and that a small network learns them, with its boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from epochal.core.errors import ConfigError
from epochal.core.specs import Classes, Series
from epochal.data import Points
from epochal.data.batching import BatchIndices
from epochal.data.points import SPAN, grid
from epochal.tasks.visuals.boundary import COLOURS, plane_colours
from helpers.training import train


def points(**options: Any) -> Points:
    data = Points(name="points", **{"batch_size": 4, **options})
    data.prepare()
    return data


def rows(data: Points, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (N, 2) and labels (N,)."""
    dataset, count = data.rows(split)
    batch = dataset[BatchIndices(torch.arange(count), 0)]
    return batch.inputs[:, 0], batch.targets


def own(folder: Path, text: str) -> Points:
    (folder / "mine.csv").write_text(text)
    return points(kind="own", path=str(folder / "mine.csv"))


LINE = "x,y,class\n" + "".join(f"{n / 2 - 3},{n % 3},{'red' if n < 6 else 'blue'}\n" for n in range(12))


@pytest.mark.parametrize("kind", ["circles", "spiral", "blobs"])
@pytest.mark.parametrize("classes", [2, 3, 8])
def test_classes_take_turns_within_the_square_and_splits_differ(kind, classes):
    data = points(kind=kind, classes=classes, noise=1.0, train_size=80, validation=80, test=80)
    assert data.specs("classes") == (Series(1, 2), Classes(tuple(map(str, range(classes)))))
    seen = {split: rows(data, split) for split in ("train", "val", "test")}
    for places, labels in seen.values():
        assert places.shape == (80, 2) and places.dtype == torch.float32 and places.abs().max() <= SPAN
        assert torch.equal(labels, torch.arange(80) % classes)
    assert not torch.equal(seen["train"][0], seen["val"][0]) and not torch.equal(seen["val"][0], seen["test"][0])


def test_the_kinds_are_what_they_are_called():
    places, labels = rows(points(kind="circles", noise=0, classes=3), "train")
    radius = places.norm(dim=1)
    assert all(radius[labels == c].max() < radius[labels == c + 1].min() for c in (0, 1))
    places, labels = rows(points(kind="xor", noise=0), "train")
    assert torch.equal(labels == 0, places.prod(1) > 0) and places.abs().min() >= 0.3
    places, labels = rows(points(kind="blobs", noise=0, classes=4), "train")
    assert torch.stack([places[labels == c].mean(0) for c in range(4)]).norm(dim=1) == pytest.approx([3.0] * 4, abs=0.3)
    places, labels = rows(points(kind="spiral", noise=0), "train")  # one arm is the other, turned by half
    radius, angle = places.norm(dim=1), torch.atan2(places[:, 0], places[:, 1])
    turned = torch.remainder(angle - 2 * torch.pi * 1.75 * radius / 5 - torch.pi * labels, 2 * torch.pi)
    assert torch.minimum(turned, 2 * torch.pi - turned).max() < 1e-3


def test_points_depend_on_their_number_and_split_seed_alone():
    few, many, other = points(train_size=20), points(train_size=40, batch_size=8, seed=5), points(split_seed=1)
    assert torch.equal(rows(few, "train")[0], rows(many, "train")[0][:20])
    assert not torch.equal(rows(few, "train")[0], rows(other, "train")[0][:20])
    assert few.fingerprint != many.fingerprint and few.fingerprint == points(train_size=20).fingerprint


def test_a_fifth_of_the_points_of_a_file_is_held_out_twice(tmp_path):
    data = own(tmp_path, LINE)
    assert data.sizes() == {"train": 8, "val": 2, "test": 2} and data.classes.names == ("blue", "red")
    places = torch.cat([rows(data, split)[0] for split in ("train", "val", "test")])
    assert sorted(places[:, 0].tolist()) == [n / 2 - 3 for n in range(12)]
    wanted = rows(data, "train")[0][:, 0] >= 0
    assert torch.equal(rows(data, "train")[1] == 0, wanted)
    assert data.text("val", 0).startswith("(") and data.encode([[1, 2]])[0].tolist() == [[[1, 2]]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "x, y and class"),
        ("a,b,c\n" + LINE.partition("\n")[2], "in its first line"),
        (LINE + "1,2\n", "cannot be read as points"),
        (LINE + "1,two,red\n", "cannot be read as points"),
        (LINE + "1,nan,red\n", "outside the square"),
        (LINE + "7,0,red\n", "outside the square"),
        ("x,y,class\n1,2,a\n", "has 1 points"),
        (LINE.replace("blue", "red"), "has 1 classes"),
    ],
)
def test_a_file_that_has_no_such_points_is_refused(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        own(tmp_path, text)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "moons"},
        {"kind": "own"},
        {"path": "x.csv"},
        {"classes": 9},
        {"classes": 1},
        {"kind": "xor", "classes": 3},
        {"noise": -1},
        {"train_size": 0},
        {"train_size": 3},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match=r"dataset\."):
        points(**options)


def test_what_is_no_point_is_refused():
    with pytest.raises(ConfigError, match="two numbers"):
        points().encode(["there"])


def test_the_grid_goes_by_rows_from_the_upper_left():
    assert grid(2).tolist() == [[[-3, 3]], [[3, 3]], [[-3, -3]], [[3, -3]]]


def test_the_plane_is_pale_where_the_network_is_unsure():
    even, sure = plane_colours(torch.tensor([[0.5, 0.5], [0.0, 1.0]])).astype(int)
    assert (even > 220).all() and abs(sure - COLOURS[1]).max() < 110 and sure.sum() < even.sum()


def test_an_mlp_learns_the_spiral_and_shows_its_boundary(tmp_path):
    run = train("model=mlp", "dataset=points", "model.hidden=[64,32]", f"output_dir={tmp_path}", "logger=none").run
    assert run.summary()["metrics"]["test/accuracy"] >= 0.95
    names = {path.name for path in (run.folder / "pictures").iterdir()}
    assert "test_boundary.png" in names and any(name.startswith("boundary_") for name in names)
