# make train   set up, train, evaluate and plot the embedded default (configs/default.py)
# make test    set up and run the tests
# make pairs   trains every data set with every network for a few steps, for minutes
# make lint    formatting and lint
# make aot     compile the kernels for an H200, which takes no GPU, and check the result
# make gpu-check OUT=DIR [PYTHON=python3]   check and time the kernels on a Hopper GPU
# All set up once: .venv, from setup.cfg and constraints.txt, with a Python >= 3.12.

VENV := .venv
GIVEN_PYTHON := $(PYTHON)
PYTHON := $(VENV)/bin/python
WORKDIR ?= runs/default
OUT ?= runs/gpu_check
AOT := build/aot
# ptxas 13.0.88 is that of CUDA 13.0. 0.7 GB, without the libraries that only a GPU needs.
AOT_WHEELS := jax-cuda13-plugin==0.11.2 jax-cuda13-pjrt==0.11.2 \
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88

.PHONY: train test pairs lint aot gpu-check

train: $(VENV)/installed
	$(PYTHON) -m elas_jax.train --config=configs/default.py --workdir=$(WORKDIR)

test: $(VENV)/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

pairs: $(VENV)/installed
	$(PYTHON) -m pytest -m pairs --numprocesses=auto --maxprocesses=4 tests/tasks

lint: $(VENV)/installed
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

aot: $(VENV)/installed $(AOT)/installed
	PYTHONPATH=$(AOT) AOT_RESULTS=experiments/results/aot \
	  $(PYTHON) -m pytest -m aot --capture=no tests/pallas_kernels/aot_test.py

$(AOT)/installed: Makefile $(VENV)/installed
	rm -rf $(AOT)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(AOT) $(AOT_WHEELS)
	@touch $@

# A Python that is given is taken as it is: nothing is set up.
gpu-check: $(if $(GIVEN_PYTHON),,$(VENV)/installed)
	$(or $(GIVEN_PYTHON),$(PYTHON)) -m pallas_kernels.gpu_check --out=$(OUT)

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
