"""Every script is drawn with a font that has it, from right to left where it is written so; nothing is silently a box."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from rich.console import Console

from epochal.core.format import cell_width, fitted
from epochal.plots import fonts, vega
from epochal.plots.braille import Bar, Line, bar_plot, line_plot
from epochal.plots.canvas import text_width, truncate, wrap
from epochal.plots.heatmaps import attention_heatmap, confusion_matrix
from epochal.plots.images import image_grid, text_image

SHIPPED = {
    "Korean": "고양이",
    "Korean and English": "[red]곰 cat 3",
    "kana": "ねこ カタカナ",
    "German": "für Größe",
    "Vietnamese": "tiếng Việt",
    "Greek": "Ελληνικά",
    "Russian": "Жук",
    "Hindi": "हिन्दी",
    "Arabic": "مرحبا",
    "Hebrew": "שלום",
    "Thai": "ภาษาไทย",
    "an emoji": "😀",
}


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No fonts but those that come with Epochal, and nothing told yet."""
    monkeypatch.setattr(fonts, "folders", lambda: [tmp_path / "fonts"])
    monkeypatch.setattr(fonts, "_told", set())
    forget()
    yield
    forget()


def forget() -> None:
    for cached in (fonts.faces, fonts.runs, fonts.first_face):
        cached.cache_clear()


def ink(text: str) -> np.ndarray:
    """Pixels of the text, (H, W), of which dark ones are True."""
    return np.asarray(text_image(text, 400, 20).convert("L")) < 128


@pytest.mark.parametrize("text", SHIPPED.values(), ids=SHIPPED)
def test_each_character_has_a_glyph_of_its_own(text, capsys):
    assert all(run.face is not None for run in fonts.runs(text))
    boxes = "\uffff" * len(text)
    assert ink(text).any() and not np.array_equal(ink(text), ink(boxes))
    assert capsys.readouterr().err.count("No font") <= 1, "only the boxes are told"


@pytest.mark.parametrize("a, b", [("für", "fur"), ("ß", "ss"), ("é", "e"), ("고양이", "강아지"), ("ñ", "n")])
def test_different_names_look_different(a, b):
    assert not np.array_equal(ink(a), ink(b))


@pytest.mark.parametrize("apart, joined", [("fu\u0308r", "für"), ("\u1100\u1169\u110b\u1163\u11bc", "고양")])
def test_names_of_files_on_a_mac_are_joined(apart, joined):
    assert np.array_equal(ink(apart), ink(joined))


def test_what_no_font_has_is_told_once(capsys):
    for _ in range(2):
        assert fonts.runs("狗cat") == (("狗cat", None),)
        confusion_matrix(np.eye(2, dtype=int), ["狗", "🦜"])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("No font here has 狗 (CJK)") and "fonts-noto-cjk" in said[0]
    assert said[1].startswith("No font here has 🦜 (emoji)") and "fonts-noto-color-emoji" in said[1]


def test_a_font_in_the_folder_of_the_system_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "SHIPPED", tmp_path / "none")
    forget()
    assert fonts.runs("für")[-1].face is None
    shipped = Path(fonts.__file__).with_name("typefaces")
    (tmp_path / "fonts" / "deep").mkdir(parents=True)
    for name in ("a Bold.ttf", "Sans.TTF"):
        (tmp_path / "fonts" / "deep" / name).write_bytes((shipped / "DejaVuSans.ttf").read_bytes())
    (tmp_path / "fonts" / "damaged Sans.ttf").write_bytes(b"\0\1\0\0" + b"\xff" * 90)
    (tmp_path / "fonts" / "AdobeBlank.otf").write_bytes((shipped / "DejaVuSans.ttf").read_bytes())
    forget()
    assert [run.face.file.name for run in fonts.runs("für")] == ["Sans.TTF"]


@pytest.mark.parametrize(
    "text, right",
    [
        ("狗 고양이", ["狗 ", "고양이"]),
        ("abc 狗 שלום", ["abc ", "狗 ", "שלום"]),
        ("שלום 狗 हिन्दी", ["狗 ", "हिन्दी", "שלום "]),
        ("a\nb", ["a b"]),
        ("\udcff", ["?"]),
        ("", []),
    ],
)
def test_runs_stand_from_left_to_right(text, right):
    assert [run.text for run in fonts.runs(text)] == right


@pytest.mark.skipif(not features.check("raqm"), reason="Pillow has no libraqm here")
def test_letters_are_shaped_and_ordered():
    assert text_width("ببب", 20) < 3 * text_width("ب", 20) - 5, "joined"
    assert text_width("सत्य", 20) < sum(text_width(letter, 20) for letter in "सतय") + 3, "a conjunct"
    left = text_width("ב", 20) - 2
    assert np.array_equal(ink("אב")[:, :left], ink("ב")[:, :left]), "from right to left"


def test_without_shaping_it_is_told(monkeypatch, capsys):
    monkeypatch.setattr(fonts.features, "check", lambda name: name != "raqm")
    fonts.runs("مرحبا"), fonts.runs("שלום")
    assert capsys.readouterr().err.count("Pillow has no libraqm here") == 1


def test_texts_are_cut_between_letters():
    assert fonts.clusters("हिन्दी👍🏽e\u0301👩\u200d👧") == ["हि", "न्", "दी", "👍🏽", "e\u0301", "👩\u200d👧"]
    cut = truncate("हिन्दी" * 20, 14, 100)
    assert text_width(cut, 14) <= 100 and cut.removesuffix("…") in ("हिन्दी" * 20) and not cut[:-1].endswith("न")
    lines = wrap("ねこが いぬを みて にげていきました" * 2, 13, 60)
    assert "".join(lines) == "ねこがいぬをみてにげていきました" * 2 or "…" not in "".join(lines)
    assert all(text_width(line, 13) <= 60 for line in lines)


def test_pictures_of_all_scripts_are_made():
    names = [*SHIPPED.values(), "狗", "🦜"]
    count = len(names)
    matrix = confusion_matrix(np.eye(count, dtype=int), names, "für 고양이")
    grid = image_grid(np.zeros((count, 1, 8, 8), np.uint8), names, title="שלום", highlight=[True] * count)
    attention = attention_heatmap([np.eye(count)], [names], [names], "مرحبا")
    assert all(isinstance(picture, Image.Image) for picture in (matrix, grid, attention))


def test_figures_show_them_too(tmp_path, capsys):
    def figure(name: str) -> bytes:
        mark = {"mark": "point", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x", "title": name}}}
        vega.save(vega.specification([mark], ""), tmp_path, "x")
        return np.asarray(Image.open(tmp_path / "x.png").convert("L"))

    assert not np.array_equal(figure("고양이"), figure("강아지")), "boxes"
    assert capsys.readouterr().err == ""
    figure("狗")
    assert "No font here has 狗" in capsys.readouterr().err
    assert "고양이" in json.dumps(vega.specification([], "고양이"), ensure_ascii=False)


def test_names_are_aligned_in_the_terminal():
    assert cell_width("고양이") == 6 and cell_width("abc") == 3
    assert fitted("고양이", 8) == "고양이  " and fitted("고양이", 8, right=True) == "  고양이"
    assert cell_width(fitted("고양이 강아지", 8)) == 8 and fitted("고양이 강아지", 8).rstrip().endswith("…")
    text = bar_plot([Bar("고양이", 1.0, "1"), Bar("cat", 1.0, "1")], 60, title="x").plain.splitlines()[1:]
    assert len({cell_width(line[: line.index("█")]) for line in text}) == 1
    lines = [Line("고양이" * 12, np.arange(3.0), np.arange(3.0))]
    plot = line_plot(lines, 60, title="", x_title="", x_ends=("0", "2"), y_ends=("0", "2"), marks=False)
    console = Console(width=60, file=io.StringIO())
    console.print(plot, no_wrap=True, end="")
    assert all(cell_width(line) <= 60 for line in plot.plain.splitlines())
