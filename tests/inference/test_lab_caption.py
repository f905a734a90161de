"""The lab's room of text for captioners: the words for a picture, and where in it each of them comes from."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from epochal.data.batching import BatchIndices
from epochal.inference.lab.picture import with_rows
from epochal.inference.notebook import load
from helpers.labs import Client, id_of, served_lab
from helpers.samples import album
from helpers.training import train

SMALL = ("model=captioner", "model.embed_dim=16", "model.stages=2", "logger=none", "duration=3steps")
STRIPS = ("dataset=digit_captions", "dataset.source=digits", "dataset.train_size=64", "dataset.validation=16")
STRIPS += ("dataset.test=40", "dataset.length=3")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Run folders of two captioners: of strips of digits, and of colour images with two captions each."""
    folder = tmp_path_factory.mktemp("outputs")
    album(folder / "album", listed="metadata.csv")
    colours = ("dataset=captions", f"dataset.path={folder / 'album'}", "dataset.image_size=8", "dataset.batch_size=8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
        where = f"output_dir={folder}"
        yield {
            "digits": train(*SMALL, *STRIPS, "dataset.batch_size=8", where).run.folder,
            "album": train(*SMALL, *colours, "model.decoder=transformer", where).run.folder,
        }


@pytest.fixture(scope="module")
def lab(outputs: dict[str, Path]) -> Iterator[Client]:
    with served_lab(outputs["digits"].parents[1]) as client:
        yield client


def decoded(packed: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), np.uint8).reshape(shape)


@pytest.mark.parametrize(("kind", "shape"), [("digits", [1, 8, 24]), ("album", [3, 8, 8])])
def test_a_captioner_is_in_the_room_of_text(lab, outputs, kind, shape):
    run = id_of(outputs[kind])
    assert {found["id"]: found["rooms"] for found in lab.get("/api/runs")["runs"]}[run] == ["write"]
    found = lab.get(f"/api/write/{run}")
    assert found["kind"] == "caption" and found["shape"] == shape and not found["bright"]


@pytest.mark.parametrize(("kind", "shape"), [("digits", (1, 8, 24)), ("album", (3, 8, 8))])
def test_the_caption_of_a_test_picture_is_what_the_network_generates(lab, outputs, kind, shape):
    loaded = load(outputs[kind])
    found = lab.post(f"/api/write/{id_of(outputs[kind])}/caption", {"picture": {"test": 1}})
    pixels = torch.from_numpy(decoded(found["seen"], shape).copy())
    task = loaded.config.task
    options = {"beam_size": task.beam_size, "length_penalty": task.length_penalty}
    inputs = loaded.data.normalise(pixels[None])
    ids = loaded.model.generate(inputs, max_length=loaded.specs[1].length, **options)[0]
    assert found["text"] == loaded.data.target_tokenizer.decode(ids.tolist())
    assert len(found["attention"]) == len(found["tokens"]) >= 1
    for packed in found["attention"]:
        assert decoded(packed, shape[1:]).max() == 255


def test_the_attention_on_the_page_is_the_networks(lab, outputs):
    loaded = load(outputs["digits"])
    found = lab.post(f"/api/write/{id_of(outputs['digits'])}/caption", {"picture": {"test": 0}})
    inputs = loaded.data.normalise(torch.from_numpy(decoded(found["seen"], (1, 1, 8, 24)).copy()))
    begin = torch.tensor([[2]])  # BEGIN: the first token is written after it
    weights = loaded.model.attention(inputs, begin)[0, 0]
    shown = decoded(found["attention"][0], (8, 24))
    rows, columns = (side // count for side, count in zip(shown.shape, weights.shape))
    middles = shown.reshape(weights.shape[0], rows, weights.shape[1], columns)[:, rows // 2, :, columns // 2]
    assert middles.argmax() == int(weights.argmax())


def test_the_shelf_has_each_test_picture_once_with_all_its_captions(lab, outputs):
    run, data = id_of(outputs["album"]), with_rows(load(outputs["album"]))
    _, count = data.rows("test")
    found = lab.post(f"/api/write/{run}/shelf", {"start": 0})
    assert found["count"] == len(found["numbers"]) == count // 2  # each image has two captions
    shown = decoded(found["pixels"], (found["count"], 3, 8, 8))
    assert len({picture.tobytes() for picture in shown}) == found["count"]
    for number in found["numbers"]:
        answer = lab.post(f"/api/write/{run}/caption", {"picture": {"test": number}})
        brightness = int(shown[number].max())
        assert len(answer["truth"]) == 2 and all(str(brightness) in text.split() for text in answer["truth"])


def test_the_shelf_of_strips_goes_on(lab, outputs):
    run = id_of(outputs["digits"])
    found = lab.post(f"/api/write/{run}/shelf", {"start": 30})
    assert found["numbers"] == list(range(30, 40)) and found["count"] == 40 and found["shape"] == [1, 8, 24]
    rows, _ = with_rows(load(outputs["digits"])).rows("test")
    expected = rows[BatchIndices(torch.arange(30, 40), 0)].inputs.numpy()
    assert (decoded(found["pixels"], (10, 1, 8, 24)) == expected).all()
    assert lab.post(f"/api/write/{run}/shelf", {"start": 10**6})["numbers"] == []


def test_files_and_drawings_are_read(lab, outputs):
    run, content = id_of(outputs["album"]), io.BytesIO()
    Image.new("RGB", (30, 20), (200, 100, 0)).save(content, "PNG")
    _, found, _ = lab.ask("POST", f"/api/write/{run}/file", content.getvalue())
    pixels = decoded(found["pixels"], (3, 8, 8))
    assert (pixels[0] == 200).all() and (pixels[1] == 100).all()
    answer = lab.post(f"/api/write/{run}/caption", {"picture": {"pixels": found["pixels"]}})
    assert answer["seen"] == found["pixels"] and answer["truth"] is None
    ink = np.zeros((16, 48), np.uint8)
    ink[:, 40:] = 255  # a drawing is not centred: a place in it means something
    drawn = {"drawn": base64.b64encode(ink.tobytes()).decode(), "width": 48}
    seen = decoded(lab.post(f"/api/write/{id_of(outputs['digits'])}/caption", {"picture": drawn})["seen"], (8, 24))
    assert (seen[:, 21:] == 255).all() and (seen[:, :19] == 0).all()


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({}, "picture must be an object"),
        ({"picture": {"test": 40}}, "test must be a number from 0 to 39"),
        ({"picture": {"pixels": "AAAA"}}, "pixels must be the bytes of a picture"),
        ({"picture": {"drawn": "?", "width": 5}}, "drawn must be the bytes of a picture"),
        ({"picture": {"width": 5}}, "drawn must be a text"),
    ],
)
def test_what_is_no_picture_is_a_sentence(lab, outputs, sent, says):
    assert says in lab.refused(f"/api/write/{id_of(outputs['digits'])}/caption", sent)


def test_a_file_that_is_no_picture_is_a_sentence(lab, outputs):
    status, found, _ = lab.ask("POST", f"/api/write/{id_of(outputs['digits'])}/file", b"no picture")
    assert status == 400 and "no picture that can be read" in found["error"]
