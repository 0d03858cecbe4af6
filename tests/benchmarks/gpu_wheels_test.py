"""The wheels that training needs on a machine with a GPU: which, and what is checked."""

import configparser
import importlib.metadata
import pathlib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import gpu_wheels
from benchmarks.gpu_wheels import CARRIED, IMAGE

ROOT = pathlib.Path(gpu_wheels.__file__).parents[1]
PURE = [f'{name.replace("-", "_")}-1.0-py3-none-any.whl' for name in CARRIED]


def requirements(name, extras):
  """Of a package and its extras; of one that the image has only what its extras add."""
  chosen = []
  for line in importlib.metadata.requires(name) or ():
    wanted = Requirement(line)
    applies = lambda extra, marker=wanted.marker: (
      marker is None or marker.evaluate({'extra': extra})
    )
    if applies('') and name not in IMAGE or not applies('') and any(map(applies, extras)):
      chosen.append(wanted)
  return chosen


def test_what_the_image_lacks_is_carried():
  settings = configparser.ConfigParser()
  settings.read(ROOT / 'setup.cfg')
  lines = settings['options']['install_requires'].split('\n')
  todo, seen = [Requirement(line) for line in lines if line], set()
  while todo:
    wanted = todo.pop()
    name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
    if (name, extras) not in seen:
      seen.add((name, extras))
      todo += requirements(name, extras)
  assert sorted({name for name, _ in seen} - IMAGE) == list(CARRIED)


def test_versions_are_those_of_the_results():
  pinned = gpu_wheels.pins()
  assert {'grain': '0.2.18', 'dm-tree': '0.1.10'}.items() <= pinned.items()
  assert set(CARRIED) <= set(pinned)


@pytest.fixture
def wheels(tmp_path):
  for name in PURE:
    (tmp_path / name).write_bytes(b'')
  assert gpu_wheels.wrong(tmp_path) == []
  return tmp_path


def test_a_missing_wheel_is_named(wheels):
  (wheels / 'toml-1.0-py3-none-any.whl').unlink()
  assert gpu_wheels.wrong(wheels) == ['toml: is not there']


def test_what_pip_would_stop_at_is_named(wheels):
  (wheels / 'toml-2.0-py3-none-any.whl').write_bytes(b'')
  (wheels / 'numpy-2.5.5-py3-none-any.whl').write_bytes(b'')
  (line, other) = sorted(gpu_wheels.wrong(wheels))
  assert line == 'numpy: is not needed'
  assert other.startswith('toml: more than one, toml-1.0')


@pytest.mark.parametrize(
  ('tag', 'right'),
  [
    ('cp312-cp312-manylinux_2_17_x86_64', True),
    ('cp39-abi3-manylinux_2_17_x86_64', True),
    ('py2.py3-none-any', True),
    ('cp313-cp313-manylinux_2_17_x86_64', False),
    ('cp312-cp312-macosx_11_0_arm64', False),
  ],
)
def test_a_wheel_for_another_machine_is_named(wheels, tag, right):
  (wheels / 'toml-1.0-py3-none-any.whl').unlink()
  (wheels / f'toml-1.0-{tag}.whl').write_bytes(b'')
  name = f'toml-1.0-{tag}.whl'
  expected = [] if right else [f'{name}: not for Python 3.12 on x86-64 Linux']
  assert gpu_wheels.wrong(wheels) == expected


def test_too_much_to_carry_is_said(wheels):
  with (wheels / PURE[0]).open('wb') as file:
    file.truncate(32_000_001)
  assert gpu_wheels.wrong(wheels) == ['32.0 MB: must be at most 32 MB']


def test_what_cannot_be_downloaded_is_an_error(tmp_path, monkeypatch, capsys):
  def download(package, out):
    name = package.partition('==')[0].replace('-', '_')
    if name == 'promise':
      return 'ERROR: no such version'
    (out / f'{name}-1.0-py3-none-any.whl').write_bytes(b'')
    return ''

  monkeypatch.setattr(gpu_wheels, 'download', download)
  assert gpu_wheels.main([f'--out={tmp_path / "wheels"}']) == 1
  said = capsys.readouterr()
  assert said.err == 'error: promise==2.3: ERROR: no such version\n'
  assert f'{len(CARRIED) - 1} of {len(CARRIED)} wheels' in said.out


def test_the_folder_is_in_no_commit():
  assert '.whl/' in (ROOT / '.gitignore').read_text().splitlines()
