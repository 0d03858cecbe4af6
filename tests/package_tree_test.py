"""What runs on a machine with a GPU, in a Python that has only that machine's packages.

The image has JAX and what comes with it (gpu_wheels.IMAGE), the packages of CUDA 13 without
their compiler, and a toolkit whose nvcc is on the path. The rest is carried as wheels.
"""

import collections
import functools
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sysconfig
import venv

import pytest

from benchmarks import gpu_wheels
from pallas_kernels.bench.environment import ROOT, child_environment

BARE = """
import contextlib, importlib, importlib.util, io, json, sys

def output(module, *words):
  out = io.StringIO()
  with contextlib.redirect_stdout(out):
    try:
      code = importlib.import_module(module).main(list(words))
    except SystemExit as error:
      code = error.code
  return code, out.getvalue()

from jax._src.lib import cuda_path
said = {'cuda_path': cuda_path}
commands = 'pallas_kernels.gpu_check', 'benchmarks.gpu_steps', 'benchmarks.gpu_proxy'
for module in commands:
  said[module] = output(module, '--help')
for module in ('ceilings', 'contact', 'diagnosis', 'dry', 'tasks', 'torch_peers'):
  importlib.import_module(f'pallas_kernels.bench.{module}')  # what workers call
importlib.import_module('pallas_kernels.tune')
for module in ('benchmarks.gpu_steps', 'benchmarks.gpu_proxy'):
  said['missing', module] = output(module)
said['seen'] = [x for x in %r if importlib.util.find_spec(x)]
said['imported'] = [x for x in ('pytest', 'hypothesis') if x in sys.modules]
"""
CARRIED = (
  BARE
  + """
for module in ('benchmarks.gpu_peers', 'elas_jax.train', 'elas_jax.data.text_files'):
  importlib.import_module(module)
"""
)
SEEN = ('ruff', 'grain', 'ml_collections', 'array_record', 'termcolor')
SAYS = 'print(json.dumps([[k, v] for k, v in said.items()]))'


@functools.cache
def tops():
  """Package -> the first two parts of the paths of its files, as installed here."""
  found = {}
  for package in importlib.metadata.distributions():
    lines = (package.read_text('RECORD') or '').splitlines()
    paths = (line.split(',')[0].strip('"').split('/') for line in lines)
    name = gpu_wheels.canonicalize_name(package.name)
    found[name] = {tuple(parts[:2]) for parts in paths} - {('..', '..')}
  return found


@functools.cache
def shared():
  """Folders in which several packages have files, such as google."""
  count = collections.Counter(x for of in tops().values() for x in {y[0] for y in of})
  return {name for name, packages in count.items() if packages > 1}


def link(names, site):
  """Links the files of installed packages into a folder as if installed there."""
  site.mkdir(parents=True, exist_ok=True)
  source = pathlib.Path(sysconfig.get_path('purelib'))
  # Those that are not here are what other versions of these packages need.
  for parts in {x for name in names for x in tops().get(name, ())}:
    parts = parts[: 2 if parts[0] in shared() else 1]
    place = site.joinpath(*parts)
    if parts[0] != '__pycache__' and not place.is_symlink():
      place.parent.mkdir(exist_ok=True)
      place.symlink_to(source.joinpath(*parts))


@pytest.fixture(scope='module')
def machine(tmp_path_factory):
  """(its Python, the environment of a shell there, its toolkit)."""
  folder = tmp_path_factory.mktemp('machine')
  venv.EnvBuilder(symlinks=True).create(folder / 'python')
  (site,) = (folder / 'python').glob('lib/python3*/site-packages')
  link(gpu_wheels.IMAGE, site)
  (site / 'nvidia/cu13/lib').mkdir(parents=True)  # and no bin/ptxas
  toolkit = folder / 'cuda-13.0'
  (toolkit / 'bin').mkdir(parents=True)
  nvcc = toolkit / 'bin/nvcc'
  nvcc.write_text('#!/bin/sh\n')
  nvcc.chmod(0o755)
  kept = {k: v for k, v in os.environ.items() if k in ('HOME', 'LANG', 'TMPDIR')}
  path = os.pathsep.join([str(toolkit / 'bin'), os.environ['PATH']])
  given = kept | {'PATH': path, 'JAX_PLATFORMS': 'cpu', 'PYTHONNOUSERSITE': '1'}
  return folder / 'python/bin/python', given, toolkit


def said_by(python, script, environment):
  words = [str(python), '-c', f'{script % (SEEN,)}\n{SAYS}']
  run = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert not run.returncode, run.stderr
  pairs = json.loads(run.stdout.splitlines()[-1])
  return {tuple(k) if isinstance(k, list) else k: v for k, v in pairs}


def test_the_kernels_need_nothing_that_the_image_lacks(machine):
  python, given, toolkit = machine
  said = said_by(python, BARE, given | {'PYTHONPATH': str(ROOT)})
  assert said['cuda_path'] == 'None'  # the text: what child_environment is for
  assert not said['seen'] and not said['imported']
  code, text = said['pallas_kernels.gpu_check']
  assert code == 0 and '--out' in text
  for name in ('gpu_steps', 'gpu_proxy'):
    code, text = said[f'benchmarks.{name}']
    assert code == 0 and '--dry_run' in text
    code, text = said['missing', f'benchmarks.{name}']
    assert code == 2 and text.count('\n') == 1
    names = ', '.join(gpu_wheels.CARRIED)
    assert text.startswith(f'not available: training needs {names}; install them, or')


@pytest.mark.conformance
def test_with_the_wheels_training_runs_there(machine, tmp_path):
  python, given, toolkit = machine
  link(gpu_wheels.CARRIED, tmp_path / 'site')
  given = given | {'PYTHONPATH': str(tmp_path / 'site')}
  said = said_by(python, CARRIED, child_environment(given))
  assert said['cuda_path'] == str(toolkit)
  assert said['seen'] == list(SEEN[1:]) and said['imported'] == []
  for name in ('gpu_steps', 'gpu_proxy'):
    code, text = said['missing', f'benchmarks.{name}']
    assert code == 2 and text.startswith("not available: implementation='mosaic': needs a")
