# Two commands on a fresh machine with Python >= 3.11: `make demo` and `make test`.
# Each makes the environment first, once. PYTHON=... picks the interpreter, VENV=... the place.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM_VENV ?= .venv-vllm-cpu
PIP_FLAGS ?=
PROMPT ?= A photo of a black star, a purple triangle, and a green square
SEED ?= 19

export PROMPT

.PHONY: demo test check vllm-env lint types bench clean help

help:
	@echo "make demo    set up, then correct one prompt (PROMPT='...' for your own)"
	@echo "make test    set up, then run the tests"
	@echo "make vllm-env  a second environment, with vLLM for the CPU, for the tests of a real server"
	@echo "make check   lint, types and tests, as CI does"
	@echo "make bench   the shapes benchmark: base, NPC, re-seeding"

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "npc-local needs Python 3.11 or newer: make ... PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/npc-local run --seed $(SEED) -- "$$PROMPT"

# A process a core; a core that has run out of tests takes some of another's.
test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

# Apart from the other one: vLLM pins its own torch. Without it, the tests of a real server skip.
vllm-env:
	PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" scripts/vllm_cpu_env.sh "$(VLLM_VENV)"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

check: lint types test

bench: $(READY)
	$(BIN)/npc-local bench shapes --per-tag 20

# Of the environments with vLLM, only one that `make vllm-env` made.
clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
	@test ! -f "$(VLLM_VENV)/.npc-local-vllm-cpu" || rm -rf "$(VLLM_VENV)"
