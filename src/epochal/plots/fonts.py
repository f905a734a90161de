"""A font for every character: Pillow's own for ASCII, those in `typefaces/`, and those of the system."""

from __future__ import annotations

import functools
import os
import re
import struct
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ImageFont, features

from epochal.core.format import say

# Latin, Greek, Cyrillic, Hebrew, Arabic, Hangul, kana, Devanagari and Thai
SHIPPED = Path(__file__).with_name("typefaces")
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# of several fonts with a character: a plain one is better than a bold or a serif one
DECORATED = re.compile(r"bold|italic|oblique|black|heavy|light|thin|condensed|mono|serif|medium|display|demi", re.I)
PLAIN = re.compile(r"sans|gothic|noto|emoji|arial|segoe|malgun|yahei|pingfang|nirmala", re.I)
USELESS = re.compile(r"lastresort|adobeblank", re.I)  # have a box for every character
STRIKES = (109, 160, 136, 128, 96, 64, 48, 32)  # pixels, of the bitmaps of emoji
JOINERS = "\u200c\u200d\ufe0e\ufe0f"
SHAPED = re.compile("[\u0590-\u08ff\u0900-\u0fff\u1000-\u109f\u1780-\u17ff\ufb1d-\ufdff\ufe70-\ufeff]")
PACKAGES = {  # on Debian and Ubuntu, by script
    **dict.fromkeys(("Hangul", "CJK", "Hiragana", "Katakana", "Bopomofo"), "fonts-noto-cjk"),
    "emoji": "fonts-noto-color-emoji",
}

_told: set[str] = set()  # what the user was told once


class Face:
    """A font file, and the characters that it has.

    Args:
        file: Of TrueType or OpenType; of a collection the first font counts.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sizes: dict[int, tuple[ImageFont.FreeTypeFont, float]] = {}

    def at(self, size: int) -> tuple[ImageFont.FreeTypeFont, float]:
        """The font, and the factor by which it must be scaled to be `size` pixels high: 1, unless it has only bitmaps.

        Raises:
            OSError: If it cannot be read.
        """
        if size not in self._sizes:
            for tried in (size, *STRIKES):
                try:
                    self._sizes[size] = ImageFont.truetype(str(self.file), tried), size / tried
                    break
                except OSError:
                    continue
            else:
                raise OSError(f"{self.file} cannot be read")
        return self._sizes[size]

    def has(self, text: str) -> bool:
        """Whether it can draw all characters of the text; joiners need not be drawn."""
        return all(self._has(character) for character in text if character not in JOINERS)

    @functools.cached_property
    def _characters(self) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last character of each range that the font knows of, ascending."""
        try:
            found = character_ranges(self.file)
        except (OSError, struct.error, ValueError, IndexError):  # damaged, or of another kind
            found = np.zeros((0, 2), np.int64)
        return found[:, 0], found[:, 1]

    @functools.cache  # noqa: B019  # as many as there are fonts, kept to the end
    def _has(self, character: str) -> bool:
        firsts, lasts = self._characters
        place = int(np.searchsorted(firsts, ord(character), side="right")) - 1
        if place < 0 or ord(character) > lasts[place]:
            return False
        try:
            font, _ = self.at(16)
            glyph, lacking = (font.getmask(c, "L") for c in (character, "\U0010ffff"))
        except OSError:
            return False
        # a range may have gaps, and glyphs of a kind that cannot be drawn are empty
        empty = glyph.getbbox() is None and not character.isspace()
        return not empty and (glyph.size, bytes(glyph)) != (lacking.size, bytes(lacking))


class Run(NamedTuple):
    """Neighbouring characters of one font; None is that of Pillow."""

    text: str
    face: Face | None


def folders() -> list[Path]:
    """Where fonts are installed, the user's own folder first."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")
        return [Path(local) / "Microsoft/Windows/Fonts", Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts"]
    if sys.platform == "darwin":
        return [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    own = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    shared = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    return [own / "fonts", home / ".fonts", *(Path(place) / "fonts" for place in shared if place)]


@functools.cache
def faces() -> tuple[Face, ...]:
    """All fonts, the best first: those that come with Epochal, then those of the system, plain ones before others."""
    found = {file for folder in folders() for file in _files(folder)}

    def order(file: Path) -> tuple[bool, bool, int, str]:
        return bool(DECORATED.search(file.stem)), not PLAIN.search(file.stem), len(file.stem), str(file)

    return tuple(Face(file) for file in [*sorted(_files(SHIPPED)), *sorted(found, key=order)])


def _files(folder: Path) -> Iterator[Path]:
    for name, _, files in os.walk(folder):
        here = Path(name)
        yield from (here / f for f in files if f.lower().endswith(SUFFIXES) and not USELESS.search(f))


@functools.lru_cache(4096)
def runs(text: str) -> tuple[Run, ...]:
    """The text as it is drawn, from left to right, cut where another font is needed.

    What no font has is drawn as a box, and told once. Accents that stand by themselves are joined with their letters,
    as in names of files on a Mac.
    """
    text = drawable(text)
    if text.isascii():
        return (Run(text, None),) if text else ()
    _check_shaping(text)
    found: list[Run] = []
    for cluster in clusters(text):
        last = found[-1].face if found else None
        goes_on = last.has(cluster) if last is not None else bool(found) and cluster.isascii()
        face = last if goes_on else first_face(cluster)
        if found and face is last:
            found[-1] = Run(found[-1].text + cluster, face)
        else:
            found.append(Run(cluster, face))
    check(text)
    whole = next((run.face for run in found if run.face is not None and run.face.has(text)), None)
    return (Run(text, whole),) if whole is not None else tuple(_in_visual_order(found))


def drawable(text: str) -> str:
    """The text in one line, with composed accents, and without what cannot be encoded."""
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return unicodedata.normalize("NFC", text).encode("utf-8", "replace").decode()


def clusters(text: str) -> list[str]:
    """The characters of the text, each with the marks, joiners and skin tones that follow it."""
    found: list[str] = []
    for character in text:
        joined = character in JOINERS or unicodedata.category(character).startswith("M")
        joined |= "\U0001f3fb" <= character <= "\U0001f3ff"
        if found and (joined or found[-1].endswith("\u200d")):
            found[-1] += character
        else:
            found.append(character)
    return found


@functools.lru_cache(65536)
def first_face(cluster: str) -> Face | None:
    """The first font that has the character with all its marks, or the character alone."""
    for wanted in dict.fromkeys((cluster, cluster[0])):
        if (face := next((face for face in faces() if face.has(wanted)), None)) is not None:
            return face
    return None


def check(text: str) -> None:
    """Tells once which script of a text no font here can show."""
    lacking: dict[str, list[str]] = {}
    for cluster in clusters(text) if not text.isascii() else ():
        if not cluster.isascii() and not cluster.isspace() and first_face(cluster) is None:
            lacking.setdefault(_script(cluster[0]), []).append(cluster)
    for script, characters in lacking.items():
        package = PACKAGES.get(script, "fonts-noto-core")
        _tell(
            script,
            f"No font here has {''.join(list(dict.fromkeys(characters))[:8])} ({script}), so pictures show boxes "
            f"for it: install one that has, such as Noto (on Debian and Ubuntu the package {package}), or put its file "
            f"into {folders()[0]}.",
        )


def _script(character: str) -> str:
    """Hangul, CJK, Devanagari ...; emoji."""
    if unicodedata.category(character) == "So":
        return "emoji"
    word = unicodedata.name(character, f"U+{ord(character):04X}").partition(" ")[0]
    return word.capitalize() if word.isalpha() and word != "CJK" else word


def _check_shaping(text: str) -> None:
    if SHAPED.search(text) and not (features.check("raqm") and features.check("fribidi")):
        _tell(
            "shaping",
            "Pillow has no libraqm here, so pictures show Arabic, Hebrew, Hindi and the like letter by letter from left "
            "to right; the terminal, texts and pages show them right.",
        )


def _tell(topic: str, sentence: str) -> None:
    if topic not in _told:
        _told.add(topic)
        say(sentence)


def _in_visual_order(found: Iterable[Run]) -> list[Run]:
    """Runs from left to right: those of one direction keep together, and go the other way in a text of the other."""
    found = list(found)
    directions: list[bool | None] = [_is_rtl(run.text) for run in found]
    base = next((direction for direction in directions if direction is not None), False)
    groups: list[tuple[bool, list[Run]]] = []
    for run, direction in zip(found, directions):
        rtl = direction if direction is not None else groups[-1][0] if groups else base
        if groups and groups[-1][0] == rtl:
            groups[-1][1].append(run)
        else:
            groups.append((rtl, [run]))
    ordered = [group[::-1] if rtl else group for rtl, group in groups]
    return [run for group in (ordered[::-1] if base else ordered) for run in group]


def _is_rtl(text: str) -> bool | None:
    """Whether the text is written from right to left, by its first letter or digit; None if it has neither."""
    kinds = map(unicodedata.bidirectional, text)
    return next((kind in ("R", "AL") for kind in kinds if kind in ("R", "AL", "L", "EN")), None)


def character_ranges(file: Path) -> np.ndarray:
    """Ranges (N, 2) of characters that a font file may have, ascending, from its table `cmap`.

    Raises:
        OSError, struct.error, ValueError, IndexError: If it is no font.
    """
    with file.open("rb") as stream:

        def read(form: str, start: int) -> tuple[int, ...]:
            stream.seek(start)
            return struct.unpack(f">{form}", stream.read(struct.calcsize(f">{form}")))

        start = read("I", 12)[0] if read("4s", 0)[0] == b"ttcf" else 0
        tables = (read("4sIII", start + 12 + 16 * n) for n in range(read("H", start + 4)[0]))
        cmap = next(offset for tag, _, offset, _ in tables if tag == b"cmap")
        kinds = [read("HHI", cmap + 4 + 8 * n) for n in range(read("H", cmap + 2)[0])]
        unicode = {
            read("H", cmap + offset)[0]: cmap + offset for at, kind, offset in kinds if at in (0, 3) and kind != 14
        }
        if table := unicode.get(12):
            (count,) = read("I", table + 12)
            groups = np.array(read(f"{3 * count}I", table + 16), np.int64).reshape(count, 3)
            return groups[:, :2]
        table = unicode.get(4, -1)
        if table < 0:
            raise ValueError("no table of Unicode characters")
        count = read("H", table + 6)[0] // 2
        lasts, firsts = read(f"{count}H", table + 14), read(f"{count}H", table + 16 + 2 * count)
        return np.array([firsts, lasts], np.int64).T
