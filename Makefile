# Needs make and Python 3.11 or newer. Each target sets up .venv itself, installs only what it needs,
# and does neither again until pyproject.toml changes.

# The first of these that runs; another can be named: make test PYTHON=/path/to/python
PYTHON  ?= $(firstword $(foreach p,python3.11 python3,$(if $(shell $(p) -c "print(1)" 2>/dev/null),$(p))) python3)
WORKERS ?= 2
MINUTES ?= 10
ARGS    ?=

VENV   := .venv
PY     := $(VENV)/bin/python
HEALTH := $(VENV)/.complete
STAMPS := $(foreach extras,test dev docs examples bench,$(VENV)/.installed-$(extras))

# .complete holds the place the environment was made for. It is taken away while anything is being
# installed. An environment that was interrupted, or copied here from elsewhere, is made anew.
HEALTHY := $(findstring [$(CURDIR)],$(shell cat $(HEALTH) 2>/dev/null))

.DEFAULT_GOAL := help
.PHONY: help demo demo-minilm test test-slow test-lowest fuzz live lint format typecheck bench docs clean FORCE
.NOTPARALLEL:

help: ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.11] [WORKERS=2] [ARGS=...]"
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | while IFS='	' read -r name what; do \
	    printf '  %-12s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.installed-examples ## train a small labelled network on real digits and operate on it
	@$(PY) examples/digits.py $(ARGS)

demo-minilm: $(VENV)/.installed-examples ## embed sentences with published weights, and rework the model
	@$(PY) examples/minilm.py $(ARGS)

test: $(VENV)/.installed-test ## run the tests (WORKERS=2 processes; ARGS="-k select" for some)
	@$(PY) -m pytest -q -n $(WORKERS) -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-test ## run the slow tests, which `make test` leaves out
	@$(PY) -m pytest -q -n $(WORKERS) -m slow $(ARGS)

test-lowest: .venv-lowest/.installed ## run the fast tests at the lowest versions that pyproject.toml allows
	@.venv-lowest/bin/python -m pytest -q -n $(WORKERS) -m "not slow" --deselect tests/files/test_fuzz.py $(ARGS)

.venv-lowest/.installed: pyproject.toml
	@echo "==> making .venv-lowest with the lowest versions"
	@$(PYTHON) -m venv --clear .venv-lowest
	@.venv-lowest/bin/python -m pip install --disable-pip-version-check uv
	@.venv-lowest/bin/python -m uv pip install --python .venv-lowest/bin/python --resolution lowest-direct --editable ".[test]"
	@touch $@

fuzz: $(VENV)/.installed-test ## fuzz what reads files (MINUTES=10)
	@$(PY) scripts/fuzz.py --minutes $(MINUTES)

live: .venv-live/.installed ## compare with PyTorch itself, in an environment of its own
	@.venv-live/bin/python -m pytest -q tests/live $(ARGS)

# torch first: with it in place, nothing else asks for a build of another version.
.venv-live/.installed: pyproject.toml
	@echo "==> making .venv-live with PyTorch"
	@$(PYTHON) -m venv --clear .venv-live
	@.venv-live/bin/python -m pip install --disable-pip-version-check "torch==2.13.0"
	@.venv-live/bin/python -m pip install --disable-pip-version-check --editable ".[test,live]"
	@touch $@

lint: $(VENV)/.installed-dev ## check style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: $(VENV)/.installed-dev ## mend what lint can mend by itself
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

typecheck: $(VENV)/.installed-dev ## check types: of the source, of code that uses it, and how much is typed
	@$(PY) -m pyright --pythonpath $(PY)
	@$(PY) -m pyright --pythonpath $(PY) --project tests/typing
	@$(PY) -m mypy
	@$(PY) tests/typing/completeness.py

bench: $(VENV)/.installed-bench ## time graftax against its peers
	@$(PY) benchmarks/surgery.py $(ARGS)
	@$(PY) benchmarks/files.py

docs: $(VENV)/.installed-docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --clean --site-dir site $(ARGS)
	@$(PY) docs/_check.py site

clean: ## remove everything these targets made, .venv included
	@rm -rf $(VENV) .venv-live .venv-lowest .cache site dist build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of extras. If the interpreter behind .venv is gone, or newer than the stamp,
# the stamp is stale as well.
$(STAMPS): $(VENV)/.installed-%: pyproject.toml $(PY) $(if $(HEALTHY),,FORCE)
	@if ! { grep -qxF "[$(CURDIR)]" $(HEALTH) && $(PY) -m pip --version; } >/dev/null 2>&1; then \
	    $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	        { echo "graftax needs Python 3.11 or newer; name one: make ... PYTHON=/path/to/python" >&2; exit 1; }; \
	    echo "==> making $(VENV) with $$($(PYTHON) --version)"; \
	    $(PYTHON) -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "==> installing graftax[$*] into $(VENV)"
	@rm -f $(HEALTH)
	@$(PY) -m pip install --disable-pip-version-check --editable ".[$*]"
	@echo "[$(CURDIR)]" > $(HEALTH)
	@touch $@

$(PY): ;
