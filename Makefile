# `make serve` and `make test` do all set-up themselves; the rest is for development.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin

.PHONY: help serve demo test acceptance compat lint format setup lock clean

help: ## this list
	@echo "make serve       set up if needed, then serve on 127.0.0.1:8080 (ARGS=\"--port 9000\", or PASCAL_PORT)"
	@echo "make demo        show it without a GPU: eight emulated ones, and a load (ARGS=\"--load calm\")"
	@echo "make test        set up if needed, then lint, type checks and all tests (ARGS=\"-k pacer\")"
	@echo "make acceptance  the checks that need hours or other programs (ARGS=\"--list\")"
	@echo "make compat      real clients of PyPI and npm against this gateway (ARGS=\"--list\")"
	@echo
	@echo "make lint     ruff, mypy and the import contracts     make format   apply ruff's fixes and format"
	@echo "make setup    only the set-up                         make lock     write requirements/*.txt anew"
	@echo "make clean    remove .venv and every cache"
	@echo
	@echo "PYTHON=python3.12 picks the interpreter, PASCAL_EXTRA=cpu|gpu the kind of engine."

# exec: the interrupt of Ctrl-C and make's own SIGTERM reach the server itself, with no shell between.
serve: setup
	@exec $(BIN)/pascal serve $(ARGS)

demo: setup
	@exec $(BIN)/pascal demo $(ARGS)

# Two processes, because many tests wait for engines. A file is a unit: its tests share what they start.
test: lint
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

acceptance: setup
	@exec $(BIN)/python -m tests.acceptance $(ARGS)

# Installs each client into a folder of its own, and writes docs/results/compatibility.md.
compat: setup
	@exec $(BIN)/python -m tests.compat $(ARGS)

lint: setup
	@echo "ruff check"; $(BIN)/ruff check .
	@echo "ruff format --check"; $(BIN)/ruff format --check .
	@echo "mypy"; $(BIN)/mypy
	@echo "lint-imports"; $(BIN)/lint-imports

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Any Python that runs can start the set-up script, which then looks for one that is new enough.
# `python3` may be missing, slow to start, or a version manager's shim that leads nowhere.
FIND_PYTHON = for python in $(BIN)/python python3 python3.11 python3.12 python3.13; do \
	  if [ -n "$$python" ] && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; \
	  then break; fi; python=; done; \
	if [ -z "$$python" ]; then \
	  echo "setup: no Python 3.11, 3.12 or 3.13 on the PATH; install one (Debian: apt install python3 python3-venv)" >&2; \
	  exit 1; fi

setup:
	@$(FIND_PYTHON); exec "$$python" scripts/setup_env.py

lock: setup
	@exec $(BIN)/python scripts/lock.py

clean:
	rm -rf .venv .uv .acceptance .compat .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
