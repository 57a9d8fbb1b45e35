# The two commands are `make compare` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
NATIVE := $(wildcard native/*)

# pip says nothing where the compiled kernels could not be built
KERNELS := $(BIN)/python -c 'from elman.kernels import native as n; print("Compiled kernels:", \
  n.available() and n.require().instruction_set() or "none (no C++20 compiler?); everything runs on torch")'

.PHONY: compare bench fuzz faults test lint format clean
.DEFAULT_GOAL := compare

# The main job: n-grams, feed-forward, RNN, GRU, LSTM and a mixture on one text, one table, one page.
# More: make compare PRESET=quick|default|full CORPUS=sotu-modern|FOLDER|FILE
PRESET ?= default
CORPUS ?= sotu-modern
compare: export TEXT := $(CORPUS)
compare: .venv/compare.stamp
	@name=$$($(BIN)/python -c 'import os; print(os.path.basename(os.path.abspath(os.environ["TEXT"])))'); \
	set -x; $(BIN)/elman compare "$$TEXT" --preset $(PRESET) --save "runs/compare-$$name-$(PRESET)"

# Speed beside PyTorch and what else is installed, every row: half an hour of a machine that does nothing else.
# More: make bench BENCH="--quick", BENCH="--rows lstm-2x200 --rounds 15 --scaling"; results/speed-$(NAME).json
NAME ?= here
bench: .venv/compare.stamp
	$(BIN)/python benchmarks/speed.py $(NAME) $(BENCH)

# Hostile bytes to everything that is read, guided by coverage: every target for TIME seconds, or TARGET=name.
# What fails is kept in .fuzz/crashes/ with the command that runs it again; results/fuzz.json counts.
TIME ?= 60
fuzz: .venv/test.stamp
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --constraint constraints.txt atheris || \
	  echo "atheris cannot be installed here: the targets in Python are left out"
	PYTHONPATH=tests $(BIN)/python -m fuzz --time $(TIME) $(if $(TARGET),--target $(TARGET))

# Every verb that writes is killed a thousand times and each of its writing calls fails once; a thousand resumed runs.
# Half an hour of an idle machine; results/faults.json. SHARE=0.1 is what the tests run.
SHARE ?= 1
faults: .venv/test.stamp
	PYTHONPATH=tests $(BIN)/python -m faults.campaign --share $(SHARE) --record results/faults.json

test: .venv/test.stamp lint
	$(BIN)/pytest -n 2 --dist worksteal

lint: .venv/test.stamp
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: .venv/test.stamp
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

.venv/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Elman needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/compare.stamp: .venv/bin/pip pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	@echo "Installing Elman and PyTorch into .venv (once; the first time takes a minute or more) ..."
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[data,web]'
	@$(KERNELS)
	@touch $@

.venv/test.stamp: .venv/bin/pip pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	@echo "Installing Elman and the tools of its tests into .venv (once) ..."
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[data,dev]'
	@$(KERNELS)
	@touch $@ .venv/compare.stamp

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
