# Two commands for a new user: `make demo` and `make test`. Everything lands in .venv and .deps.
PYTHON ?= python3
# The CPU build is enough for the tests; any torch >= 2.6 works.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
# Sources the installed package is made from: a change reinstalls it.
SOURCES := pyproject.toml CMakeLists.txt $(shell find cmake runtime kernels train export bench \
  -type f -not -name '*.pyc' 2>/dev/null)
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lint bench format clean

demo: $(VENV)/.base
	@$(BIN)/python -m csrm demo configs/examples.jsonl --configs configs

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(PIP) install --quiet --group lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p csrm
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cc' '*.h')

format: $(VENV)/.test
	$(PIP) install --quiet --group lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $$(git ls-files '*.cc' '*.h')

bench: $(VENV)/.test
	$(BIN)/csrm bench latency --json build/bench/latency.json

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	touch $@

# The package alone: what a gateway installs.
$(VENV)/.base: $(VENV)/.pip $(SOURCES)
	$(PIP) install .
	touch $@

# The package with its trainer, exporter and test tools.
$(VENV)/.test: $(VENV)/.pip $(SOURCES)
	$(PIP) install '.[train,export,bench]' '$(TORCH)' --group test
	touch $@ $(VENV)/.base

clean:
	rm -rf $(VENV) build .deps
