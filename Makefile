# make train: LeNet-5 on real digits.   make test: everything that can be checked offline.
# make wheel: the package as it is installed elsewhere, in an environment of its own.
# Each sets up its own virtual environment first; PYTHON=python3.12 make train chooses another Python.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test lint types bench wheel clean

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

wheel:
	PYTHON=$(PYTHON) .ci/wheel

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
