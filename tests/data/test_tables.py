"""Text files and tables are read as they are written, or refused with the line and what would be right."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from epochal.core.errors import ConfigError
from epochal.data import PairData, SentenceData, TextData, captions, sources, tables
from helpers.samples import image_folder

KOREAN = "영화가 좋다\n너무 지루하다\n"


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def opened(path: Path, encoding: str | None = None, **options: Any) -> dict[str, dict[str, list[Any]]]:
    source = sources.locate("sentences", str(path), encoding=encoding)
    return {role: rows.to_dict() for role, rows in tables.open_splits(source, path, **options).items()}


# -- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written_in, encoding",
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-32", None),
        ("cp949", "cp949"),
        ("utf-16-le", "utf-16-le"),
        ("utf-8-sig", "cp949"),  # a byte order mark is surer
    ],
)
def test_a_text_is_decoded_to_the_letter(tmp_path, written_in, encoding):
    assert tables.read_text(written(tmp_path, "a.txt", KOREAN.encode(written_in)), encoding) == KOREAN


@pytest.mark.parametrize(
    "content, encoding, words",
    [
        (b"good\n" + KOREAN.encode("cp949"), None, r"Line 2 of .*a.txt is not text in UTF-8.*dataset.encoding=cp949"),
        ("good\r\nfür\r\n".encode("latin-1"), None, "Line 2 of .*a.txt is not text in UTF-8"),
        (b"\xef\xbb\xbfa\nb\n\xff", None, "Line 3 of .* is not text in UTF-8"),
        ("a\nb".encode("utf-16") + b"\x00", None, "Line 2 of .* is not text in utf-16"),
        (KOREAN.encode(), "ascii", "Line 1 of .* is not text in ascii"),
        (b"good", "cp9490", "dataset.encoding=cp9490 is no encoding"),
        (b"good", "base64", "dataset.encoding=base64 is no encoding"),
        (b"good", "base64", "dataset.encoding=base64 is no encoding"),
        (b"good\nba\0d\n", None, "Line 2 of .* has a NUL character"),
        ("good".encode("utf-16-le"), None, "Line 1 of .* has a NUL character.*utf-16-le"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_its_line(tmp_path, content, encoding, words):
    with pytest.raises(ConfigError, match=words):
        tables.read_text(written(tmp_path, "a.txt", content), encoding)


@pytest.mark.parametrize(
    "reader", ["text", "text folder", "markdown", "csv", "csv folder", "jsonl", "pairs", "captions"]
)
def test_every_reader_refuses_another_encoding_alike(tmp_path, reader):
    bad = KOREAN.encode("cp949")
    readers: dict[str, Any] = {
        "text": lambda: opened(written(tmp_path, "a.txt", bad)),
        "text folder": lambda: opened(written(tmp_path, "set/train.txt", bad).parent),
        "markdown": lambda: TextData(name="t", path=str(written(tmp_path, "a.md", bad)), batch_size=2).prepare(),
        "csv": lambda: opened(written(tmp_path, "a.csv", bad)),
        "csv folder": lambda: opened(written(tmp_path, "set/train.csv", bad).parent),
        "jsonl": lambda: opened(written(tmp_path, "a.jsonl", bad)),
        "pairs": lambda: _pairs(tmp_path, bad, b"a\nb\n"),
        "captions": lambda: captions.read_list(written(tmp_path, "captions.csv", b"0.png," + bad)),
    }
    with pytest.raises(ConfigError, match=r"Line 1 of .* is not text in UTF-8\. .* dataset\.encoding=cp949"):
        readers[reader]()


def _pairs(tmp_path: Path, first: bytes, second: bytes, **options: Any) -> PairData:
    written(tmp_path, "pairs/train.de", first), written(tmp_path, "pairs/train.en", second)
    data = PairData(
        name="pairs", path=str(tmp_path / "pairs"), source="de", target="en", tokenizer="byte", batch_size=1, **options
    )
    data.prepare()
    return data


def test_another_encoding_is_read_where_it_is_named(tmp_path):
    data = _pairs(tmp_path, "".join(f"영화 {i}\n" for i in range(30)).encode("cp949"), b"film\n" * 30, encoding="cp949")
    assert all(text.startswith("영화 ") for text in data.sources("train"))
    assert opened(written(tmp_path, "a.csv", "text,label\n좋다,긍정\n".encode("cp949")), "cp949") == {
        "train": {"text": ["좋다"], "label": ["긍정"]}
    }


def test_the_encoding_is_part_of_the_key_only_where_it_is_named(tmp_path):
    file = str(written(tmp_path, "a.txt", "a"))
    keys = [sources.locate("text", file, encoding=encoding).fingerprint() for encoding in (None, "cp949")]
    assert "encoding" not in keys[0] and keys[1] == {**keys[0], "encoding": "cp949"}


# -- cells ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, content, columns",
    [
        (
            "a.csv",
            "text,label\nNA,None\nnull,nan\nN/A,\n",
            {"text": ["NA", "null", "N/A"], "label": ["None", "nan", None]},
        ),
        ("a.csv", 'text,label\r\n"a, ""b""\r\nc",x\r\n', {"text": ['a, "b"\r\nc'], "label": ["x"]}),
        ("a.csv", "text,label\na,1\n\n  \nb,0\n", {"text": ["a", "b"], "label": [1, 0]}),
        ("a.csv", "text,label\na,1\nb,01\n", {"text": ["a", "b"], "label": ["1", "01"]}),
        ("a.csv", "text,label\na,1\nb,0.5\n", {"text": ["a", "b"], "label": [1.0, 0.5]}),
        ("a.csv", ",text\n0,a\n1,b\n", {"Unnamed: 0": [0, 1], "text": ["a", "b"]}),  # as pandas writes it
        ("a.csv", "text,label\ra,x\rb,y\r", {"text": ["a", "b"], "label": ["x", "y"]}),  # old Macintosh
        ("a.csv", 'text,label\nsay "hi",x\n', {"text": ['say "hi"'], "label": ["x"]}),
        ("a.csv", "text;label\na, b;x\n", {"text": ["a, b"], "label": ["x"]}),
        ("a.csv", "text\tlabel\na, b\tx\n", {"text": ["a, b"], "label": ["x"]}),
        ("a.csv", "text|label\na, b|x\n", {"text": ["a, b"], "label": ["x"]}),
        ("a.csv", "text , label\na,x\n", {"text": ["a"], "label": ["x"]}),
        ("A.CSV", "text,label\na,x\n", {"text": ["a"], "label": ["x"]}),
        ("a.tsv", 'text\tlabel\n"a\tb"\tx\n', {"text": ["a\tb"], "label": ["x"]}),
        ("a.tsv", 'text\tlabel\n"a\tx\nb"\ty\n', {"text": ['"a', 'b"'], "label": ["x", "y"]}),  # quotes are text
        ("a.txt", "id\tdocument\tlabel\n7\ta\t0\n", {"id": [7], "document": ["a"], "label": [0]}),
        ("a.csv.gz", gzip.compress(b"text,label\na,x\n", mtime=0), {"text": ["a"], "label": ["x"]}),
        (
            "a.jsonl",
            '{"text": "2020-01-01"}\n\n{"text": "NA", "y": 1}\n',
            {"text": ["2020-01-01", "NA"], "y": [None, 1]},
        ),
        ("a.json", '[\n{"text": "a"},\n{"text": "b"}]', {"text": ["a", "b"]}),
        ("a.json", '{"text": ["a", "b"]}', {"text": ["a", "b"]}),
        ("a.json", '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}', {"text": ["a", "b"]}),
        ("a.jsonl", '{"translation": {"de": "a"}}\n', {"translation": [{"de": "a"}]}),
    ],
)
def test_cells_are_what_the_file_says(tmp_path, name, content, columns):
    assert opened(written(tmp_path, name, content)) == {"train": columns}


@pytest.mark.parametrize(
    "name, content, words",
    [
        (
            "a.csv",
            "text,label\na,x\nb, really,y\n",
            r"Line 3 of .* has 3 cells, but the head has 2: text, label\. .*comma",
        ),
        ("a.csv", "text,label\na\n", "Line 2 of .* has 1 cell, but the head has 2"),
        ("a.tsv", "text\tlabel\na\tb\tx\n", "Line 2 of .* has 3 cells.* tab in quotation marks"),
        ("a.csv", 'text,label\na,x\n"b,y\nc,z\n', "Line 3 of .* opens a quotation mark that is not closed"),
        ("a.csv", 'text,label\na,x\n"b,y\n"c",z\n', "Line 3 of .* opens a quotation mark that is not closed"),
        ("a.csv", "text,label\na\rb,x\n", "Line 2 of .* has a carriage return within it"),
        ("a.csv", "text,text\na,x\n", "has two columns called text"),
        ("a.csv", "text,label\na\0,x\n", "Line 2 of .* has a NUL character"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', "Line 2 of .* is not JSON"),
        ("a.json", '[{"text": "a"},\n{"text": }]', "Line 2 of .* is not JSON"),
        ("a.jsonl", '{"text": "a"}\n3\n', "Row 2 of .* is no object"),
        ("a.json", "5", "Row 1 of .* is no object"),
        ("a.json", '"text"', "Row 1 of .* is no object"),
        ("a.json", "[" * 100_000, "is nested too deeply"),
        ("a.jsonl", r'{"text": "a \ud83d"}', "half of a character"),
        ("a.jsonl", '{"y": "a"}\n{"y": 3}\n', "values of several types in the column y"),
        ("a.csv.gz", b"no gzip", "cannot be decompressed"),
        ("a.csv", "text,label\n", "has no rows"),
        ("a.csv", "", "has no rows"),
    ],
)
def test_what_is_unclear_is_refused_with_its_line(tmp_path, name, content, words):
    with pytest.raises(ConfigError, match=words):
        opened(written(tmp_path, name, content))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "jsonl"])
def test_a_folder_has_a_file_for_each_split(tmp_path, suffix):
    for split, label in (("train", "NA"), ("test", "None")):
        rows = {"csv": f"text,label\na,{label}\n", "tsv": f"text\tlabel\na\t{label}\n"}
        content = rows.get(suffix, rows["csv"]).encode()
        if suffix == "jsonl":
            content = f'{{"text": "a", "label": "{label}"}}\n'.encode()
        written(tmp_path, f"set/{split}.{suffix}", gzip.compress(content, mtime=0) if suffix == "csv.gz" else content)
    written(tmp_path, "set/README.md", "# Notes")
    found = opened(tmp_path / "set")
    assert {role: columns["label"] for role, columns in found.items()} == {"train": ["NA"], "test": ["None"]}


def test_a_number_in_one_split_is_text_where_another_has_words(tmp_path):
    written(tmp_path, "set/train.csv", "text,label\na,1\n")
    written(tmp_path, "set/test.csv", "text,label\na,x\n")
    assert opened(tmp_path / "set")["train"]["label"] == ["1"]


@pytest.mark.parametrize("text, label", [("text", "label"), ("Text", "LABEL"), ("SENTENCE", "Class")])
@pytest.mark.parametrize(
    "labels, classes",
    [(("1", "0"), "0 1"), (("1.0", "0.0"), "0 1"), (("True", "False"), "False True"), (("1", "neg"), "1 neg")],
)
def test_labels_are_words_or_whole_numbers(tmp_path, text, label, labels, classes):
    rows = "".join(f"a good film {n},{labels[n % 2]}\n" for n in range(40))
    data = SentenceData(name="sentences", path=str(written(tmp_path, "a.csv", f"{text},{label}\n{rows}")), batch_size=2)
    data.prepare()
    assert data.classes.names == tuple(classes.split())


def test_a_label_between_two_whole_numbers_is_refused(tmp_path):
    rows = "".join(f"film {n},{n % 2 / 2}\n" for n in range(40))
    with pytest.raises(ConfigError, match="does not hold one label for each text, a word or a whole number"):
        SentenceData(name="x", path=str(written(tmp_path, "a.csv", f"text,label\n{rows}")), batch_size=2).prepare()


# -- data sets ------------------------------------------------------------------------------------------------------


def test_the_words_of_missing_values_are_labels_and_texts(tmp_path):
    file = written(tmp_path, "a.csv", "text,label\n" + "NA,None\nnull,toxic\n" * 20)
    data = SentenceData(name="sentences", path=str(file), batch_size=2)
    data.prepare()
    assert data.classes.names == ("None", "toxic") and {data.text("train", i) for i in range(9)} == {"NA", "null"}


def test_a_blank_after_a_label_makes_no_class(tmp_path):
    file = written(tmp_path, "a.csv", "text,label\n" + "a,neg\nb,pos \nc,neg \nd,pos\n" * 10)
    data = SentenceData(name="sentences", path=str(file), batch_size=2)
    data.prepare()
    assert data.classes.names == ("neg", "pos")


def test_a_text_is_not_its_own_label(tmp_path):
    file = written(tmp_path, "a.csv", "text,label\n" + "a,x\nb,y\n" * 20)
    data = SentenceData(name="sentences", path=str(file), batch_size=2, text_column="label")
    with pytest.raises(ConfigError, match="text_column and dataset.label_column are both label"):
        data.prepare()


@pytest.mark.parametrize("row", [0, 3])
def test_a_text_that_is_null_is_refused_with_its_row(tmp_path, row):
    texts = ["a"] * 20
    pq.write_table(
        pa.table({"text": [None if i == row else text for i, text in enumerate(texts)]}), tmp_path / "a.parquet"
    )
    with pytest.raises(ConfigError, match=f"Row {row} of .*, split train, has no text"):
        TextData(name="text", path=str(tmp_path / "a.parquet"), batch_size=2).prepare()


def test_the_byte_order_mark_is_no_token(tmp_path):
    file = written(tmp_path, "a.txt", ("ab" * 500).encode("utf-8-sig"))
    data = TextData(name="text", path=str(file), tokenizer="character", context_length=8, batch_size=2)
    data.prepare()
    assert data.tokenizer.vocabulary == "ab"


def test_pairs_are_not_shifted_by_a_carriage_return(tmp_path):
    with pytest.raises(ConfigError, match=r"Line 2 of .*train.de has a carriage return within it"):
        _pairs(tmp_path, b"a\nb\rc\nd\n", b"a\nb\nc\rd\n")


@pytest.mark.parametrize(
    "list_of_captions, line",
    [('0.png,a\n1.png,"b\n2.png,c\n', 2), ('0.png,a\n1.png,"b\n2.png,c 5"\n', 2), ('0.png,"a\n1.png,"b"\n', 1)],
)
def test_no_image_vanishes_in_an_open_quotation_mark(tmp_path, list_of_captions, line):
    for name in ("0.png", "1.png", "2.png"):
        written(tmp_path, name, b"")
    with pytest.raises(ConfigError, match=f"Line {line} of .* opens a quotation mark"):
        captions.read_list(written(tmp_path, "captions.csv", list_of_captions))


@pytest.mark.parametrize("folders", [[""], ["train", "test"]])
def test_listed_images_keep_the_words_of_missing_values(tmp_path, folders):
    image_folder(tmp_path / "made")
    for folder in folders:
        for name in ("0.png", "1.png"):
            written(tmp_path, f"set/{folder}/{name}", (tmp_path / "made" / "cat" / "0.png").read_bytes())
        written(tmp_path, f"set/{folder}/metadata.csv", "file_name,label,y\n1.png,None,3\n0.png,crack,4\n")
    found = tables.open_splits(sources.locate("images", str(tmp_path / "set")), tmp_path / "scratch")
    assert list(found) == [folder or "train" for folder in folders]
    for rows in found.values():
        assert rows["label"] == ["None", "crack"] and rows["y"] == [3, 4] and rows[0]["image"].size == (8, 8)


def test_a_listed_image_that_is_missing_is_named(tmp_path):
    written(tmp_path, "metadata.csv", "file_name,label\nlost.png,x\n"), written(tmp_path, "0.png", b"")
    with pytest.raises(ConfigError, match=r"metadata.csv names lost.png, but there is no such file"):
        opened(tmp_path)


@pytest.mark.parametrize("block", [1, 3, 7, 2**20])
@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (f"a\r\n\r\r\nb\r{KOREAN}\r".encode(), None),
        (f"{KOREAN}🙂\r\n".encode("utf-8-sig"), None),
        (f"{KOREAN}🙂\r\n".encode("utf-16"), None),
        (KOREAN.encode("utf-16-le"), "utf-16-le"),
        (KOREAN.encode("utf-16-le"), "utf-16"),
        (KOREAN.encode("cp949"), "cp949"),
    ],
)
def test_a_text_in_parts_is_that_of_the_whole_file(tmp_path, monkeypatch, block, content, encoding):
    monkeypatch.setattr(tables, "BLOCK", max(block, 4 if encoding is None else 1))  # a byte order mark is not cut
    file = written(tmp_path, "text.txt", content)
    whole = tables.read_text(file, encoding)
    assert "".join(tables.read_blocks(file, encoding)) == whole
    assert "".join(tables.read_running(file, encoding)) == whole.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("name", "content", "encoding", "says"),
    [
        ("a.txt", KOREAN.encode() + KOREAN.encode("cp949"), None, "Line 3 of .* is not text in UTF-8"),
        ("a.txt", KOREAN.encode() + "가".encode()[:2], None, "Line 3 of .* is not text in UTF-8"),
        ("a.txt", b"a\nb\n\nc\0d", None, "Line 4 of .* has a NUL character"),
        ("a.txt", KOREAN.encode("cp949"), "cp94", "dataset.encoding=cp94 is no encoding of text"),
        ("a.txt.gz", gzip.compress(KOREAN.encode() * 9, mtime=0)[:-9], None, "cannot be decompressed"),
        ("a.txt.gz", b"no gzip", None, "cannot be decompressed"),
    ],
)
def test_a_fault_in_a_text_in_parts_is_told_as_of_the_whole_file(tmp_path, monkeypatch, name, content, encoding, says):
    monkeypatch.setattr(tables, "BLOCK", 5)
    file = written(tmp_path, name, content)
    for read in (tables.read_text, lambda *of: list(tables.read_blocks(*of))):
        with pytest.raises(ConfigError, match=says):
            read(file, encoding)


@pytest.mark.parametrize("text", ['{"text": "a", "text": "b"}\n{"text": "c"}\n', '[{"text": {"x": 1, "x": 2}}]'])
def test_a_key_that_is_there_twice(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match="a.json has an object with .* twice"):
        tables.read_table(tmp_path / "a.json")
