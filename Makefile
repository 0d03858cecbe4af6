# make train   set up, train, evaluate and plot the embedded default (configs/default.py)
# make test    set up and run the tests
# make lint    formatting and lint
# Both set up once: .venv, from setup.cfg and constraints.txt, with a Python >= 3.12.

VENV := .venv
PYTHON := $(VENV)/bin/python
WORKDIR ?= runs/default

.PHONY: train test lint

train: $(VENV)/installed
	$(PYTHON) -m elas_jax.train --config=configs/default.py --workdir=$(WORKDIR)

test: $(VENV)/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: $(VENV)/installed
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# The first of these that starts and is new enough; pyenv's shims may exist and not start.
$(VENV)/installed: setup.cfg constraints.txt
	@set -e; found=; \
	for python in python3.12 python3.13 python3.14 python3 python \
	    $$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[2-4]*/bin/python 2>/dev/null); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	    found="$$python"; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'error: no Python >= 3.12 on PATH or under pyenv; install one and try again' >&2; \
	  exit 1; \
	fi; \
	echo "setting up $(VENV) with $$found"; \
	"$$found" -m venv --clear $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@
