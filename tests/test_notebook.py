"""The notebook of docs/ runs from its first cell to its last, in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow  # it trains on MNIST-like digits twice, in a kernel of its own


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the code cells show, a dict of text by MIME type for each output of each cell."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPOCHAL_CACHE", str(folder / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{"source": cell.source, "outputs": json.dumps(cell.outputs, ensure_ascii=False)} for cell in cells]


def shown(outputs: list[dict[str, Any]], source: str) -> str:
    return next(cell["outputs"] for cell in outputs if source in cell["source"])


def test_training_shows_a_progress_bar_and_the_result(outputs):
    text = shown(outputs, '"model=lenet", "dataset=digits"')
    assert "<progress" in text
    assert "test/accuracy" in text
    assert "lenet on digits, classification" in text


def test_most_digits_are_recognised(outputs):
    text = shown(outputs, "predictions = run.predict")
    printed = "".join(output["text"] for output in json.loads(text) if output["output_type"] == "stream")
    predicted = [word for word in printed.split("truth:")[0].replace(",", " ").split() if word.isdigit()]
    truth = printed.split("truth:")[1].split()
    assert len(predicted) == len(truth) == 8
    assert sum(p == t for p, t in zip(predicted, truth)) >= 6


def test_the_comparison_shows_itself(outputs):
    text = shown(outputs, "epochal.compare(")
    assert "<svg" in text and "<table" in text


def test_an_error_is_a_sentence(outputs):
    assert "Did you mean resnet?" in shown(outputs, "model=resent")


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(Path(ROOT / "docs" / "notebook.ipynb"), as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
