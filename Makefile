# The front door. Each target sets up .venv by itself, once, and again when the lists of packages change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two workers with one thread each: the networks of the tests are too small to share out.
export OMP_NUM_THREADS ?= 1
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
LISTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-bridge test-bridge-slow test-slow lint format bench docs lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 12

demo: $(VENV)/run.done  ## the whole story on embedded data, a report at the end
	$(BIN)/adamant demo

test: $(VENV)/test.done  ## the fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow" --ignore tests/bridge

test-bridge: $(VENV)/bridge.done  ## models of Keras, TensorFlow, JAX, ONNX, Hugging Face and others
	$(BIN)/python -m pytest -n 2 -m "not slow" tests/bridge

test-bridge-slow: $(VENV)/bridge.done  ## those of them that take minutes
	$(BIN)/python -m pytest -m slow tests/bridge

test-slow: $(VENV)/test.done  ## the tests that take minutes or need the real data
	$(BIN)/python -m pytest -m slow --ignore tests/bridge

lint: $(VENV)/lint.done  ## ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(VENV)/lint.done  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/bench.done  ## side by side with the bare loop and with other libraries; needs the real data
	$(BIN)/python benchmarks/overhead.py --quick
	$(BIN)/python benchmarks/pgd_parity.py --quick
	$(BIN)/python benchmarks/attacks.py --quick

docs: $(VENV)/docs.done  ## the site, in site/
	$(BIN)/mkdocs build --strict

# One place for every environment: the package first, then what the target needs beside it.
$(VENV)/python.done:
	@$(PYTHON) -c 'import sys; sys.exit(f"adamant needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}: call make PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/run.done: $(VENV)/python.done $(LISTS)
	@echo "Setting up $(VENV): a minute or two, once."
	$(PIP) --editable .
	@touch $@

$(VENV)/test.done: $(VENV)/run.done
	$(PIP) --group test
	@touch $@

$(VENV)/lint.done: $(VENV)/test.done
	$(PIP) --group lint
	@touch $@

$(VENV)/bridge.done: $(VENV)/test.done
	$(PIP) --group bridge
	@touch $@

$(VENV)/bench.done: $(VENV)/run.done
	$(PIP) --group peers
	@touch $@

$(VENV)/docs.done: $(VENV)/run.done
	$(PIP) --group docs
	@touch $@

lock:  ## write constraints.txt anew: the newest of everything, beside the torch that it names
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-lock/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(VENV)-lock/bin/python -m pip install --quiet --editable . --group test --group lint --group docs --group peers --group bridge
	$(VENV)-lock/bin/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
	    | sed 's/+.*//' > constraints.txt
	rm -rf $(VENV)-lock

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(VENV)-lock site dist .pytest_cache .ruff_cache .hypothesis
