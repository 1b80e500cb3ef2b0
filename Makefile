VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# Python compiles what is imported, a small part of all that is installed.
INSTALL = install --quiet --no-compile --constraint constraints.txt
RUN := runs/quickstart-$(shell date +%Y%m%d-%H%M%S)

.PHONY: train docs package test test-slow test-one-half test-other-half lint stress starts clean

# Train CartPole, then replay the trained policy into a GIF.
train: $(VENV)/.installed
	$(BIN)/es-rl train --out $(RUN)
	$(BIN)/es-rl replay $(RUN) --video $(RUN)/replay.gif

# In two halves of about the same length, side by side, without the slow tests.
test: $(VENV)/.installed
	$(MAKE) --jobs=2 --keep-going test-one-half test-other-half

test-slow: $(VENV)/.installed
	$(MAKE) --jobs=2 --keep-going test-one-half test-other-half TESTS=slow

TESTS = not slow
HALF = tests/agents tests/envs
test-one-half: $(VENV)/.installed
	$(BIN)/python -m pytest -m "$(TESTS)" $(HALF)

test-other-half: $(VENV)/.installed
	$(BIN)/python -m pytest -m "$(TESTS)" $(HALF:%=--ignore=%)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Run what the pages show, and build them into build/docs.
docs: $(VENV)/.installed
	$(BIN)/python -m pytest tests/docs
	$(BIN)/python -m zensical build --clean --strict

# Build the sdist and from it the wheel, and use the wheel in a new environment, away from here.
package: $(VENV)/.installed
	rm -rf build/dist build/clean
	$(BIN)/python -m build --outdir build/dist .
	$(PYTHON) -m venv build/clean
	build/clean/bin/pip $(INSTALL) build/dist/*.whl
	tests/use_package $(CURDIR)/build/clean/bin

# Kill runs at random moments and resume them: a quarter of an hour.
stress: $(VENV)/.installed
	$(BIN)/python -m tests.stress evolution=100 host=20 ppo=20 host_ppo=20

# Start every environment of Brax with each backend and three populations: an hour or two.
starts: $(VENV)/.installed
	mkdir -p runs
	$(BIN)/python -m tests.starts runs/starts.jsonl

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
