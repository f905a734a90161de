"""The lab's room of images: probabilities, maps, heat maps, units and their fields, drawings, files."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from epochal.inference.lab import see_compute
from epochal.inference.notebook import load
from epochal.tasks.visuals.explain import feature_maps
from helpers.labs import Client, id_of, served_lab
from helpers.training import train

SHORT = ("dataset=digits", "duration=2steps", "logger=none", "dataset.train_size=256", "dataset.batch_size=32")
NETWORKS = {
    "cnn": ("model=cnn",),
    "resnet": ("model=resnet", "model.depth=8"),
    "vit": ("model=vit", "model.variant=Mini", "model.depth=2", "model.patch_size=2"),
    "mlp": ("model=mlp", "model.hidden=[32,16]"),
}
PICTURE = {"picture": {"test": 3}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("outputs")
    return {name: train(*model, *SHORT, f"output_dir={folder}").run.folder for name, model in NETWORKS.items()}


@pytest.fixture(scope="module")
def lab(runs: dict[str, Path]) -> Iterator[Client]:
    with served_lab(runs["cnn"].parents[1]) as client:
        yield client


def path(runs: dict[str, Path], name: str, what: str) -> str:
    return f"/api/see/{id_of(runs[name])}/{what}"


def decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).astype(float)


def encoded(pixels: np.ndarray) -> str:
    return base64.b64encode(pixels.astype(np.uint8).tobytes()).decode()


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG file of so many pixels, and no pixels."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(b"0")) + part(b"IEND", b"")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_probabilities_are_those_of_predict(lab, runs, name):
    found = lab.post(path(runs, name, "look"), PICTURE)
    loaded = load(runs[name])
    pixels = decoded(found["pixels"]).reshape(8, 8).astype(np.uint8)
    assert found["probabilities"] == pytest.approx(loaded.predict(pixels).probabilities[0].tolist(), abs=1e-5)
    assert found["best"] == int(np.argmax(found["probabilities"])) and found["step"] == loaded.step > 0
    again = lab.post(path(runs, name, "look"), {"picture": {"pixels": found["pixels"]}})
    assert again["probabilities"] == found["probabilities"] and "truth" not in again
    assert "layers" not in lab.post(path(runs, name, "look"), {**PICTURE, "layers": False})


def test_every_kind_of_network_has_layers_and_a_heat_map_where_it_can(lab, runs):
    found = {name: lab.post(path(runs, name, "look"), PICTURE) for name in NETWORKS}
    shapes = {name: [layer["shape"] for layer in one["layers"]] for name, one in found.items()}
    assert shapes["cnn"] == [[32, 8, 8], [64, 4, 4]]
    assert shapes["resnet"] == [[16, 8, 8], [16, 8, 8], [32, 4, 4], [64, 2, 2]]
    assert shapes["vit"] == [[96, 4, 4]] * 3 and shapes["mlp"] == [[32, 1, 1], [16, 1, 1]]
    assert [block["shape"] for block in found["vit"]["attention"]] == [[4, 4, 4]] * 2
    assert all(found[name]["attention"] == [] for name in ("cnn", "resnet", "mlp"))
    assert found["vit"]["heat"]["title"] == "Attention rollout" and found["vit"]["heat"]["class"] is None
    assert found["mlp"]["heat"] is None and found["cnn"]["heat"]["class"] == found["cnn"]["best"]
    other = lab.post(path(runs, "cnn", "look"), {**PICTURE, "heat": (found["cnn"]["best"] + 1) % 10})
    assert other["heat"]["values"] != found["cnn"]["heat"]["values"]


def test_maps_are_the_network_s_on_one_scale(lab, runs):
    loaded = load(runs["cnn"])
    found = lab.post(path(runs, "cnn", "look"), {**PICTURE, "maps": 5})["layers"][0]
    pixels = see_compute.pixels_of(loaded, PICTURE["picture"])
    stages = loaded.model.stages()
    maps, _ = feature_maps(loaded.model, stages, loaded.data.normalise(pixels[None]))
    shown = maps[found["name"]][0, found["shown"]].numpy()
    assert len(found["shown"]) == 5 and found["shown"] == sorted(found["shown"]) and not found["signed"]
    drawn = decoded(found["values"]).reshape(shown.shape)
    inside = (drawn > 20) & (drawn < 255)
    assert np.ptp(shown[inside] / drawn[inside]) / np.median(shown[inside] / drawn[inside]) < 0.06
    assert found["largest"] == pytest.approx(shown.max((1, 2)).tolist(), abs=1e-3)


def test_a_unit_depends_on_its_field_alone(lab, runs):
    loaded = load(runs["cnn"])
    shown = lab.post(path(runs, "cnn", "look"), PICTURE)["layers"][0]
    channel = shown["shown"][int(np.argmax(shown["largest"]))]
    asked = {**PICTURE, "layer": shown["name"], "channel": channel, "place": [3, 4]}
    found = lab.post(path(runs, "cnn", "unit"), asked)
    largest = lab.post(path(runs, "cnn", "unit"), {**asked, "place": None})
    assert largest["value"] == pytest.approx(max(shown["largest"]), abs=1e-3)
    top, left, height, width = largest["field"]
    assert height <= 3 and width <= 3 and top <= largest["place"][0] < top + height
    pixels = see_compute.pixels_of(loaded, PICTURE["picture"])
    outside = np.ones((8, 8), bool)
    outside[top : top + height, left : left + width] = False
    for where, same in ((outside, True), (~outside, False)):
        changed = np.where(where, 255 - pixels[0].numpy(), pixels[0].numpy())
        again = lab.post(
            path(runs, "cnn", "unit"),
            {**asked, "picture": {"pixels": encoded(changed)}, "place": largest["place"]},
        )
        assert (again["value"] == pytest.approx(largest["value"], abs=1e-5)) is same
    assert found["place"] == [3, 4] and found["kernel"]["shape"] == [1, 3, 3]
    weight = loaded.model.get_submodule(found["kernel"]["name"]).weight[channel, 0].detach()
    expected = 127.5 * (weight / weight.abs().max() + 1)
    assert decoded(found["kernel"]["values"]) == pytest.approx(expected.flatten().numpy(), abs=0.51)


@pytest.mark.parametrize(("name", "kernel"), [("resnet", [16, 3, 3]), ("vit", [384, 1, 1]), ("mlp", [1, 8, 8])])
def test_the_weights_behind_a_unit(lab, runs, name, kernel):
    layer = {"resnet": "stage 1", "vit": "block 2", "mlp": "layer 1"}[name]
    found = lab.post(path(runs, name, "unit"), {**PICTURE, "layer": layer, "channel": 2})
    assert found["kernel"]["shape"] == kernel and len(found["kernel"]["shown"]) == min(kernel[0], 64)
    if found["patch"] is not None:
        assert all(0 <= side <= 8 for side in found["patch"])


def test_filters_and_test_pictures(lab, runs):
    about = lab.post(path(runs, "cnn", "about"))
    assert about["classes"] == list("0123456789") and about["shape"] == [1, 8, 8] and not about["bright"]
    assert about["filters"]["shape"] == [32, 1, 3, 3]
    shelf = lab.post(path(runs, "cnn", "shelf"), {"start": 30})
    assert shelf["numbers"] == list(range(30, 60)) and shelf["shape"] == [1, 8, 8]
    look = lab.post(path(runs, "cnn", "look"), {"picture": {"test": 31}})
    assert look["truth"] == shelf["labels"][1]
    assert (decoded(shelf["pixels"])[64:128] == decoded(look["pixels"])).all()
    assert lab.post(path(runs, "cnn", "shelf"), {"start": 10**6})["numbers"] == []


def test_a_file_is_the_picture_that_is_in_it(lab, runs):
    look = lab.post(path(runs, "cnn", "look"), PICTURE)
    file = io.BytesIO()
    Image.fromarray(decoded(look["pixels"]).reshape(8, 8).astype(np.uint8)).save(file, "PNG")
    status, found, _ = lab.ask("POST", path(runs, "cnn", "file"), file.getvalue())
    assert status == 200 and found["pixels"] == look["pixels"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (png(20_000, 20_000), "pixels that an image may have"),
        (png(10_000, 10_000), "10,000 x 10,000 pixels; at most 40,000,000"),
        (png(8, 8), "no picture that can be read"),
        (b"<svg onload=alert(1)>", "no picture that can be read"),
        (b"", "no picture that can be read"),
    ],
)
def test_a_file_that_is_no_picture_or_too_large_is_a_sentence(lab, runs, content, says):
    status, found, _ = lab.ask("POST", path(runs, "cnn", "file"), content)
    assert status == 400 and says in found["error"]


@pytest.mark.parametrize(
    ("what", "sent", "says"),
    [
        ("look", {}, "picture must be an object"),
        ("look", {"picture": {}}, "width must be a number"),
        ("look", {"picture": {"test": -1}}, "test must be a number from 0"),
        ("look", {"picture": {"test": 10**7}}, "test must be a number from 0"),
        ("look", {"picture": {"pixels": "AAAA"}}, "pixels must be the bytes of a picture"),
        ("look", {"picture": {"pixels": "é"}}, "pixels must be the bytes of a picture"),
        ("look", {"picture": {"drawn": "AAAA", "width": 513}}, "width must be a number from 1 to 512"),
        ("look", {"picture": {"drawn": "AAAA", "width": 2}}, "drawn must be the bytes of a picture"),
        ("look", {**PICTURE, "maps": 10_000}, "maps must be a number from 1 to 512"),
        ("look", {**PICTURE, "heat": 10}, "heat must be a number from 0 to 9"),
        ("unit", {**PICTURE, "layer": "no", "channel": 0}, "no layer of the name 'no'"),
        ("unit", {**PICTURE, "layer": "convolution 1", "channel": 32}, "maps from 0 to 31"),
        ("unit", {**PICTURE, "layer": "convolution 1", "channel": 0, "place": [8, 0]}, "8 x 8 places"),
        ("unit", {**PICTURE, "layer": "convolution 1", "channel": 0, "place": [0]}, "a row and a column"),
        ("shelf", {"start": -1}, "start must be a number from 0"),
    ],
)
def test_a_wrong_request_is_a_sentence(lab, runs, what, sent, says):
    assert says in lab.refused(path(runs, "cnn", what), sent)


def test_an_empty_drawing_is_an_answer(lab, runs):
    found = lab.post(path(runs, "cnn", "look"), {"picture": {"drawn": "", "width": 4}})
    assert sum(found["probabilities"]) == pytest.approx(1)


def test_new_weights_are_used_and_the_stamp_tells_of_them(runs, tmp_path):
    folder = tmp_path / "outputs" / "runs" / "growing"
    shutil.copytree(runs["cnn"], folder)
    with served_lab(tmp_path / "outputs") as lab:
        run = f"/api/see/{id_of(folder)}"
        before, stamp = lab.post(f"{run}/look", PICTURE), lab.get(f"{run}/stamp")["stamp"]
        best = folder / "checkpoints" / "best.ckpt"
        content = torch.load(best, weights_only=True)
        content["global_step"] += 7
        for value in content["state_dict"].values():
            value.mul_(1.5)
        torch.save(content, best)
        assert lab.get(f"{run}/stamp")["stamp"] != stamp
        after = lab.post(f"{run}/look", PICTURE)
        assert after["step"] == before["step"] + 7 and after["probabilities"] != before["probabilities"]
