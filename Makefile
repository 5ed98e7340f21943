# `make help` lists what can be made. Needs Python ≥ 3.11.5 with pip, nothing else.
PYTHON ?= python3
# where the environment is made; another folder for another Python: make site PYTHON=python3.13 VENV=/tmp/on-3.13
VENV ?= .venv
BIN := $(VENV)/bin
# of results and check; TARGET=cuda: on NVIDIA GPUs what has a kernel for them, with the same results
TARGET ?= cpu
export UV_PYTHON_DOWNLOADS := never
export NO_MKDOCS_2_WARNING := 1

.PHONY: help serve test torch site results check lock
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## */  make \1\t/p' Makefile

serve: $(VENV)/ready  ## set up, then show the site at http://127.0.0.1:8000/
	$(BIN)/mkdocs serve

test: $(VENV)/ready  ## set up, then run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

torch: $(VENV)/ready  ## add PyTorch to the environment, then run the tests that compare with it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -c 'import torch'
	$(BIN)/python -m pytest tests/test_torch.py tests/test_torch_sequences.py tests/test_framework_lines.py

site: $(VENV)/ready  ## build the site into site/
	$(BIN)/mkdocs build --strict

results: $(VENV)/ready  ## compute stale results, draw figures and tables
	$(BIN)/python scripts/build.py --target $(TARGET)

check: $(VENV)/ready  ## compute all results again and compare them with the committed ones
	$(BIN)/python scripts/build.py --check --target $(TARGET)

lock: $(VENV)/ready  ## resolve the requirements again
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-annotate --no-header \
	  --group dev pyproject.toml --output-file requirements.lock

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or newer is needed, this is " + sys.version.split()[0] + "; choose one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(VENV)/ready
