# Two commands do everything: `make demo` runs the main job, `make test` runs every check.
# Each sets itself up in .venv; only Python 3.11 or newer, git and make have to be there.

PYTHON ?= python3
BIN := .venv/bin
BENCH = PATH="$(CURDIR)/.venv-bench/bin:$$PATH" .venv-bench/bin/python -m benchmarks.suite
BESIDE = .venv-bench/bin/python -m tests.beside
export PYTHONPATH :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types suite coverage torture fuzz mutants audit figures bench bench-page bench-saves bench-training bench-restores \
  bench-cloud bench-imports bench-hashes bench-transfers beside beside-page extras backends lock clean

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

# Every branch of the code that commits, prunes, sweeps, and reads and writes manifests and paths.
coverage: .venv/ready
	$(BIN)/coverage run -m pytest -q -p no:cacheprovider @tests/mutation/tests.txt
	$(BIN)/coverage report

# That code broken at every place, one place at a time, and whether a test fails. Takes a quarter of
# an hour; MODULES="removal publishing" takes less.
mutants: .venv/ready
	$(BIN)/python -m tests.mutation $(MODULES)

# Keras runs that are killed hundreds of times, and whether they end the same. Takes some minutes.
figures: .venv/ready
	$(BIN)/python -m tests.crash.resumes

# Every promise against every fault in full numbers, as a table with its seeds; ends with an error if
# anything was broken. Takes hours. CHECKS="R1 R3" plays some rows, SCALE=0.01 a hundredth of each,
# SEED=739941 the same cases again.
CHECKS ?= all
SCALE ?= 1
torture: .venv/ready
	$(BIN)/python -m tests.torture $(CHECKS) --scale $(SCALE) $(if $(SEED),--seed $(SEED))

# Records that Atheris makes up, led by the code that they reach; ends with the first that does harm.
# Takes ten minutes; FOR=60 takes one.
FOR ?= 600
fuzz:
	rm -rf .venv-fuzz && $(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install --quiet 'atheris>=3'
	PYTHONPATH=src:. .venv-fuzz/bin/python -m tests.laws.guided -max_total_time=$(FOR) $(if $(SEED),-seed=$(SEED))
	rm -rf .venv-fuzz

# Known weaknesses of what the tests run with, by the advisories of PyPI.
audit:
	rm -rf .venv-audit && $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement tests/constraints.txt
	rm -rf .venv-audit

# The same kills, full disks, flipped bits and restarts for Holdfast, Keras's callbacks, Orbax and
# TensorFlow. Takes some quarters of an hour; OPTIONS="--only Orbax --kills 8" takes less.
beside: .venv-bench/ready
	$(BESIDE) $(OPTIONS)

# The same, written into the page about it.
beside-page: .venv-bench/ready
	$(BESIDE) $(OPTIONS) --page docs/explanation/beside-the-others.md

# Saves, training beside them, restores, a cloud and imports: Holdfast beside Keras's callbacks, Orbax,
# TensorFlow and what the machine can do at all. SIZES are MB of state. Takes half an hour.
SIZES ?= 30,300
bench: .venv-bench/ready
	$(BENCH) --sizes $(SIZES) --json .venv-bench/results.json

# One part of it. CONTESTANTS=holdfast leaves out who has another name.
bench-saves bench-training bench-restores bench-cloud bench-imports: bench-%: .venv-bench/ready
	$(BENCH) --sizes $(SIZES) --parts $* $(if $(CONTESTANTS),--only $(CONTESTANTS))

# All of it with 3 GB as well, written into the page about speed, and its pictures. Takes an hour.
bench-page: .venv-bench/ready
	$(BENCH) --sizes 30,300,3000 --repeats 3 --background 300 --json .venv-bench/results.json --page docs/explanation/speed.md

# The hash of the manifest beside others, with and without the processor's SHA instructions.
bench-hashes: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.hashes

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

# The same with those beside whom Holdfast is measured, whom its development does not need.
.venv-bench/ready: pyproject.toml tests/constraints.txt benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet --constraint tests/constraints.txt --editable '.[dev]' \
	  --requirement benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-bench .venv-extras .venv-backends .venv-audit .venv-fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
