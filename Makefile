# make train: LeNet-5 on real digits.   make test: everything that can be checked offline.
# make parity: our GPT, BERT and LLaMA beside those of transformers, graphs in onnxruntime, tasks of lm-evaluation-harness, the
# client of OpenAI.
# make wheel: the package as it is installed elsewhere, in an environment of its own.
# Each sets up its own virtual environment first; PYTHON=python3.12 make train chooses another Python.
PYTHON ?= python3
BIN := .venv/bin
PARITY := .venv-parity/bin

.PHONY: train test lint types bench parity wheel clean

train: .venv/ready
	$(BIN)/python train.py

test: .venv/ready-dev lint types
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: .venv/ready-dev
	$(BIN)/mypy

bench: .venv/ready-dev
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/decoding.py

parity: .venv-parity/ready
	$(PARITY)/python -m pytest tests/parity tests/inference/test_harness.py

wheel:
	PYTHON=$(PYTHON) .ci/wheel

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# what .venv has is used from there; only what the extra adds is installed
.venv-parity/ready: .venv/ready-dev
	$(BIN)/python -m venv .venv-parity
	$(PARITY)/python -c "import sys, sysconfig; open(sysconfig.get_path('purelib') + '/base.pth', 'w').write('import site; site.addsitedir(%r)\n' % sys.argv[1])" "$$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")"
	$(PARITY)/python -m pip install --quiet --disable-pip-version-check --editable '.[parity]'
	touch $@

clean:
	rm -rf .venv .venv-parity .mypy_cache .ruff_cache .pytest_cache build dist
