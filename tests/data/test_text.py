"""Text: tokenised once, split without overlap, read as windows whose targets are the inputs shifted by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import csv

from epochal.core.errors import ConfigError
from epochal.core.specs import END, IGNORED
from epochal.data import PythonStdlib, TextData
from epochal.data.batching import BatchIndices
from epochal.data.tokenizers import REPLACEMENT, to_huggingface
from helpers.samples import text_file, text_parquet


def prepared(path: Path | str, **options: Any) -> TextData:
    data = TextData(name="text", path=str(path), **{"context_length": 16, "batch_size": 2, **options})
    data.prepare()
    return data


def decoded(data: TextData, split: str) -> str:
    return data.tokenizer.decode(data._tokens[split].tolist())


# -- splits ---------------------------------------------------------------------------------------------------------


def test_the_end_of_the_text_is_held_out(tmp_path):
    file = text_file(tmp_path / "text.txt")
    data = prepared(file, tokenizer="character", validation=0.1, test=500)
    text, parts = file.read_text(), [decoded(data, split) for split in ("train", "val", "test")]
    assert "".join(parts) == text
    assert len(parts[2]) == 500 and len(parts[1]) == round(0.1 * (len(text) - 501))


def test_a_set_with_splits_of_its_own_keeps_them(tmp_path):
    for name in ("train", "validation", "test"):
        pq.write_table(pa.table({"text": [f"{name} line {i}" for i in range(9)]}), tmp_path / f"{name}.parquet")
    data = prepared(tmp_path, tokenizer="byte")
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        assert decoded(data, split) == "\n".join(f"{name} line {i}" for i in range(9))


def test_a_smaller_training_text_is_the_beginning_of_a_larger_one(tmp_path):
    file = text_file(tmp_path / "text.txt")
    whole, half, few = prepared(file), prepared(file, train_size=0.5), prepared(file, train_size=300)
    assert decoded(whole, "train").startswith(decoded(half, "train"))
    assert decoded(half, "train").startswith(decoded(few, "train")) and len(decoded(few, "train")) == 300
    assert len({decoded(data, split) for data in (whole, half, few) for split in ("val", "test")}) == 2


def test_the_vocabulary_is_that_of_the_training_text(tmp_path):
    (tmp_path / "text.txt").write_text("abc " * 500 + "xyz " * 10)
    data = prepared(tmp_path / "text.txt", tokenizer="character", test=40, validation=100)
    assert data.tokenizer.vocabulary == " abc"
    assert set(decoded(data, "test")) == {" ", REPLACEMENT}


def test_tokens_take_the_smallest_integers_that_hold_them(tmp_path):
    few, many = tmp_path / "few.txt", tmp_path / "many.txt"
    text_file(few)
    many.write_text("".join(map(chr, range(0x4E00, 0x5000))) * 10, encoding="utf-8")
    assert prepared(few, tokenizer="character")._tokens["train"].dtype == torch.uint8
    assert prepared(many, tokenizer="character")._tokens["train"].dtype == torch.uint16
    assert decoded(prepared(many, tokenizer="character"), "train")[:3] == "一丁丂"


def test_another_set_can_be_read_with_this_ones_vocabulary(tmp_path):
    text_file(tmp_path / "own.txt")
    (tmp_path / "other.txt").write_text("THE QUICK brown fox € " * 100)
    own = prepared(tmp_path / "own.txt", tokenizer="character")
    other = TextData(name="text", path=str(tmp_path / "other.txt"), tokenizer="byte", context_length=16, batch_size=2)
    other.load_state(own.state())
    other.prepare()
    assert other.specs("text") == own.specs("text")
    unknown = REPLACEMENT
    assert decoded(other, "train").startswith(f"{3 * unknown} {5 * unknown} brown fox {unknown} {unknown}")
    assert other.characters_per_token["train"] == 1


def test_the_vocabulary_of_an_older_run_gives_the_same_ids(tmp_path):
    (tmp_path / "text.txt").write_text("abc€" * 500)
    data = TextData(name="text", path=str(tmp_path / "text.txt"), tokenizer="byte", context_length=16, batch_size=2)
    data.load_state({"tokenizer": "character", "vocabulary": "\nabc"})
    data.prepare()
    assert data._tokens["train"][:6].tolist() == [1, 2, 3, 1, 2, 3]  # what it does not know is left out
    assert data.characters_per_token["train"] == 1  # and flatters no bits per character
    assert data.bytes_per_token["train"] == pytest.approx(1.5, rel=0.01)
    assert data.state() == {"tokenizer": "character", "vocabulary": "\nabc", "reserved": 0}


def test_bits_per_byte_have_the_bytes_per_token(tmp_path):
    (tmp_path / "text.txt").write_text("aä€🙂" * 500, encoding="utf-8")
    for tokenizer, bytes_per_token in (("character", 2.5), ("byte", 1.0)):
        data = prepared(tmp_path / "text.txt", tokenizer=tokenizer)
        assert data.bytes_per_token == pytest.approx(dict.fromkeys(("train", "val", "test"), bytes_per_token), rel=0.03)


def test_rows_that_end_their_lines_get_no_empty_ones(tmp_path):
    rows = [" = Title = \n", "", " One line . \n", " Another . \n"]  # as WikiText has them
    for name in ("train", "validation", "test"):
        pq.write_table(pa.table({"text": rows * 5}), tmp_path / f"{name}.parquet")
    data = prepared(tmp_path, tokenizer="byte")
    assert decoded(data, "val").startswith(" = Title = \n\n One line . \n Another . \n = Title")


# -- byte pairs -----------------------------------------------------------------------------------------------------


def test_byte_pairs_are_learned_from_train_and_keep_the_text(tmp_path):
    file = text_file(tmp_path / "text.txt", lines=400)
    data = prepared(file, tokenizer="bpe", vocab_size=300, validation=0.1, test=500)
    assert "".join(decoded(data, split) for split in ("train", "val", "test")) == file.read_text()
    assert data.specs("text")[0].vocab_size == len(data.tokenizer) == 300
    for split in ("train", "val", "test"):
        each = len(decoded(data, split)) / len(data._tokens[split])
        assert data.characters_per_token[split] == pytest.approx(each)
        assert each > 2


def test_byte_pairs_are_learned_once(tmp_path, monkeypatch):
    file = text_file(tmp_path / "text.txt", lines=400)
    first = prepared(file, tokenizer="bpe", vocab_size=300)
    monkeypatch.setattr("epochal.data.text.BytePairs.learn", lambda *_, **__: pytest.fail("learned again"))
    again = prepared(file, tokenizer="bpe", vocab_size=300)
    assert again.state() == first.state() and again.fingerprint == first.fingerprint


def test_another_set_is_tokenised_with_this_ones_byte_pairs(tmp_path):
    own = prepared(text_file(tmp_path / "own.txt", lines=400), tokenizer="bpe", vocab_size=300)
    (tmp_path / "other.txt").write_text("ÄÖÜ, not as over there €. " * 100)
    other = TextData(name="text", path=str(tmp_path / "other.txt"), context_length=16, batch_size=2)
    other.load_state(json.loads(json.dumps(own.state())))
    other.prepare()
    assert other.specs("text") == own.specs("text")
    assert decoded(other, "train").startswith("ÄÖÜ, not as over there €. ")


def test_a_vocabulary_without_room_for_a_pair(tmp_path):
    with pytest.raises(ConfigError, match=r"vocab_size=264 is too small for dataset.tokenizer=bpe: 264 are taken"):
        prepared(text_file(tmp_path / "text.txt"), tokenizer="bpe", vocab_size=264)


def test_a_word_is_no_token_of_running_text():
    with pytest.raises(ConfigError, match="tokenizer=word is no tokenizer. There are: character byte bpe"):
        TextData(name="text", path="x", tokenizer="word")


def test_a_text_is_read_with_a_tokenizer_json(tmp_path):
    own = prepared(text_file(tmp_path / "own.txt", lines=400), tokenizer="bpe", vocab_size=300)
    (tmp_path / "tokenizer.json").write_text(to_huggingface(own.tokenizer))
    data = prepared(tmp_path / "own.txt", tokenizer=str(tmp_path))
    assert data.kind == "huggingface" and data.tokenizer.ids == own.tokenizer.ids
    assert data._tokens["test"].tolist() == own._tokens["test"].tolist()
    assert data.bytes_per_token == own.bytes_per_token
    other = TextData(name="text", path=str(tmp_path / "own.txt"), context_length=16, batch_size=2)
    other.load_state(json.loads(json.dumps(data.state())))
    other.prepare()
    assert other.fingerprint == data.fingerprint


# -- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_targets_are_the_inputs_shifted_by_one(tmp_path, split):
    data = prepared(text_file(tmp_path / "text.txt"))
    rows, count = data.rows(split)
    text = data._tokens[split].tolist()
    for seed in (0, 5, 15):
        batch = rows[BatchIndices(torch.arange(count), seed)]
        assert batch.inputs.shape == batch.targets.shape == (count, 16)
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            assert any(text[at : at + 17] == [*inputs, targets[-1]] for at in range(len(text) - 16))


def test_validation_windows_cover_the_text_once_and_do_not_move(tmp_path):
    data = prepared(text_file(tmp_path / "text.txt"))
    rows, count = data.rows("val")
    batch = rows[BatchIndices(torch.arange(count), 3)]
    assert batch.inputs.flatten().tolist() == data._tokens["val"][: count * 16].tolist()
    assert len(data._tokens["val"]) - count * 16 <= 16
    assert torch.equal(batch.inputs, rows[BatchIndices(torch.arange(count), 99)].inputs)


def test_training_windows_are_cut_elsewhere_in_each_batch(tmp_path):
    data = prepared(text_file(tmp_path / "text.txt"))
    rows, count = data.rows("train")
    text = data._tokens["train"]
    beginnings = {tuple(rows[BatchIndices(torch.tensor([0]), seed)].inputs[0].tolist()) for seed in range(16)}
    assert beginnings == {tuple(text[at : at + 16].tolist()) for at in range(16)}
    last = rows[BatchIndices(torch.tensor([count - 1]), 15)]
    assert last.targets[0].tolist() == text[-16:].tolist()  # not beyond the end


def test_batches_fit_the_text_they_are_cut_from(tmp_path):
    data = prepared(text_file(tmp_path / "text.txt"), batch_size=4)
    assert len(data.train_dataloader()) == data.rows("train")[1] // 4 == data.batches_per_epoch()
    shapes = {tuple(batch.inputs.shape) for batch in data.train_dataloader()}
    assert shapes == {(4, 16)}


def test_a_text_too_short_for_one_batch(tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size=5000 is larger than the [\d,]+ training rows"):
        prepared(text_file(tmp_path / "text.txt"), batch_size=5000)


def test_the_column_with_the_text_is_guessed(tmp_path):
    assert decoded(prepared(text_parquet(tmp_path / "set.parquet")), "train").startswith(
        "line 0 of a little text\nline 1"
    )


# -- the standard library -------------------------------------------------------------------------------------------


def test_python_stdlib_is_this_pythons_code(monkeypatch, tmp_path):
    library = tmp_path / "lib"
    for i in range(200):
        file = library / ("json" if i % 2 else "test" if i == 0 else ".") / f"module_{i:03}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def function_{i:03}():\n    return {i}\n")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(library)})
    data = PythonStdlib(name="python_stdlib", path=None, tokenizer="byte", context_length=8, batch_size=2)
    data.prepare()
    parts = {split: decoded(data, split) for split in ("train", "val", "test")}
    assert all(part.startswith("def function_") for part in parts.values())
    assert "function_000" not in "".join(parts.values())  # its tests are left out
    for i in range(1, 200):
        assert sum(f"function_{i:03}(" in part for part in parts.values()) == 1  # in one part, and in one only
    assert parts["val"].count("def") == parts["test"].count("def") == 2


def test_python_stdlib_has_files():
    data = PythonStdlib(name="python_stdlib", path=None, tokenizer="byte")
    key, _ = data._reader()
    assert key["files"] > 300 and (Path(key["root"]) / "abc.py").is_file()


@pytest.mark.parametrize("tokenizer", ["character", "byte"])
def test_a_text_without_a_newline_has_a_prompt_in_its_vocabulary(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("好看" * 500, encoding="utf-8")
    data = TextData(name="text", path=str(tmp_path / "a.txt"), tokenizer=tokenizer, context_length=8, batch_size=2)
    data.prepare()
    assert data.prompt == ("好" if tokenizer == "character" else "\n")
    assert len(data.tokenizer.encode(data.prompt)) == 1


def test_a_prompt_that_the_text_cannot_begin_with_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("ab" * 500, encoding="utf-8")
    data = TextData(name="text", path=str(tmp_path / "a.txt"), tokenizer="character", prompt="abc", batch_size=2)
    with pytest.raises(ConfigError, match="lacks these characters of dataset.prompt: 'c'"):
        data.prepare()


# -- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_a_text_that_is_read_in_parts_has_the_same_tokens(tmp_path, monkeypatch, tokenizer, suffix):
    lines = [f"line {i} with ä, 漢字 and 🙂 {'x' * (i % 7)}" for i in range(400)]
    if suffix == ".txt":
        (tmp_path / "set.txt").write_text("\r\n".join(lines), encoding="utf-8")
    else:
        pq.write_table(
            pa.table({"text": [f"{line}\n" if n % 2 else line for n, line in enumerate(lines)]}),
            tmp_path / "set.parquet",
        )
    made = []
    for number, block in enumerate((2**20, 11)):
        monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / f"cache{number}"))
        monkeypatch.setattr("epochal.data.tables.BLOCK", block)
        monkeypatch.setattr("epochal.data.text.ROWS", block)
        made.append(prepared(tmp_path / f"set{suffix}", tokenizer=tokenizer, vocab_size=300))
    assert made[0].fingerprint == made[1].fingerprint and made[0].state() == made[1].state()
    text = "".join(decoded(made[1], split) for split in ("train", "val", "test"))
    assert text == "\n".join(lines) + ("\n" if suffix == ".parquet" else "")


# -- documents ----------------------------------------------------------------------------------------------------------


def split_at_end(data: TextData, split: str = "train") -> list[str]:
    """The documents of a split."""
    found: list[list[int]] = [[]]
    for token in data._tokens[split].tolist():
        found.append([]) if token == END else found[-1].append(token)
    return [data.tokenizer.decode(ids) for ids in found]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    for number in range(4):
        file = tmp_path / "books" / f"part{number % 2}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"book {number}\n" * 40)
    return tmp_path / "books"


@pytest.mark.parametrize("tokenizer", ["character", "byte", "bpe"])
def test_the_files_of_a_folder_are_documents_in_order(books, tokenizer):
    data = prepared(books, tokenizer=tokenizer, vocab_size=300, validation=50, test=50)
    found = split_at_end(data)
    assert [text[:7] for text in found] == ["book 0\n", "book 2\n", "book 1\n", "book 3\n"]
    assert (
        found[0] == "book 0\n" * 40
        and "".join(found[3:] + split_at_end(data, "val") + split_at_end(data, "test")) == "book 3\n" * 40
    )
    tokens = len(data._tokens["train"])
    assert data.bytes_per_token["train"] == pytest.approx(sum(map(len, found)) / tokens)


def test_documents_can_be_one_text(books):
    data = prepared(books, tokenizer="byte", documents=None, validation=50, test=50)
    assert len(split_at_end(data)) == 1 and "book 0\n\nbook 2" in split_at_end(data)[0]


def test_a_pattern_chooses_files(books):
    data = prepared(f"{books}/**/[13].txt", tokenizer="byte", validation=50, test=50)
    assert [text[:6] for text in split_at_end(data)] == ["book 1", "book 3"]
    with pytest.raises(ConfigError, match=r"dataset.path=.*\*.md matches no file"):
        prepared(f"{books}/*.md")


def test_a_folder_of_texts_has_the_splits_that_its_names_say(tmp_path):
    for name in ("train.txt", "valid.txt", "wiki.test.txt", "README.md", "LICENSE.txt", ".hidden"):
        (tmp_path / name).write_text(f"of {name}\n" * 20)
    data = prepared(tmp_path, tokenizer="byte")
    assert {split: decoded(data, split)[:8] for split in ("train", "val", "test")} == {
        "train": "of train",
        "val": "of valid",
        "test": "of wiki.",
    }


def test_a_text_that_belongs_to_no_split_is_not_left_out(tmp_path):
    for name in ("train.txt", "test.txt", "more.txt"):
        (tmp_path / name).write_text(f"of {name}\n" * 20)
    with pytest.raises(
        ConfigError, match=r"splits \(.*test.*train.*\).* more.txt belongs to none of them; name it as one"
    ):
        prepared(tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_pattern_takes_the_tables_that_it_matches_and_no_others(suffix, tmp_path):
    for name in ("a1", "a2", "b"):
        table = pa.table({"text": [f"{name} {i}" for i in range(50)]})
        file = tmp_path / f"{name}.{suffix}"
        pq.write_table(table, file) if suffix == "parquet" else csv.write_csv(table, file)
    data = prepared(tmp_path / f"a*.{suffix}", tokenizer="byte")
    assert "a1 0" in decoded(data, "train") and "b" not in "".join(decoded(data, s) for s in ("train", "val", "test"))


@pytest.mark.parametrize("prompt", [123, "", None])
def test_a_prompt_is_a_text(prompt):
    with pytest.raises(ConfigError, match="dataset.prompt=.* must be a text"):
        TextData(name="text", path="x", prompt=prompt)


def test_rows_are_documents_where_that_is_asked(tmp_path):
    pq.write_table(pa.table({"text": [f"row {i}\nline" for i in range(50)] + [""]}), tmp_path / "set.parquet")
    rows, one = (prepared(tmp_path / "set.parquet", tokenizer="byte", documents=d) for d in ("rows", "files"))
    assert split_at_end(rows)[:3] == ["row 0\nline", "row 1\nline", "row 2\nline"] and len(split_at_end(one)) == 1
    with pytest.raises(ConfigError, match="documents=books must be one of files, rows, or null"):
        prepared(tmp_path / "set.parquet", documents="books")


def test_with_the_vocabulary_of_an_older_run_documents_have_a_newline_between(books):
    data = TextData(name="text", path=str(books), context_length=16, batch_size=2, validation=50, test=50)
    data.load_state({"tokenizer": "byte", "vocabulary": ""})
    data.prepare()
    assert decoded(data, "train").startswith("book 0\n" * 40 + "\nbook 2\n")


def test_an_empty_folder_of_texts_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("  \n")
    with pytest.raises(ConfigError, match="there is nothing to learn from"):
        prepared(tmp_path)


def test_windows_that_overlap_ask_for_each_token_once(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("abcdefghij" * 40)
    data = TextData(name="t", path=str(file), context_length=8, eval_stride=3, batch_size=2)
    data.prepare()
    rows, count = data.rows("val")
    batch = rows[BatchIndices(torch.arange(count), 0)]
    tokens = data._tokens["val"]
    assert (batch.inputs[1] == tokens[3:11]).all(), "the second window begins three tokens later"
    asked = batch.targets[batch.targets != IGNORED]
    assert torch.equal(asked, tokens[1 : 1 + len(asked)].long()), "every token after the first, in order"
    assert len(tokens) - 1 - len(asked) < 3
    train, _ = data.rows("train")
    assert (train[BatchIndices(torch.arange(2), 0)].targets != IGNORED).all()
    assert data.asks_some_tokens
    with pytest.raises(ConfigError, match="eval_stride=9 would leave tokens out"):
        TextData(name="t", path=str(file), context_length=8, eval_stride=9)


def test_a_folder_of_tables_and_running_text_is_refused(tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    text_parquet(folder / "a.parquet")
    (folder / "b.txt").write_text("to be or not to be\n" * 100)
    with pytest.raises(ConfigError, match=r"holds tables \(a.parquet\) and running text \(b.txt\).*/\*.txt'"):
        prepared(folder)
    assert decoded(prepared(f"{folder}/*.txt"), "train").startswith("to be")
    (folder / "b.txt").rename(folder / "README.txt")
    assert not decoded(prepared(folder), "train").startswith("to be")


def test_a_table_without_a_head_is_noticed(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("To be or not to be that is the question\n" * 100)
    with pytest.raises(ConfigError, match="'To be or not to be that is the question' looks like none"):
        prepared(file)
