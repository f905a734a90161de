"""Data is found locally first, then on the Hub, and a changed file is another source."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from epochal.core.errors import ConfigError
from epochal.data import ImageData, TextData, sources
from helpers.samples import image_folder, image_npz, text_parquet


def test_a_path_here_comes_before_the_copy_in_epochal_data(tmp_path, monkeypatch):
    copies, here = tmp_path / "copies", tmp_path / "here"
    for parent in (copies, here):
        (parent / "poems").mkdir(parents=True)
        text_parquet(parent / "poems" / "train.parquet")
    monkeypatch.chdir(here)
    assert sources.locate("text", "poems").local == here / "poems"
    monkeypatch.setenv("EPOCHAL_DATA", str(copies))
    assert sources.locate("text", "poems").local == here / "poems"
    assert sources.locate("text", "somebody/poems").local == copies / "poems"
    assert sources.locate("text", "somebody/songs").local is None  # the Hub's


def test_a_named_folder_is_taken_as_such_whatever_epochal_data_holds(tmp_path, monkeypatch):
    (tmp_path / "copies" / "poems").mkdir(parents=True)
    text_parquet(tmp_path / "poems.parquet")
    monkeypatch.setenv("EPOCHAL_DATA", str(tmp_path / "copies"))
    assert sources.locate("text", str(tmp_path / "poems.parquet")).local == tmp_path / "poems.parquet"


def test_a_set_in_epochal_data_needs_no_network(tmp_path, monkeypatch):
    image_folder(tmp_path / "copies" / "mnist")
    monkeypatch.setenv("EPOCHAL_DATA", str(tmp_path / "copies"))
    data = ImageData(name="mnist", path="ylecun/mnist", batch_size=2)
    data.prepare()
    assert data.classes.names == ("cat", "dog")


def test_a_copy_with_a_folder_for_each_config(tmp_path, monkeypatch):
    for config in ("small", "large"):
        (tmp_path / "wiki" / config).mkdir(parents=True)
        text_parquet(tmp_path / "wiki" / config / "train.parquet", rows=20 if config == "small" else 40)
    found = [sources.locate("text", str(tmp_path / "wiki"), config=config) for config in ("small", "large")]
    assert [len(sources.open_splits(source, tmp_path / "scratch")["train"]) for source in found] == [20, 40]
    assert found[0].fingerprint() != found[1].fingerprint()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a.parquet", {"revision": "main"}, "dataset.revision=main is of data sets on the Hub"),
        ("a.parquet", {"config": "small"}, "dataset.config=small is a part of a data set on the Hub or of a folder"),
        ("a.parquet", {"encoding": "cp949"}, "is of text files, and .* holds .parquet"),
        ("*.parquet", {"config": "small"}, "dataset.config=small is a part of"),
        ("*.parquet", {"encoding": "cp949"}, "is of text files, and .* holds .parquet"),
        ("a.txt", {"column": "text"}, "dataset.column=text is of tables, and .* is running text"),
    ],
)
def test_options_that_a_source_has_no_use_for(tmp_path, name, options, says):
    text_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.txt").write_text("to be or not to be\n" * 100)
    data = TextData(name="text", path=str(tmp_path / name), batch_size=2, context_length=8, **options)
    with pytest.raises(ConfigError, match=says):
        data.check_typed({*options})
    data.check_typed(set())
    if options != {"encoding": "cp949"} and not (name == "a.parquet" and "config" in options):
        data.prepare()  # as of a run of before, or with what a preset says


def test_the_hub_needs_no_encoding():
    with pytest.raises(
        ConfigError, match="dataset.encoding=cp949 is of local text files, and a/poems is read from the Hub"
    ):
        TextData(name="text", path="a/poems", batch_size=2, encoding="cp949").check_typed({"encoding"})


def test_columns_of_arrays(tmp_path):
    data = ImageData(name="images", path=str(image_npz(tmp_path / "a.npz")), batch_size=2, label_column="kind")
    with pytest.raises(ConfigError, match="dataset.label_column is of tables, and .* holds the arrays"):
        data.check_typed({"label_column"})


@pytest.mark.parametrize("change", ["content", "time", "new file", "renamed"])
def test_a_changed_source_has_another_fingerprint(tmp_path, change):
    folder = image_folder(tmp_path / "photos")
    source = sources.locate("images", str(folder))
    before, file = source.fingerprint(), folder / "cat" / "0.png"
    assert source.fingerprint() == before
    if change == "content":
        file.write_bytes(file.read_bytes() + b"more")
    elif change == "time":
        os.utime(file, ns=(0, 0))
    elif change == "new file":
        (folder / "cat" / "new.png").write_bytes(file.read_bytes())
    else:
        file.rename(file.with_name("other.png"))
    assert source.fingerprint() != before


def test_a_changed_file_is_read_again(tmp_path):
    def shape() -> tuple[int, int]:
        data = ImageData(name="images", path=str(file), batch_size=2)
        data.prepare()
        return data.inputs.height, sum(data.sizes().values())

    file = image_npz(tmp_path / "set.npz")
    assert shape() == (8, 60)
    image_npz(file, count=40, side=6)
    assert shape() == (6, 40)


def write_splits(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for i, name in enumerate(names):
        pq.write_table(pa.table({"text": [f"{name} {n}" for n in range(10 + i)]}), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "dev"])
def test_splits_go_by_several_names(tmp_path, validation):
    folder = write_splits(tmp_path / "set", "train", validation, "test")
    splits = sources.open_splits(sources.locate("text", str(folder)), tmp_path / "scratch")
    assert {role: len(rows) for role, rows in splits.items()} == {"train": 10, "validation": 11, "test": 12}


def test_arrow_copies_stay_in_the_scratch_folder(tmp_path):
    folder = write_splits(tmp_path / "set", "train")
    sources.open_splits(sources.locate("text", str(folder)), tmp_path / "scratch")
    assert {path.name for path in tmp_path.iterdir()} >= {"set", "scratch"}
    assert [path.name for path in folder.iterdir()] == ["train.parquet"]


def test_a_split_without_rows_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text\none line\n")
    (tmp_path / "test.csv").write_text("text\n")
    with pytest.raises(ConfigError, match='cannot be read as a data set: .*"test" corresponds to no data'):
        sources.open_splits(sources.locate("text", str(tmp_path)), tmp_path / "scratch")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "txt"])
def test_one_file_of_any_common_kind(tmp_path, suffix):
    import pandas

    frame, file = (
        pandas.DataFrame({"text": ["a little text about nothing much at all"] * 40}),
        tmp_path / f"set.{suffix}",
    )
    if suffix == "csv":
        frame.to_csv(file, index=False)
    elif suffix == "jsonl":
        frame.to_json(file, orient="records", lines=True)
    elif suffix == "parquet":
        frame.to_parquet(file)
    else:
        file.write_text("\n".join(frame.text))
    data = TextData(name="text", path=str(file), context_length=8, batch_size=2)
    data.prepare()
    assert data.tokenizer.decode(data._tokens["train"][:8].tolist()) == "a little"


def test_a_full_disk_while_reading_is_reported_as_such(tmp_path, monkeypatch):
    import datasets
    from datasets.exceptions import DatasetGenerationError

    def full(*_: object, **__: object) -> None:
        raise DatasetGenerationError("An error occurred") from OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", full)
    data = TextData(name="text", path=str(text_parquet(tmp_path / "text.parquet")))
    with pytest.raises(ConfigError, match="Not enough disk for the cache"):
        data.prepare()


def test_the_hub_is_not_contacted_where_it_cannot_be_reached():
    assert not sources.hub_is_reachable({"HF_HUB_OFFLINE": "1"})
    assert not sources.hub_is_reachable({"HF_ENDPOINT": "http://127.0.0.1:9"})  # nobody listens there
    assert sources.hub_is_reachable({"HTTPS_PROXY": "http://proxy"})  # which alone can tell


def test_the_hub_is_reachable_if_a_server_listens():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert sources.hub_is_reachable({"HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"})
