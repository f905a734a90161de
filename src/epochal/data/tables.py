"""Reads text files and tables of texts (CSV, TSV, JSON) strictly: no guess about encodings, quotes or missing values.

`pandas`, which `datasets` reads tables with, takes the first column for an index where rows are longer than the head,
fills short rows, and takes the words NA, None and null for missing values.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.core.errors import ConfigError
from epochal.data import sources

if TYPE_CHECKING:
    from datasets import Dataset

DELIMITED = (".csv", ".tsv", ".txt")
JSON = (".json", ".jsonl", ".ndjson")
BYTE_ORDER_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
INTEGER = re.compile(r"\s*[+-]?(?:0|[1-9][0-9]{0,17})\s*", re.ASCII)
NUMBER = re.compile(r"\s*[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
BLOCK = 2**20  # bytes of a text that are read at once
QUOTED = re.compile(r'"(?:[^"]|"")*"')


def suffix(file: Path) -> str:
    """The suffix in lower case, without that of the compression: ".csv" of reviews.CSV.gz."""
    name = file.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def read_text(file: Path, encoding: str | None = None) -> str:
    """The text of a file, which may be compressed (.gz). Each end of a line is read as a newline as it stands: \\r too.

    Args:
        file: UTF-8, or UTF-8, UTF-16 or UTF-32 with a byte order mark, which is left out.
        encoding: Another one, by its name in Python.

    Raises:
        ConfigError: If the file cannot be decoded, or holds NUL characters; it says in which line.
    """
    raw = file.read_bytes()
    if file.suffix.lower() == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{file} cannot be decompressed: {error}.") from error
    used = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), None) or encoding or "utf-8"
    try:
        text = raw.decode(used)
    except UnicodeDecodeError as error:
        if used == "utf-8" and b"\0" in raw:
            raise ConfigError(
                f"{file} cannot be read as text: it is a binary file, or damaged; or name its encoding, e.g. "
                "dataset.encoding=utf-16-le."
            ) from error
        line = error.object[: error.start].decode(used, "ignore").count("\n") + 1
        named = "UTF-8" if used.startswith("utf-8") else used
        raise ConfigError(
            f"Line {line:,} of {file} is not text in {named}. Name the encoding that the file has, e.g. "
            "dataset.encoding=cp949, or save it as UTF-8."
        ) from error
    except (LookupError, UnicodeError) as error:
        raise ConfigError(f"dataset.encoding={encoding} is no encoding of text, such as cp949 or latin-1.") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigError(
            f"Line {line:,} of {file} has a NUL character, so the file is damaged, or it is not {used}: then name its "
            "encoding, e.g. dataset.encoding=utf-16-le."
        )
    return text


def read_blocks(file: Path, encoding: str | None = None) -> Iterator[str]:
    """The text of a file in parts, see `read_text`, without a second copy of all of it in memory.

    Raises:
        ConfigError: See `read_text`; the parts before the fault have been yielded by then.
    """
    length = 0
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            block = stream.read(BLOCK)
            marked = next((name for mark, name in BYTE_ORDER_MARKS if block.startswith(mark)), None)
            used = marked or encoding or "utf-8"
            "a".encode(used)  # raises if it is no encoding of text
            decoder = codecs.getincrementaldecoder(used)()
            while block:
                text = decoder.decode(block)
                if "\0" in text:
                    raise UnicodeError
                length += len(text)
                yield text
                block = stream.read(BLOCK)
            decoder.decode(b"", final=True)
    except (UnicodeError, LookupError, OSError, EOFError, zlib.error):
        yield read_text(file, encoding)[length:]  # says what is wrong, and where


def read_running(file: Path, encoding: str | None = None) -> Iterator[str]:
    """The text of a file in parts, see `read_blocks`, with \n at the end of each line."""
    held = ""  # a carriage return at the end of a part: a newline may follow it
    for block in read_blocks(file, encoding):
        text = held + block
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
    if held:
        yield "\n"


def read_lines(file: Path, encoding: str | None = None) -> list[str]:
    """The lines of a file without their ends, see `read_text`; a newline at its end makes no line.

    Raises:
        ConfigError: If there is a carriage return within a line, which some programs take for its end.
    """
    # splitlines() would also split at characters that may stand within a sentence, e.g. U+2028
    text = _newlines(read_text(file, encoding)).replace("\r\n", "\n")
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if "\r" in line:
            raise ConfigError(
                f"Line {number:,} of {file} has a carriage return within it, so its end is not clear; remove it."
            )
    return lines


def records(text: str, file: Path, delimiter: str = ",", quoting: bool = True) -> Iterator[tuple[int, list[str]]]:
    """The number of its first line, and the cells, of each record that is not blank; quoted as in RFC 4180.

    Raises:
        ConfigError: If a quotation mark is not closed, or a line ends in a lone carriage return.
    """
    csv.field_size_limit(2**31 - 1)  # a text may be a whole book
    rows = csv.reader(
        io.StringIO(_newlines(text), newline="\n"),
        delimiter=delimiter,
        strict=True,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
    )
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            if "new-line" in str(error):
                raise ConfigError(
                    f"Line {rows.line_num:,} of {file} has a carriage return within it, so its end is not clear; "
                    "remove it, or put the text in quotation marks."
                ) from error
            raise ConfigError(
                f"Line {line:,} of {file} opens a quotation mark that is not closed before the end of the cell. Close "
                'it, or write it twice ("") where it belongs to the text.'
            ) from error
        if cells is None:
            return
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield line, cells


def read_table(file: Path, encoding: str | None = None, running: bool = False) -> dict[str, list[Any]]:
    """The columns of a table with a head: CSV (commas, else semicolons, tabs or bars), TSV, or JSON (lines, or a list).

    All cells of CSV and TSV are text, as they are written; an empty cell is None. A .txt file is a table if its first
    line has tabs; else, or if it is known to be running text, its lines are the column "text".

    Raises:
        ConfigError: If it cannot be read, a row is longer or shorter than the head, or two columns have one name.
    """
    text = read_text(file, encoding)
    if suffix(file) in JSON:
        return _read_json(text, file)
    if (running and suffix(file) == ".txt") or not _has_head(text, file):
        return {"text": "".join(read_running(file, encoding)).removesuffix("\n").split("\n")}
    head = text.split("\n", 1)[0]
    delimiter = "\t" if suffix(file) in (".tsv", ".txt") else next((d for d in ",;\t|" if d in head), ",")
    found = records(text, file, delimiter, quoting=delimiter != "\t" or not _quotes_are_text(text, file))
    _, names = next(found, (1, []))
    # the index that pandas writes has no name
    names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(names)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{file} has two columns called {twice}; give each a name of its own.")
    rows = []
    for line, cells in found:
        if len(cells) != len(names):
            what = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}[delimiter]
            raise ConfigError(
                f"Line {line:,} of {file} has {_cells(len(cells))}, but the head has {len(names)}: {', '.join(names)}. "
                f"Put texts with a {what} in quotation marks."
            )
        rows.append(cells)
    columns = zip(*rows) if rows else [()] * len(names)
    return {name: [cell if cell else None for cell in column] for name, column in zip(names, columns)}


def open_splits(source: sources.Source, scratch: Path, running: bool = False) -> dict[str, Dataset]:
    """As `sources.open_splits`; local CSV, TSV, JSON and .txt files, and metadata.csv beside images, are read by
    `read_table`.

    Columns of CSV and TSV whose cells are all whole numbers, or all numbers, in all files are such; others are text.

    Raises:
        ConfigError: See there and `read_table`.
    """
    files = table_files(source)
    if files is None:
        found = _listed_images(source)
        return sources.by_role(source, found) if found else sources.open_splits(source, scratch)
    import datasets

    tables: dict[str, dict[str, list[Any]]] = {}
    for name, parts in files.items():
        for part in parts:
            table = read_table(part, source.encoding, running)
            if set(tables.setdefault(name, table)) != set(table):
                raise ConfigError(
                    f"{part} has the columns {', '.join(table)}, but {parts[0]} has {', '.join(tables[name])}."
                )
            if tables[name] is not table:
                for column, cells in table.items():
                    tables[name][column].extend(cells)
    if all(suffix(part) in DELIMITED for parts in files.values() for part in parts):
        for column in {column for table in tables.values() for column in table}:
            _convert([table for table in tables.values() if column in table], column)
    found = {}
    for name, table in tables.items():
        try:
            found[name] = datasets.Dataset.from_dict(table)
        except UnicodeEncodeError as error:  # JSON can hold half of a character
            raise ConfigError(
                f"{source.local} holds {error.object[error.start]!a}, half of a character, which is no text; leave it out."
            ) from error
        except OverflowError as error:
            raise ConfigError(f"{source.local} holds a number that is too large: {error}.") from error
        except (ValueError, TypeError) as error:  # those of pyarrow are among them
            raise ConfigError(
                f"{source.local} holds values of several types in the column {_mixed(table)}: {error}."
            ) from error
    return sources.by_role(source, found)


def _mixed(table: dict[str, list[Any]]) -> str:
    """The first column with values of several types."""
    kinds = {name: {type(cell) for cell in cells if cell is not None} for name, cells in table.items()}
    return next((name for name, found in kinds.items() if len(found) > 1), next(iter(table), ""))


def _newlines(text: str) -> str:
    """The text with \\n at the end of its lines, also where they all end in \\r, as on old Macintosh computers."""
    return text if "\n" in text else text.replace("\r", "\n")


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _has_head(text: str, file: Path) -> bool:
    return suffix(file) != ".txt" or "\t" in text.split("\n", 1)[0]


def _quotes_are_text(text: str, file: Path) -> bool:
    """Whether a tab-separated file has quotation marks as part of its texts, as many have: without regard to them each
    line has as many cells as the head, and a cell that begins with one does not end with it."""
    lines = [line.rstrip("\r").split("\t") for line in _newlines(text).split("\n") if line.strip()]
    if any(len(cells) != len(lines[0]) for cells in lines):
        return False
    return any(cell.startswith('"') and not QUOTED.fullmatch(cell) for cells in lines for cell in cells)


def _read_json(text: str, file: Path) -> dict[str, list[Any]]:
    """From a list of objects, which may be all that an object has of lists, an object of columns, or an object a line."""
    try:
        whole = _parsed(text, file)
    except RecursionError as error:
        raise ConfigError(f"{file} is nested too deeply to be a table.") from error
    if isinstance(whole, dict):
        lists = [value for value in whole.values() if isinstance(value, list)]
        if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]):
            whole = lists[0]
    if isinstance(whole, dict):
        if whole and all(isinstance(column, list) and len(column) > 1 for column in whole.values()):
            return whole
        whole = [whole]
    rows = whole if isinstance(whole, list) else [whole]
    if wrong_row := next((number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)), None):
        raise ConfigError(f'Row {wrong_row} of {file} is no object such as {{"text": "...", "label": "..."}}.')
    names = dict.fromkeys(name for row in whole for name in row)
    return {name: [row.get(name) for row in whole] for name in names}


def _parsed(text: str, file: Path) -> Any:
    """JSON, or a list of the lines that are each JSON.

    Raises:
        ConfigError: If it is neither.
        RecursionError: If it is nested too deeply.
    """

    def read(text: str) -> Any:
        return json.loads(text, object_pairs_hook=lambda pairs: unique_keys(pairs, file))

    try:
        return read(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # which lines of objects are to it
            raise ConfigError(f"Line {error.lineno:,} of {file} is not JSON: {error.msg}.") from error
    whole = []
    for line, content in enumerate(text.split("\n"), start=1):
        try:
            whole += [read(content)] if content.strip() else []
        except json.JSONDecodeError as wrong:
            raise ConfigError(f"Line {line:,} of {file} is not JSON: {wrong.msg}.") from wrong
    return whole


def unique_keys(pairs: list[tuple[str, Any]], file: Path) -> dict[str, Any]:
    """An object of JSON; raises ConfigError if a key is in it twice, of which Python's would keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ConfigError(f"{file} has an object with {json.dumps(twice)} twice; leave one out.")
    return made


def _convert(tables: list[dict[str, list[Any]]], column: str) -> None:
    cells = [cell for table in tables for cell in table[column] if cell is not None]
    kind = next((k for k, p in ((int, INTEGER), (float, NUMBER)) if cells and all(map(p.fullmatch, cells))), str)
    for table in tables:
        table[column] = [None if cell is None else kind(cell) for cell in table[column]]


def _listed_images(source: sources.Source) -> dict[str, Dataset] | None:
    """The images that metadata.csv lists, in its order, by split: one list in the folder, or one in each split's."""
    root, roles = source.local, {name: role for role, names in sources.SPLIT_NAMES.items() for name in names}
    if root is None or not root.is_dir() or source.config:
        return None
    lists = sorted(root.rglob("metadata.csv"))
    split_of = {file: roles.get(file.parent.name.lower()) for file in lists}
    if lists == [root / "metadata.csv"] and not any(folder.name.lower() in roles for folder in root.iterdir()):
        split_of = {lists[0]: "train"}
    elif not lists or not all(split and file.parent.parent == root for file, split in split_of.items()):
        return None  # `datasets` has rules for more
    import datasets

    read = {str(split): (file, read_table(file, source.encoding)) for file, split in split_of.items()}
    if not all("file_name" in table for _, table in read.values()):
        return None
    for column in {column for _, table in read.values() for column in table} - {"file_name"}:
        _convert([table for _, table in read.values() if column in table], column)
    found = {}
    for split, (file, table) in read.items():
        names = table.pop("file_name")
        _check_files(file, names)
        images = [{"bytes": None, "path": str(file.parent / name)} for name in names]
        rows = datasets.Dataset.from_dict({"image": images, **table})
        found[split] = rows.cast_column("image", datasets.Image())
    return found


def _check_files(listed: Path, names: list[Any]) -> None:
    if (
        lost := next((n for n in names if not n or ".." in Path(n).parts or not (listed.parent / n).is_file()), "")
    ) != "":
        raise ConfigError(f"{listed} names {lost}, but there is no such file beside it.")


def table_files(source: sources.Source) -> dict[str, list[Path]] | None:
    """The files of each split if they are tables that `read_table` reads; None: `datasets` finds and reads them."""
    local = source.local
    if local is None:
        return None
    if local.is_file():
        return {"train": [local]} if suffix(local) in (*DELIMITED, *JSON) else None
    if source.files is not None:  # those of a pattern
        return {"train": list(source.files)} if {*map(suffix, source.files)} <= {*DELIMITED, *JSON} else None
    files = _by_split(local, source.config)
    if files is None:
        return None
    found_kinds = {suffix(file) for parts in files.values() for file in parts}
    if ".parquet" in found_kinds and (others := found_kinds & {".csv", ".tsv", ".jsonl", ".ndjson"}):
        raise ConfigError(
            f"{local} holds .parquet and {' and '.join(sorted(others))} files, and only one kind of table can be read; "
            "move the others elsewhere."
        )
    if found_kinds - {*DELIMITED, *JSON, ".md", ""}:
        return None
    # notes in .txt may lie beside tables
    for kinds in ((".csv", ".tsv", *JSON), (".txt",)):
        kept = {split: [file for file in parts if suffix(file) in kinds] for split, parts in files.items()}
        if any(kept.values()):
            return {split: parts for split, parts in kept.items() if parts}
    return None


def _by_split(local: Path, config: str | None) -> dict[str, list[Path]] | None:
    """The files of a folder by split, as `datasets` finds them; None if it finds none, or the folder's card says which."""
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    in_config = bool(config) and (local / str(config)).is_dir()
    root = local / str(config) if in_config else local
    card = root / "README.md"
    if (config and not in_config) or (card.is_file() and "\nconfigs:" in card.read_text(errors="ignore")):
        return None  # configurations that the card defines
    try:
        with sources.literal_paths(root):
            patterns = get_data_patterns(str(root))
            found = DataFilesDict.from_patterns(patterns, base_path=str(root))
    except (EmptyDatasetError, FileNotFoundError):
        return None
    return {split: [Path(name) for name in names] for split, names in found.items()}
