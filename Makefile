# make train   set up, train, evaluate and plot a small ELAS (configs/default.py:elas)
# make test    set up and run the tests
# make test-newest   run them with the newest Python and versions that setup.cfg allows
# make pairs   trains every data set with every network for a few steps, for minutes
# make chaos   gives every field numbers and texts that it was not made for, for minutes
# make conformance   every kind of every dict in full, and whatever else takes too long for
#              make test, for minutes
# make conformance ONLY=name   all tests in whose names that stands, those of make test too
# make report  a site of all results in build/report, for a browser; nothing is trained
# make lint    formatting and lint
# make aot     compile the kernels for an H200, which takes no GPU, and check the result
# make gpu-check CALL=1 OUT=DIR [CHECKS=FILE] [WHEELS=DIR] [PYTHON=python3]   check and time
#              the kernels on a Hopper GPU (pallas_kernels/README.md)
# All others set up once: .venv, from setup.cfg and constraints.txt, with a Python >= 3.12.

VENV := .venv
GIVEN_PYTHON := $(PYTHON)
PYTHON := $(VENV)/bin/python
WORKDIR ?= runs/default
CALL ?= 1
OUT ?= runs/gpu_check/call$(CALL)
AOT := build/aot
NEWEST := build/newest
# ptxas 13.0.88 is that of CUDA 13.0. 0.7 GB, without the libraries that only a GPU needs.
AOT_WHEELS := jax-cuda13-plugin==0.11.2 jax-cuda13-pjrt==0.11.2 \
  nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88

ONLY ?=

.PHONY: train test test-newest pairs chaos conformance report lint aot gpu-check

train: $(VENV)/installed
	$(PYTHON) -m elas_jax.train --config=configs/default.py:elas --workdir=$(WORKDIR)

test: $(VENV)/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

pairs: $(VENV)/installed
	$(PYTHON) -m pytest -m pairs --numprocesses=auto --maxprocesses=4 tests/tasks

# Set up afresh each time: what is newest changes.
test-newest:
	$(call set_up,$(NEWEST),3.14 3.13 3.12 3 '')
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --editable '.[dev]'
	$(NEWEST)/bin/python -m pip list --disable-pip-version-check | grep -iE '^(jax|flax) '
	$(NEWEST)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

chaos: $(VENV)/installed
	$(PYTHON) -m pytest -m chaos tests/common/limits_test.py

conformance: $(VENV)/installed
	$(PYTHON) -m pytest --numprocesses=auto --maxprocesses=4 \
	  $(if $(ONLY),-m "not aot and not pairs and not chaos" -k "$(ONLY)",-m conformance)

report: $(VENV)/installed
	$(PYTHON) -m experiments.report

lint: $(VENV)/installed
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

aot: $(VENV)/installed $(AOT)/installed
	PYTHONPATH=$(AOT) AOT_RESULTS=benchmarks/results/aot \
	  $(PYTHON) -m pytest -m aot --capture=no tests/pallas_kernels/aot_test.py \
	  tests/benchmarks/gpu_steps_test.py

$(AOT)/installed: Makefile $(VENV)/installed
	rm -rf $(AOT)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(AOT) $(AOT_WHEELS)
	@touch $@

# A Python that is given is taken as it is: nothing is set up.
gpu-check: $(if $(GIVEN_PYTHON),,$(VENV)/installed)
	$(or $(GIVEN_PYTHON),$(PYTHON)) -m pallas_kernels.gpu_check --call=$(CALL) --out=$(OUT) \
	  $(if $(CHECKS),--checks=$(CHECKS)) $(if $(WHEELS),--wheels=$(WHEELS))

# Sets up $(1) with the first Python of these versions that starts and is new enough;
# pyenv's shims may exist and not start.
define set_up
@set -e; found=; pyenv="$${PYENV_ROOT:-$$HOME/.pyenv}/versions"; \
for version in $(2); do \
  for python in python$$version $$(ls -d "$$pyenv"/$$version.*/bin/python 2>/dev/null); do \
    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
      found="$$python"; break 2; \
    fi; \
  done; \
done; \
if [ -z "$$found" ]; then \
  echo 'error: no Python >= 3.12 on PATH or under pyenv; install one and try again' >&2; \
  exit 1; \
fi; \
echo "setting up $(1) with $$found"; \
"$$found" -m venv --clear $(1)
endef

$(VENV)/installed: setup.cfg constraints.txt
	$(call set_up,$(VENV),3.12 3.13 3.14 3 '')
	$(PYTHON) -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@
