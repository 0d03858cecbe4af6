"""The toolkit that jax finds in a process started by ours, and in one that was not."""

import os
import subprocess
import sys

import pytest

from pallas_kernels.bench.environment import ROOT, child_environment

SAYS = 'from jax._src.lib import cuda_path; print(repr(cuda_path))'


@pytest.fixture
def machine(tmp_path):
  """A toolkit, its nvcc on the path by a link, and CUDA packages without a compiler."""
  toolkit = tmp_path / 'cuda-13.0'
  for folder in (toolkit / 'bin', tmp_path / 'bin', tmp_path / 'site/nvidia/cu13/lib'):
    folder.mkdir(parents=True)
  nvcc = toolkit / 'bin/nvcc'
  nvcc.write_text('#!/bin/sh\n')
  nvcc.chmod(0o755)
  (tmp_path / 'bin/nvcc').symlink_to(nvcc)
  given = {k: v for k, v in os.environ.items() if k != 'CUDA_ROOT'}
  path = os.pathsep.join([str(tmp_path / 'bin'), given['PATH']])
  given |= {'PATH': path, 'PYTHONPATH': str(tmp_path / 'site')}
  return toolkit, given


def said(environment):
  words = [sys.executable, '-c', SAYS]
  run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
  return run.stdout.strip()


def test_the_toolkit_is_that_of_nvcc(machine):
  toolkit, given = machine
  assert said(given) == "'None'"  # what this is for
  assert said(child_environment(given)) == repr(str(toolkit))


def test_what_is_given_stays_and_what_is_missing_is_added(machine):
  toolkit, given = machine
  made = child_environment(given)
  assert made['XLA_PYTHON_CLIENT_PREALLOCATE'] == 'false'
  assert made['JAX_COMPILATION_CACHE_DIR']
  assert made['PATH'].split(os.pathsep)[0] == str(toolkit / 'bin')
  assert made['PYTHONPATH'].split(os.pathsep) == [str(ROOT), given['PYTHONPATH']]
  assert child_environment(made) == made
  chosen = {'CUDA_ROOT': '/opt/cuda', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'true'}
  assert child_environment(given | chosen).items() >= chosen.items()


def test_without_a_toolkit_there_is_no_root():
  assert 'CUDA_ROOT' not in child_environment({'PATH': '/nowhere'})
