# `make help` lists what can be made. Needs Python ≥ 3.11.5 with pip, nothing else.
PYTHON ?= python3
# where the environment is made; another folder for another Python: make site PYTHON=python3.13 VENV=/tmp/on-3.13
VENV ?= .venv
BIN := $(VENV)/bin
# of results and check; TARGET=cuda: on NVIDIA GPUs what has a kernel for them, with the same results
TARGET ?= cpu
# of fuzz: how long it tries theory, and as long kernels; from which cases on, at random unless given
SECONDS ?= 300
SEED ?=
# what depends on Python and on the packages rather than on the numbers
QUICK := $(addprefix tests/,test_project.py test_network.py test_command.py diagnosis/test_diagnosis.py site/test_v8.py numerics/test_randomness.py)
export UV_PYTHON_DOWNLOADS := never
export NO_MKDOCS_2_WARNING := 1

.PHONY: help serve test quick fuzz barriers torch frameworks site results check lock
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## */  make \1\t/p' Makefile

serve: $(VENV)/ready  ## set up, then show the site at http://127.0.0.1:8000/
	@echo "Building the site: a minute or two the first time, seconds after that; Ctrl-C ends it"
	$(BIN)/mkdocs serve

test: $(VENV)/ready  ## set up, then run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile

quick: $(VENV)/ready  ## set up, then run the tests that take seconds, for another Python
	$(BIN)/python -m pytest -q $(QUICK)

fuzz: $(VENV)/ready  ## set up, then try theory and kernels at random, for SECONDS=300 each; a failure prints its case
	cd tests && ../$(BIN)/python fuzz_theory.py $(SECONDS) $(SEED)
	cd tests && ../$(BIN)/python fuzz_kernels.py $(SECONDS) $(SEED)

barriers: $(VENV)/ready  ## set up, then leave out each barrier of the GPU's code: a test must notice
	EVERY_BARRIER=1 $(BIN)/python -m pytest tests/numerics/test_barriers.py

torch: $(VENV)/ready  ## add PyTorch to the environment, then run the tests that compare with it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -c 'import torch'
	$(BIN)/python -m pytest tests/pytorch

frameworks: $(VENV)-frameworks/ready  ## set up Keras, JAX, Lightning and Transformers apart, then run the tests that need them
	$(VENV)-frameworks/bin/python -m pytest -n logical --maxprocesses 8 tests/frameworks

site: $(VENV)/ready  ## build the site into site/
	$(BIN)/mkdocs build --strict

results: $(VENV)/ready  ## compute stale results, draw figures and tables
	$(BIN)/python scripts/build.py --target $(TARGET)

check: $(VENV)/ready  ## compute all results again and compare them with the committed ones
	$(BIN)/python scripts/build.py --check --target $(TARGET)

lock: $(VENV)/ready  ## resolve the requirements again
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-annotate --no-header \
	  --group dev pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-annotate --no-header \
	  --group frameworks --no-emit-package torch pyproject.toml --output-file frameworks.lock

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or newer is needed, this is " + sys.version.split()[0] + "; choose one with: make PYTHON=python3.12 ...")'
	@echo "Setting up, once: an environment in $(VENV)/, with the packages of requirements.lock (a minute, by the network)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $(VENV)/ready
	@echo "$(VENV)/ is set up; Python there: $(BIN)/python, the kernels on a terminal: $(BIN)/vgp --help"

$(VENV)-frameworks/ready: frameworks.lock $(VENV)/ready
	@echo "Setting up, once: an environment in $(VENV)-frameworks/, with the packages of frameworks.lock and PyTorch (minutes, by the network)"
	$(PYTHON) -m venv $(VENV)-frameworks
	$(VENV)-frameworks/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/uv pip install --quiet --python $(VENV)-frameworks/bin/python --no-deps --require-hashes --requirements frameworks.lock
	@touch $(VENV)-frameworks/ready
