"""The lab's room of generators: sliders that change the picture most, walks, films."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from epochal.inference.lab import generate
from epochal.inference.notebook import load
from helpers.labs import Client, id_of, served_lab
from helpers.training import train

SMALL = ("model=gan", "model.width=4", "dataset=digits", "duration=2epochs", "dataset.train_size=64", "logger=none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("outputs")
    where = (f"output_dir={folder}", *SMALL)
    return {"gan": train(*where).run.folder, "classes": train(*where, "model.conditional=true").run.folder}


@pytest.fixture(scope="module")
def lab(runs: dict[str, Path]) -> Iterator[Client]:
    with served_lab(runs["gan"].parents[1]) as client:
        yield client


def pixels(address: str) -> np.ndarray:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def test_a_seed_is_a_picture_and_a_slider_moves_it(lab, runs):
    ask = f"/api/generate/{id_of(runs['gan'])}/sample"
    first, again, other = (lab.post(ask, {"seed": seed}) for seed in (1, 1, 2))
    assert first["image"] == again["image"] != other["image"]
    assert pixels(first["image"]).shape == (224, 224) and 0 < first["score"] < 1
    assert first["sliders"] == 8 and first["classes"] == []
    assert lab.post(ask, {"seed": 1, "sliders": [0, 0, 0]})["image"] == first["image"]
    assert lab.post(ask, {"seed": 1, "sliders": [3]})["image"] != first["image"]


def test_the_directions_are_orthogonal_and_the_first_changes_most(runs):
    model = load(runs["gan"]).model
    noise = generate.noise_of(model, 3)
    with torch.no_grad():
        found = generate.directions(model, noise, ())
        assert torch.allclose(found @ found.T, torch.eye(8), atol=1e-4)
        changes = [(model.generator(noise + 0.1 * row) - model.generator(noise)).norm().item() for row in found]
        chance = torch.nn.functional.normalize(torch.randn(20, noise.shape[1]), dim=1)
        others = [(model.generator(noise + 0.1 * row) - model.generator(noise)).norm().item() for row in chance]
    assert changes[0] == max(changes) > max(others) and changes[7] < changes[0]


def test_a_walk_begins_and_ends_with_samples(lab, runs):
    run = f"/api/generate/{id_of(runs['gan'])}"
    images = lab.post(f"{run}/walk", {"seed": 4, "to": 5})["images"]
    assert len(images) == generate.STEPS
    for end, seed in ((images[0], 4), (images[-1], 5)):
        assert np.abs(pixels(end) - pixels(lab.post(f"{run}/sample", {"seed": seed})["image"])).max() <= 1
    assert len(set(lab.post(f"{run}/walk", {"seed": 4, "to": 4})["images"])) == 1


def test_a_network_with_classes_draws_the_one_that_is_asked_for(lab, runs):
    ask = f"/api/generate/{id_of(runs['classes'])}/sample"
    found = [lab.post(ask, {"seed": 1, "label": label}) for label in (0, 9)]
    assert found[0]["classes"] == list("0123456789") and found[0]["image"] != found[1]["image"]
    for wrong in (10, -1, "0", True, 1.5):
        assert "label must be a whole number from 0 to 9" in lab.refused(ask, {"seed": 1, "label": wrong})


def test_the_film_has_the_samples_of_each_validation(lab, runs):
    run = f"/api/generate/{id_of(runs['gan'])}/film"
    steps = lab.get(run)["steps"]
    assert len(steps) >= 2 and steps == sorted(steps)
    status, data, headers = lab.ask("GET", f"{run}/0", token=False)
    assert status == 200 and headers["Content-Type"] == "image/png" and data[:4] == b"\x89PNG"
    assert lab.ask("GET", f"{run}/{len(steps)}")[0] == 404


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("sample", {"seed": -1}, "seed must be a number from 0"),
        ("sample", {"seed": 1.5}, "seed must be a whole number"),
        ("sample", {"seed": 1, "sliders": [0] * 9}, "at most 8 numbers"),
        ("sample", {"seed": 1, "sliders": ["0"]}, "a slider must be a number from -6 to 6"),
        ("sample", {"seed": 1, "sliders": [7]}, "a slider must be a number from -6 to 6"),
        ("sample", {"seed": 1, "sliders": "0"}, "sliders must be a list"),
        ("walk", {"seed": 1, "to": None}, "to must be a number"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(lab, runs, path, sent, says):
    assert says in lab.refused(f"/api/generate/{id_of(runs['gan'])}/{path}", sent)
