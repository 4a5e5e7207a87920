# Two commands do everything: `make demo` runs the main job, `make test` runs every check.
# Each sets itself up in .venv; only Python 3.11 or newer, git and make have to be there.

PYTHON ?= python3
BIN := .venv/bin
export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types suite figures figures-resume bench-transfers extras backends lock clean

demo: .venv/ready
	$(BIN)/python examples/kill_and_resume.py

test: lint types suite

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy
	$(BIN)/mypy tests/typing/api.py

suite: .venv/ready
	$(BIN)/pytest -n 2 --dist worksteal

# Kill points and flipped bits, Keras's callbacks beside Holdfast's. Takes some minutes.
figures: .venv/ready
	$(BIN)/python -m tests.crash.points
	$(BIN)/python -m tests.crash.baselines
	$(BIN)/python -m tests.crash.resumes

# Only the last of these: runs that are killed hundreds of times, and whether they end the same.
figures-resume: .venv/ready
	$(BIN)/python -m tests.crash.resumes

# Upload and download beside plain filesystems, boto3 and the rclone client. Takes some minutes.
bench-transfers: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.transfers

# Every extra installed beside TensorFlow, Keras and PyTorch, from nothing and unpinned, and all of
# them imported. Takes some minutes and gigabytes.
extras:
	rm -rf .venv-extras && $(PYTHON) -m venv .venv-extras
	.venv-extras/bin/python -m pip install --quiet '.[dev]' torch
	HOLDFAST_TEST_BESIDE=torch .venv-extras/bin/python -m pytest tests/test_install.py
	rm -rf .venv-extras

# Keras on JAX and on PyTorch, without TensorFlow: a smaller suite, once with each. Takes some minutes
# and gigabytes, most of them PyTorch's.
backends:
	rm -rf .venv-backends && $(PYTHON) -m venv .venv-backends
	.venv-backends/bin/python -m pip install --quiet '.[keras,testing]' jax torch
	for backend in jax torch; do KERAS_BACKEND=$$backend .venv-backends/bin/python -m pytest \
	  --confcutdir tests/backends tests/backends || exit 1; done
	rm -rf .venv-backends

# What the tests run with, brought up to date.
lock:
	rm -rf .venv && : > tests/constraints.txt
	$(MAKE) .venv/ready
	$(BIN)/python -m pip freeze --exclude-editable > tests/constraints.txt
	touch .venv/ready

.venv/ready: pyproject.toml tests/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint tests/constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-extras .venv-backends .mypy_cache .ruff_cache .pytest_cache .hypothesis
