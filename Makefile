# Spells out the commands of the README in a virtual environment of its own. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart notebooks test lint clean

# Trains a small model on photos that ship with scikit-image, and evaluates it; all ends up in runs/quickstart.
quickstart: $(VENV)/.installed
	$(BIN)/inpaint-jax train --config=configs/quickstart.py --workdir=runs/quickstart
	$(BIN)/inpaint-jax evaluate --workdir=runs/quickstart --output=runs/quickstart/eval --resume --fid=off \
		--methods=mean,telea,navier_stokes,biharmonic,tension_spline

# Runs the notebooks on that model; pages to open in a browser end up in runs/quickstart/notebooks.
notebooks: quickstart
	$(BIN)/pip install --quiet -e '.[notebooks]'
	$(BIN)/python notebooks/execute.py --output=runs/quickstart/notebooks

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) runs/quickstart
