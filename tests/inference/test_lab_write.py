"""The lab's room of text: next tokens, what happens inside, translations, and which words decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from epochal.inference.lab import write
from epochal.inference.notebook import load
from epochal.inference.writing import Settings
from helpers.labs import Client, id_of, served_lab
from helpers.samples import text_file
from helpers.training import train

SMALL = ("logger=none", "duration=3steps", "dataset.batch_size=8")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Run folders of networks that read text, by what they do."""
    folder = tmp_path_factory.mktemp("outputs")
    text = text_file(folder / "text.txt")
    gpt = ("model=gpt", "model.variant=nano", "model.embed_dim=16", "model.num_heads=2", "model.depth=3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
        data = ("dataset=text", f"dataset.path={text}", "dataset.context_length=16")
        where = f"output_dir={folder}"
        yield {
            "gpt": train(*gpt, *data, where, *SMALL).run.folder,
            "rnn": train("model=char_rnn", *data, "dataset.tokenizer=character", where, *SMALL).run.folder,
            "digits": train("model=mlp", where, *SMALL).run.folder,
            "seq2seq": train("model=seq2seq_attention", "dataset=reverse", where, *SMALL).run.folder,
        }


@pytest.fixture(scope="module")
def lab(outputs: dict[str, Path]) -> Iterator[Client]:
    with served_lab(outputs["gpt"].parents[1]) as client:
        yield client


def test_each_run_has_its_rooms(lab, outputs):
    rooms = {run["model"]: run["rooms"] for run in lab.get("/api/runs")["runs"]}
    assert rooms["gpt"] == rooms["char_rnn"] == ["write"] and rooms["mlp"] == ["see"]


@pytest.mark.parametrize("kind", ["gpt", "rnn"])
def test_the_next_tokens_are_those_of_the_network(lab, outputs, kind):
    loaded = load(outputs[kind])
    text = "the "
    found = lab.post(f"/api/write/{id_of(outputs[kind])}/next", {"text": text})
    with torch.no_grad():
        logits = loaded.model(torch.tensor(loaded.tokenizer.encode(text).tolist())[None])
        logits = (logits[0] if isinstance(logits, tuple) else logits)[0, -1]
    forbidden = write.writer_of(loaded).forbidden
    expected = (
        logits.index_fill(0, torch.tensor(forbidden), float("-inf")).softmax(-1) if forbidden else logits.softmax(-1)
    )
    for token in found["next"]:
        assert token["probability"] == pytest.approx(expected[token["id"]].item(), abs=1e-5)
        assert token["drawn"] == token["probability"]
    assert [token["probability"] for token in found["next"]] == sorted(
        (t["probability"] for t in found["next"]), reverse=True
    )
    assert "".join(found["tokens"]) == "the␣" and 0 < found["entropy"] < 10


def test_attention_sums_to_one_and_the_last_layers_say_is_the_networks(lab, outputs):
    found = lab.post(f"/api/write/{id_of(outputs['gpt'])}/next", {"text": "the dog"})
    assert len(found["attention"]) == 3 and all(len(layer) == 2 for layer in found["attention"])
    assert all(
        sum(head) == pytest.approx(1, abs=1e-3) and len(head) == 7 for layer in found["attention"] for head in layer
    )
    token, probability = found["lens"][-1][0]
    assert token == found["next"][0]["shown"] and probability == pytest.approx(
        found["next"][0]["probability"], abs=1e-4
    )
    assert not load(outputs["gpt"]).model.blocks[0]._forward_hooks


def test_what_is_drawn_follows_the_settings(lab, outputs):
    ask = f"/api/write/{id_of(outputs['gpt'])}/next"
    greedy = lab.post(ask, {"text": "a", "temperature": 0})["next"]
    assert [token["drawn"] for token in greedy] == [1.0, *[0.0] * (len(greedy) - 1)]
    two = lab.post(ask, {"text": "a", "top_k": 2})["next"]
    assert sum(token["drawn"] > 0 for token in two) == 2 and sum(token["drawn"] for token in two) == pytest.approx(1)
    nucleus = lab.post(ask, {"text": "a", "top_p": two[0]["probability"] / 2})["next"]
    assert nucleus[0]["drawn"] == pytest.approx(1)


def test_a_text_longer_than_the_context_is_read_from_its_end(lab, outputs):
    ask = f"/api/write/{id_of(outputs['gpt'])}/next"
    long, short = "the dog sees the man " * 20, ("the dog sees the man " * 20)[-16:]
    assert lab.post(ask, {"text": long})["next"] == lab.post(ask, {"text": short})["next"]


def test_writing_streams_the_tokens_of_the_writer(lab, outputs):
    run = id_of(outputs["gpt"])
    status, text, _ = lab.ask("POST", f"/api/write/{run}/go", {"text": "the ", "length": 9, "seed": 5})
    pieces = [json.loads(line) for line in text.splitlines()]
    assert status == 200 and len(pieces) == 9 and pieces[-1]["finish"] == "length"
    writer = write.writer_of(load(outputs["gpt"]))
    expected = [piece.text for piece in writer.write(writer.text_prompt("the "), Settings(length=9, seed=5))]
    assert [piece["text"] for piece in pieces] == expected
    assert all(len(piece["alternatives"]) == 5 for piece in pieces)


def test_a_translation_shows_where_it_looks(lab, outputs):
    run = id_of(outputs["seq2seq"])
    reads = load(outputs["seq2seq"]).tokenizer
    words = reads.decode([len(reads) - 1, len(reads) - 2, len(reads) - 3])
    found = lab.post(f"/api/write/{run}/translate", {"text": words})
    assert len(found["source"]) == 4  # END is read too
    assert len(found["attention"]) == len(found["target"])
    assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in found["attention"])


@pytest.mark.parametrize(
    ("kind", "path", "sent", "says"),
    [
        ("gpt", "next", {"text": ""}, "The prompt is empty"),
        ("rnn", "next", {"text": "语"}, "The vocabulary lacks these characters"),
        ("gpt", "next", {"text": "a" * 30_000}, "at most 20,000"),
        ("gpt", "next", {"text": 3}, "text must be a text"),
        ("gpt", "next", {"text": "a", "temperature": -1}, "temperature must be a number from 0 to 100"),
        ("gpt", "next", {"text": "a", "temperature": "1"}, "temperature must be a number"),
        ("gpt", "next", {"text": "a", "top_p": 2}, "top_p must be a number from 0 to 1"),
        ("gpt", "next", {"text": "a", "top_k": 1.5}, "top_k must be a whole number"),
        ("gpt", "go", {"text": "a", "length": 10**9}, "length must be a number from 1 to 500"),
        ("gpt", "translate", {"text": "a"}, "translates nothing"),
        ("gpt", "classify", {"text": "a"}, "classifies no text"),
        ("gpt", "caption", {"picture": {"test": 0}}, "does not write captions"),
        ("digits", "next", {"text": "a"}, "neither reads text"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(lab, outputs, kind, path, sent, says):
    assert says in lab.refused(f"/api/write/{id_of(outputs[kind])}/{path}", sent)


@pytest.mark.parametrize("messages", [None, [], [1], [{"role": "user"}], [{"role": "user", "content": "x"}] * 300])
def test_what_is_no_conversation_is_a_sentence(lab, outputs, messages):
    run = id_of(outputs["gpt"])
    assert lab.refused(f"/api/chat/{run}", {"messages": messages}).endswith(".")


def test_a_network_that_only_goes_on_with_a_text_does_not_chat(lab, outputs):
    sent = {"messages": [{"role": "user", "content": "hello"}]}
    assert "was not trained on conversations" in lab.refused(f"/api/chat/{id_of(outputs['gpt'])}", sent)
