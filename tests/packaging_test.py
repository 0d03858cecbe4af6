"""The package as a wheel: what it puts where, and its commands from another folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = tuple(
  f'elas-{name}'
  for name in (
    'train',
    'evaluate',
    'generate',
    'measure',
    'reward',
    'pairs',
    'watch',
    'convert',
    'compare',
    'audit',
  )
)


def run(*words, **options):
  done = subprocess.run(words, capture_output=True, text=True, **options)
  assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Built from a copy: a build leaves its own folders in the tree."""
  folder = tmp_path_factory.mktemp('wheel')
  source = folder / 'source'
  caches = shutil.ignore_patterns('__pycache__', 'results')
  for name in ('elas_jax', 'configs', 'experiments', 'benchmarks', 'pallas_kernels'):
    shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=caches)
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
  run(*pip, 'wheel', '--no-build-isolation', '--no-deps', f'-w{folder}', str(source))
  (made,) = folder.glob('*.whl')
  return made


@pytest.fixture(scope='module')
def installed(wheel):
  folder = wheel.with_name('installed')
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
  run(*pip, 'install', '--no-deps', '--no-index', f'--target={folder}', str(wheel))
  return folder


def test_wheel_takes_no_names_that_others_use(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  tops = {name.split('/')[0] for name in names}
  assert {name for name in tops if not name.endswith('.dist-info')} == {
    'elas_jax',
    'pallas_kernels',
  }
  for package, below in (
    ('elas_jax', ''),
    ('configs', 'elas_jax/'),
    ('pallas_kernels', ''),
  ):
    files = {
      below + path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob('*.py')
    }
    assert files <= set(names)
  site = (ROOT / 'elas_jax/tables/site').iterdir()
  parts = {path.relative_to(ROOT).as_posix() for path in site if path.is_file()}
  assert len(parts) > 8 and parts <= set(names)  # a page, a style and a script too


@pytest.mark.conformance
def test_commands_run_in_a_folder_with_other_configs(installed, tmp_path):
  for name in ('configs', 'experiments', 'benchmarks'):
    (tmp_path / name).mkdir()
    for file in ('__init__.py', 'default.py', 'methods.py'):
      (tmp_path / name / file).write_text('raise AssertionError("not ours")')
  environment = {**os.environ, 'PYTHONPATH': str(installed), 'JAX_PLATFORMS': 'cpu'}
  # The errors show how far they came: all of the default config, or the workdir.
  arguments = {
    'elas-train': ['--config.model.rnak=1'],
    'elas-evaluate': ['--workdir=none'],
    'elas-generate': ['--workdir=none'],
    'elas-measure': ['--workdir=none'],
    'elas-reward': ['--workdir=none', '--prompts=prompts.jsonl'],
    'elas-pairs': ['--workdir=none', '--prompts=prompts.jsonl', '--output=new.jsonl'],
    'elas-watch': ['--workdir=none'],
    'elas-convert': ['--workdir=none', '--converter=merge', '--output=new'],
    'elas-audit': ['none'],
    'elas-compare': ['none', 'other'],
  }
  started = {
    name: subprocess.Popen(
      [installed / 'bin' / name, *arguments[name]],
      cwd=tmp_path,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for name in COMMANDS
  }
  errors = {name: process.communicate()[1] for name, process in started.items()}
  assert [process.returncode for process in started.values()] == [2] * len(COMMANDS), errors
  assert errors['elas-train'].startswith('error: model.rnak=1: no such field; did you mean')
  assert errors['elas-audit'].startswith('error: none: No such file or directory')
  for name in COMMANDS[1:]:
    said = {
      'elas-audit': 'none: No such file or directory',
      'elas-compare': "'none': neither a folder, nor TABLE",
      'elas-reward': "--prompts='prompts.jsonl' does not exist; give a folder, a file or",
      'elas-pairs': "--prompts='prompts.jsonl' does not exist; give a folder, a file or",
      'elas-watch': '--workdir=none: no such folder',
    }.get(name, "--workdir='none': no checkpoint under")
    assert errors[name].startswith(f'error: {said}')
    assert errors[name].count('\n') == 1


@pytest.mark.conformance
def test_named_config_of_the_package_is_found_when_installed(installed, tmp_path):
  code = (
    'import elas_jax\n'
    'from elas_jax.config.cli import load_config\n'
    "print(elas_jax.__file__, load_config('configs/c4.py:60m,elas', []).model.width)\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(installed)},
    capture_output=True,
    text=True,
  )
  assert done.stdout == f'{installed}/elas_jax/__init__.py 512\n', done.stderr
