"""Pictures are drawn correctly at every size, and wrong arguments are refused."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from epochal.plots import canvas
from epochal.plots.canvas import LINES, MARGIN
from epochal.plots.charts import line_chart
from epochal.plots.heatmaps import CELL, GAP, attention_heatmap, confusion_matrix, heatmap, video_strips
from epochal.plots.images import animation, image_grid, to_uint8
from epochal.plots.terminal import grid_in_terminal, image_in_terminal

RANDOM = np.random.default_rng(0)
RED_FRAME, GREEN, RED = (200, 30, 30), "\x1b[32m", "\x1b[31m"


def images(count: int, channels: int = 1, side: int = 8) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def colors(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {tuple(color) for color in np.unique(np.asarray(picture).reshape(-1, 3), axis=0).tolist()}


def printed(renderable, width: int = 80) -> str:
    console = Console(width=width, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def has_white_edges(picture: Image.Image, width: int = 12) -> bool:
    pixels = np.asarray(picture).copy()
    pixels[width:-width, width:-width] = 255
    return bool((pixels == 255).all())


def test_drawing_loads_neither_torch_nor_matplotlib():
    code = "import epochal.plots.images, sys; sys.exit(bool({'torch', 'matplotlib', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_animation_shows_its_pictures_in_order_and_the_last_longest():
    pictures = [Image.new("RGB", (60, 40), color) for color in ("red", "lime", "blue")]
    shown = Image.open(io.BytesIO(animation([(f"step {n}", picture) for n, picture in enumerate(pictures)])))
    assert shown.n_frames == 3 and shown.info["loop"] == 0 and shown.size[0] == 60
    durations = []
    for number, color in enumerate(("red", "lime", "blue")):
        shown.seek(number)
        durations.append(shown.info["duration"])
        assert shown.convert("RGB").getpixel((30, 20)) == Image.new("RGB", (1, 1), color).getpixel((0, 0))
    assert durations[0] == durations[1] < durations[2]


def test_to_uint8_maps_low_to_black_and_high_to_white():
    values = np.array([-9, -1, 0, 1, 9, np.nan, np.inf])
    assert to_uint8(values, low=-1, high=1).tolist() == [0, 0, 128, 255, 255, 0, 255]
    assert to_uint8(np.arange(256) / 255, low=0, high=1).tolist() == list(range(256))


def test_to_uint8_refuses_an_empty_range():
    with pytest.raises(ValueError, match="low must be less than high"):
        to_uint8(np.zeros(3), low=1, high=1)


@pytest.mark.parametrize("side, cell", [(8, 96), (28, 84), (32, 96), (64, 64), (224, 96)])
def test_grid_draws_images_of_every_size_about_equally_large(side, cell):
    assert image_grid(images(1, 3, side)).size == (cell + 2 * MARGIN, cell + 2 * MARGIN)


def test_grid_keeps_every_pixel_of_a_small_image_sharp():
    image = images(1, 3, 8)
    drawn = np.asarray(image_grid(image))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert (drawn[6::12, 6::12] == image[0].transpose(1, 2, 0)).all()


@pytest.mark.parametrize("count, columns", [(1, 1), (3, 3), (8, 4), (10, 5), (16, 4), (32, 8), (64, 8), (100, 10)])
def test_grid_chooses_columns_that_fill_the_last_row(count, columns):
    assert image_grid(images(count)).size == image_grid(images(count), columns=columns).size


def test_grid_frames_only_the_mistakes_in_red():
    right = image_grid(np.zeros((2, 1, 8, 8), np.uint8), ["7", "1"], highlight=[False, False])
    wrong = image_grid(np.zeros((2, 1, 8, 8), np.uint8), ["7", "7 not 1"], highlight=np.array([False, True]))
    assert RED_FRAME not in colors(right)
    half = wrong.width // 2
    assert RED_FRAME not in colors(wrong.crop((0, 0, half, wrong.height)))
    assert RED_FRAME in colors(wrong.crop((half, 0, wrong.width, wrong.height)))


def test_grid_breaks_long_captions_and_truncates_long_words():
    width = 110
    assert canvas.wrap("automobile not truck", 13, width) == ["automobile not", "truck"]
    assert canvas.wrap("one\ntwo", 13, width) == ["one", "two"]
    (cut,) = canvas.wrap("x" * 99, 13, width)
    assert cut.endswith("…") and canvas.text_width(cut, 13) <= width


def test_grid_leaves_a_margin_around_captions_and_title():
    assert has_white_edges(image_grid(images(9), ["automobile not truck"] * 9, title="A title " * 9))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"images": np.zeros((2, 1, 8, 8))}, "uint8"),
        ({"images": images(2)[0]}, r"\(N, 1 or 3, H, W\)"),
        ({"images": images(0)}, r"\(N, 1 or 3, H, W\)"),
        ({"images": images(2), "captions": ["7"]}, "captions has 1 entries for 2 images"),
        ({"images": images(2), "highlight": [True]}, "highlight has 1 entries for 2 images"),
    ],
)
def test_grids_refuse_wrong_arguments(given, message):
    for draw in image_grid, grid_in_terminal:
        with pytest.raises(ValueError, match=message):
            draw(**given)


@pytest.mark.parametrize("classes", [1, 2, 10, 30, 31, 100, 300])
@pytest.mark.parametrize("name", ["7", "automobile", "a name that never ends" * 4])
def test_confusion_matrix_fits_any_number_and_length_of_classes(classes, name):
    counts = RANDOM.integers(0, 12_000, (classes, classes))
    picture = confusion_matrix(counts, [name] * classes, title="LeNet-5 on MNIST")
    assert has_white_edges(picture) and max(picture.size) < 1600


def test_confusion_matrix_shows_one_mistake_in_a_thousand_beside_a_dark_diagonal():
    perfect, nearly = np.diag([1000, 1000, 1000]), np.diag([1000, 1000, 999])
    nearly[2, 0] = 1
    before, after = (np.asarray(confusion_matrix(c, ["a", "b", "c"]), int) for c in (perfect, nearly))
    assert (abs(before - after).max(axis=2) > 20).sum() > 5000  # a whole cell


def test_confusion_matrix_draws_a_class_without_examples_without_a_warning(recwarn):
    confusion_matrix(np.array([[3, 0], [0, 0]]), ["a", "b"])
    assert not recwarn.list


def test_confusion_matrix_needs_a_name_for_each_class():
    with pytest.raises(ValueError, match=r"counts must have shape \(3, 3\) for 3 names, not \(2, 2\)"):
        confusion_matrix(np.eye(2, dtype=int), ["a", "b", "c"])


def test_line_chart_draws_each_line_in_its_own_color():
    series = {f"run {index}": ([0, 1], [index, index + 1]) for index in range(7)}
    assert set(LINES) <= colors(line_chart(series, "Loss", "step", "nats"))


def test_line_chart_leaves_out_values_that_are_not_finite():
    clean = line_chart({"loss": ([1, 2, 4], [3, 2, 1])}, "Loss", "step", "nats")
    holes = line_chart({"loss": ([1, 2, 3, 4, 5], [3, 2, np.nan, 1, np.inf])}, "Loss", "step", "nats")
    assert clean.tobytes() == holes.tobytes()


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"nothing": ([], [])},
        {"diverged": ([1, 2], [np.nan, np.nan])},
        {"one point": ([5], [0.7])},
        {"constant": ([1, 2, 3], [0, 0, 0])},
        {"nearly constant": ([1, 2], [0.3, 0.1 + 0.2])},
        {"tiny": ([0, 1], [1e-12, 2e-12])},
        {"exploded": ([0, 10**8], [1e-3, 1e30])},
        {"noise": (range(20_000), RANDOM.normal(size=20_000))},
        {f"a run with a long name {index}" * 3: ([1, 2], [index, -index]) for index in range(12)},
    ],
    ids=lambda series: next(iter(series), "no series")[:12],
)
def test_line_chart_draws_all_kinds_of_series(series, recwarn):
    picture = line_chart(series, "A title that never ends " * 9, "step", "loss")
    assert picture.size == (960, 560) and has_white_edges(picture) and not recwarn.list


@pytest.mark.parametrize(
    "low, high, texts",
    [
        (0, 1, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (0.03, 2.31, "0.0 0.5 1.0 1.5 2.0 2.5"),
        (0.912, 0.958, "0.91 0.92 0.93 0.94 0.95 0.96"),
        (-1200, 2600, "-2,000 -1,000 0 1,000 2,000 3,000"),
    ],
)
def test_ticks_are_round_numbers_that_enclose_the_data(low, high, texts):
    assert canvas.ticks(low, high, 6, beyond=True)[1] == texts.split()


def test_ticks_of_whole_steps_are_whole():
    assert canvas.ticks(1, 3, 8, whole=True) == ([1, 2, 3], ["1", "2", "3"])


def test_image_in_terminal_draws_two_pixels_in_each_character():
    text = image_in_terminal(np.array([[0, 255], [128, 0], [7, 9]], np.uint8))
    assert text.plain == "▀▀\n▀▀"
    first, last = text.spans[0].style, text.spans[-1].style
    assert first.color.triplet == (0, 0, 0) and first.bgcolor.triplet == (128, 128, 128)
    assert last.color.triplet == (9, 9, 9) and last.bgcolor is None


def test_image_in_terminal_draws_colors():
    style = image_in_terminal(np.array([[[1, 2, 3]], [[4, 5, 6]]], np.uint8)).spans[0].style
    assert style.color.triplet == (1, 2, 3) and style.bgcolor.triplet == (4, 5, 6)


def test_grid_in_terminal_writes_right_captions_green_and_wrong_ones_red():
    output = printed(grid_in_terminal(images(2), ["7", "7 not 1"], highlight=[False, True]))
    assert f"{GREEN}7" in output and f"{RED}7 not 1" in output


@pytest.mark.parametrize("width, columns, lines", [(80, 8, 2), (200, 8, 1), (200, 4, 2), (20, 8, 8)])
def test_grid_in_terminal_fits_the_terminal(width, columns, lines):
    output = printed(grid_in_terminal(images(8, 3, 28), columns=columns), width)
    assert output.count("▀") == 8 * 14 * 7
    assert output.count("\n") == lines * 8  # seven lines of blocks and an empty one


@pytest.mark.parametrize("side", [32, 96, 200])
def test_grid_draws_images_at_most_side_pixels_large(side):
    picture = image_grid(images(1, 3, 16), side=side)
    assert picture.width == side // 16 * 16 + 2 * MARGIN


def test_line_chart_draws_dots_without_a_line():
    blue = LINES[0]
    joined, apart = (
        (np.asarray(line_chart({"a": ([0, 1], [0, 1])}, "t", "x", "y", dots=dots)) == blue).all(2).sum()
        for dots in ((), ("a",))
    )
    assert 0 < apart < joined / 5


def test_heatmap_is_darker_for_larger_weights():
    picture = np.asarray(heatmap(np.array([[0.0, 0.2, 0.5, 1.0]]), ["to"], ["a", "b", "c", "d"]).convert("L"))
    cells = picture[-CELL // 2 - 4, -4 * CELL + 8 :: CELL].astype(int)
    assert len(cells) == 4 and (np.diff(cells) < -20).all()


def test_heatmap_truncates_long_labels_and_needs_one_for_each_row_and_column():
    assert max(heatmap(np.zeros((2, 2)), ["x" * 99, "y"], ["z" * 99, "w"]).size) < 220
    with pytest.raises(ValueError, match=r"weights must have shape \(1, 2\) for its labels, not \(2, 2\)"):
        heatmap(np.zeros((2, 2)), ["a"], ["b", "c"])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_attention_heatmaps_stand_in_two_columns_with_a_margin(count):
    picture = attention_heatmap([np.eye(3)] * count, [["a", "b", "c"]] * count, [["d", "e", "f"]] * count, "A title")
    assert has_white_edges(picture)
    assert picture.height > (250 if count > 2 else 150)


def test_videos_frame_only_wrong_frames_in_red_and_may_differ_in_length():
    strips, words = [images(3, 1, 8), images(2, 3, 8)], [["1", "2", "3"], ["4", "5"]]
    right = video_strips(strips, words, title="Videos")
    wrong = video_strips(strips, words, [[False, False, True], [False, False]], title="Videos")
    assert RED_FRAME not in colors(right) and RED_FRAME in colors(wrong)
    assert RED_FRAME not in colors(wrong.crop((0, 0, MARGIN + 2 * 68 + GAP, wrong.height)))
    assert has_white_edges(wrong)
