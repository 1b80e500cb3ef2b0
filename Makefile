VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RUN := runs/quickstart-$(shell date +%Y%m%d-%H%M%S)

.PHONY: train test lint clean

# Train CartPole, then replay the trained policy into a GIF.
train: $(VENV)/.installed
	$(BIN)/es-rl train --out $(RUN)
	$(BIN)/es-rl replay $(RUN) --video $(RUN)/replay.gif

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
