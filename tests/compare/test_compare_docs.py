"""The section of a claim that is made from its runs, and the record of these that is judged again without them."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import pytest

from epochal.compare import statistics
from epochal.compare.command import main
from epochal.compare.report import docs
from epochal.compare.request import Request
from epochal.core.errors import ConfigError
from helpers.run_folders import claim_grid, run_folder

PAGE = """# The claims

## pooling

> Another claim.

## depth_degradation

> Deeper is worse.

**What it does not show.** By hand.

## vgg

> A third one.
"""


@pytest.fixture
def place(home):
    """Runs of a claim in outputs, and docs with a claims.md."""
    errors = {(model, depth): [0.195, 0.20, 0.205] for model in ("plain", "resnet") for depth in (8, 44)}
    errors["plain", 44] = [0.395, 0.40, 0.405]
    claim_grid(home / "outputs" / "depth_degradation", "depth_degradation", "cpu", errors)
    (home / "docs").mkdir()
    (home / "docs" / "claims.md").write_text(PAGE)
    return home


def test_the_section_is_made_from_the_runs_and_made_again(place, capsys):
    main(["experiment=depth_degradation", "budget=cpu", "--docs"])
    assert "docs/claims.md" in capsys.readouterr().out
    text = (place / "docs" / "claims.md").read_text()
    section = text[text.index("## depth_degradation") : text.index("## vgg")]
    assert "**What it does not show.** By hand." in section
    assert "python compare.py experiment=depth_degradation budget=cpu --docs" in section
    assert "**Verdict: supported.** Each of its 7 tests is supported." in section
    assert re.search(
        r"at the published rate, fits worse than the shallow one .* \| \+20.00 points \| \+18.\d+ to \+21.\d+ \| 3 \| supported \|",
        section,
    )
    assert "| plain | 44 | 0.1 | 40.00 ± 0.50 % |" in section
    assert (place / "docs" / "pictures" / "depth_degradation.png").read_bytes().startswith(b"\x89PNG")
    assert text.startswith(PAGE[: PAGE.index("**What")]) and "> A third one." in text
    main(["experiment=depth_degradation", "budget=cpu", "--docs"])
    assert (place / "docs" / "claims.md").read_text() == text


def test_runs_of_several_tasks_have_a_table_each_with_their_own_keys_and_values(home):
    for judge in ("first", "second"):
        read = {"task.name": "classification", "task.judge": f"/elsewhere/{judge}"}
        run_folder(home / "runs", judge, metrics={"test/error": 0.25}, config=read)
    run_folder(home / "runs", "before", model="vit", metrics={"val/loss": 1.0}, config={"task.name": "masked_patch"})
    comparison = Request(paths=(str(home / "runs"),), x="seed", y="test/error").compare()
    lines = docs._groups(comparison)
    assert lines[0] == "classification, digits:" and lines[2].startswith("| judge | test error | n |")
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| first", "| second"], "no folder of a machine"


def test_the_row_of_the_readme_gets_verdict_cost_and_evidence(place):
    row = "| Deeper is worse | [depth_degradation](docs/claims.md#depth_degradation) |"
    (place / "README.md").write_text(
        f"# Us\n\n| claim | experiment |\n|---|---|\n{row} old | cells | here |\n\nThe end.\n"
    )
    comparison = Request(experiment="depth_degradation", budget="cpu").compare()
    assert place / "README.md" in docs.write(comparison, place / "docs")
    text = (place / "README.md").read_text()
    made = text[text.index(row) + len(row) : text.index("\n\nThe end.")]
    assert re.fullmatch(
        r" supported \| 18 runs, .+ \| closest of 7 tests: .+ \(.+ to .+, margin \+2.00 points\), 3 seeds \|", made
    )
    assert docs.in_table("no table", "depth_degradation", comparison) is None


def test_a_claim_without_a_section_gets_one_at_the_end(place):
    (place / "docs" / "claims.md").write_text("# The claims\n")
    docs.write(Request(experiment="depth_degradation", budget="cpu").compare(), place / "docs")
    assert (
        (place / "docs" / "claims.md").read_text().startswith("# The claims\n\n## depth_degradation\n\n> Deeper plain")
    )


def test_the_record_is_judged_as_the_runs_were(place, monkeypatch):
    run_folder(
        place / "outputs" / "depth_degradation",
        "lost",
        seed=4,
        status="failed",
        config={"experiment": "depth_degradation", "budget": "cpu"},  # of another design
    )
    comparison = Request(experiment="depth_degradation", budget="cpu").compare()
    docs.write(comparison, place / "docs")
    record = place / "docs" / "records" / "depth_degradation_cpu.csv"
    text = record.read_text()
    assert str(place) not in text and len(text.splitlines()) == 19 and len(text) < 5000
    again = Request(paths=(str(record),)).compare()
    assert again.verdict == comparison.verdict
    assert (
        again.footnote
        == comparison.footnote.partition(" Left out")[0] + " Verdict" + comparison.footnote.partition(" Verdict")[2]
    )
    changed = re.sub(r"\b[0-9a-f]{12}\b", "0" * 12, text)
    record.write_text(changed)
    assert (
        "18 runs of a record had another config than the experiment has now."
        in Request(paths=(str(record),)).compare().footnote
    )


@pytest.mark.parametrize(
    ("scales", "head", "cells"),
    [
        (("log",), "ratio", ["| ×2.000 | 1.600 to 2.500 |"]),
        (("log", None), "difference or ratio (×)", ["| ×2.000 | 1.600 to 2.500 |", "| +20.00 points | +1"]),
        ((None,), "difference", ["| +20.00 points | +1"]),
    ],
)
def test_ratios_are_written_as_such_in_the_table_of_tests(scales, head, cells):
    spans = (math.log(2), (math.log(1.6), math.log(2.5))), (0.2, (0.15, 0.25))
    tests = [
        statistics.Tested(
            "it is worse", "supported", "", "test/error", (5, 5), *spans[scale is None], log=scale == "log"
        )
        for scale in scales
    ]
    lines = docs._tests(SimpleNamespace(verdict=statistics.Verdict("supported", "", tuple(tests))))
    assert f"| {head} | 95 % interval |" in lines[0]
    assert all(cell in line for cell, line in zip(cells, lines[2:], strict=True))


@pytest.mark.parametrize(
    "text, says",
    [
        ("a,b\n1,2\n", "is no record of runs"),
        ("", "is no record of runs"),
        (
            "{head}\ndepth_degradation,cpu,[],1,finished,False,,,,,,,,x\n",
            "is no record of runs: line 2 is none of the grid",
        ),
        ("{head}\ndepth_degradation,cpu,nonsense,1,finished,False,,,,,,,,1\n", "is no record of runs"),
    ],
)
def test_a_wrong_record_ends_in_a_sentence(home, text, says):
    head = "experiment,budget,overrides,seed,status,diverged,error,commit,config,val_examples,test_examples,best_metric,best,seconds"
    (home / "record.csv").write_text(text.format(head=head))
    with pytest.raises(ConfigError, match=says):
        Request(paths=("record.csv",)).compare()


def test_a_claim_whose_runs_go_on_is_not_written(place, capsys):
    summary = next((place / "outputs" / "depth_degradation").glob("*/summary.json"))
    summary.write_text(summary.read_text().replace('"finished"', '"running"'))
    before = (place / "docs" / "claims.md").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["experiment=depth_degradation", "budget=cpu", "--docs"])
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2 and "1 run of experiment=depth_degradation has not ended" in said
    assert (place / "docs" / "claims.md").read_text() == before and not (place / "docs" / "records").exists()


def test_what_cannot_be_written_is_told(home):
    run_folder(home / "outputs" / "runs", "a")
    with pytest.raises(ConfigError, match="choose one with experiment="):
        docs.write(Request().compare(), home / "docs")
    claim_grid(home / "outputs" / "depth_degradation", "depth_degradation", "cpu", {("plain", 8): [0.1]})
    comparison = Request(experiment="depth_degradation", budget="cpu").compare()
    with pytest.raises(ConfigError, match=r"There is no .*claims.md; --docs is for a checkout"):
        docs.write(comparison, home / "docs")
    comparison.drawn.clear()
    with pytest.raises(ConfigError, match="is of its own design"):
        docs.write(comparison, home / "docs")
