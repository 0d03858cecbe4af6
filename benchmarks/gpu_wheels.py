"""Wheels of what training needs and a CUDA image with JAX lacks, to carry to one.

  python -m benchmarks.gpu_wheels --out=.whl

downloads them from PyPI, for CPython 3.12 on x86-64 Linux, at the versions of
constraints.txt, and checks what came. On the machine without a network:

  python3 -m pip install --no-index --no-deps --no-compile --target SITE .whl/*.whl
  export PYTHONPATH=SITE

What is carried is the list CARRIED; what such an image has, the list IMAGE.
"""

import argparse
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tempfile
from concurrent import futures

from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = pathlib.Path(__file__).parents[1]
LARGEST = 32_000_000  # bytes, all together
# What the project needs, directly or not, beside IMAGE. A test derives it.
CARRIED = (
  'array-record',
  'dm-pix',
  'dm-tree',
  'docstring-parser',
  'google-crc32c',
  'googleapis-common-protos',
  'grain',
  'immutabledict',
  'importlib-resources',
  'ml-collections',
  'mnist1d',
  'portpicker',
  'promise',
  'simple-parsing',
  'tensorflow-datasets',
  'tensorflow-metadata',
  'termcolor',
  'toml',
  'zstandard',
)
# What comes with JAX, Flax, PyTorch and the usual tools beside them.
_IMAGE = """
absl-py aiofiles anyio attrs certifi charset-normalizer chex click cloudpickle contourpy
cycler einops etils execnet filelock flax fonttools fsspec h11 hf-xet httpcore httpx
huggingface-hub humanize hypothesis idna iniconfig jax jaxlib joblib kiwisolver
markdown-it-py matplotlib mdurl ml-dtypes msgpack narwhals numpy opt-einsum optax
orbax-checkpoint packaging pillow pluggy prometheus-client protobuf psutil pyarrow pygments
pyparsing pytest pytest-xdist python-dateutil pyyaml requests rich scikit-learn scipy
setuptools simplejson six sortedcontainers tensorstore threadpoolctl tokenizers toolz tqdm
treescope typing-extensions urllib3 uvloop wrapt zipp
"""
IMAGE = frozenset(_IMAGE.split())
# pip takes each of these for itself, and none for an older one.
PLATFORMS = [f'manylinux_2_{number}_x86_64' for number in (5, 12, 17, 24, 27, 28, 31, 34)]
PLATFORMS += ['manylinux1_x86_64', 'manylinux2010_x86_64', 'manylinux2014_x86_64']
SUITS = re.compile(
  r'((cp312-cp312|cp3\d+-abi3|cp312-none|py3-none)-manylinux\w+_x86_64|py3-none-any)'
)


def missing() -> str:
  """One line that names what is not installed of CARRIED, or ''."""
  names = []
  for name in CARRIED:
    try:
      importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      names.append(name)
  if not names:
    return ''
  return (
    f'training needs {", ".join(names)}; install them, or carry them as wheels: '
    'benchmarks/gpu_wheels.py'
  )


def pins() -> dict[str, str]:
  """The versions of constraints.txt, by name."""
  found = re.findall(r'^([\w.-]+)==(\S+)$', (ROOT / 'constraints.txt').read_text(), re.M)
  return {canonicalize_name(name): version for name, version in found}


def download(package: str, out: pathlib.Path) -> str:
  """Puts the wheel of NAME==VERSION into the folder; returns why it could not, or ''.

  Where PyPI has its source alone, the wheel is built, and must then suit any machine.
  """
  options = ['--no-deps', '--only-binary=:all:', '--python-version=3.12']
  options += ['--implementation=cp', *(f'--platform={name}' for name in PLATFORMS)]
  found = pip('download', *options, f'--dest={out}', package)
  if not found.returncode:
    return ''
  with tempfile.TemporaryDirectory() as folder:
    built = pip('wheel', '--no-deps', f'--wheel-dir={folder}', package)
    wheels = list(pathlib.Path(folder).glob('*-none-any.whl'))
    if built.returncode or len(wheels) != 1:
      return last_line(found.stderr) or last_line(built.stderr)
    (out / wheels[0].name).write_bytes(wheels[0].read_bytes())
  return ''


def pip(*words: str) -> subprocess.CompletedProcess:
  command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *words]
  return subprocess.run(command, capture_output=True, text=True)


def last_line(text: str) -> str:
  return (text.strip().splitlines() or [''])[-1]


def wheels_in(out: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """By name, the wheels in a folder."""
  found = {}
  for path in sorted(out.glob('*.whl')):
    found.setdefault(str(parse_wheel_filename(path.name)[0]), []).append(path)
  return found


def wrong(out: pathlib.Path) -> list[str]:
  """What is wrong with a folder of the wheels of CARRIED, in lines."""
  found = wheels_in(out)
  lines = [f'{name}: is not there' for name in CARRIED if name not in found]
  lines += [f'{name}: is not needed' for name in found if name not in CARRIED]
  for name, paths in found.items():
    if len(paths) > 1:
      lines.append(f'{name}: more than one, {", ".join(path.name for path in paths)}')
    for path in paths:
      tags = map(str, parse_wheel_filename(path.name)[3])
      if not any(map(SUITS.fullmatch, tags)):
        lines.append(f'{path.name}: not for Python 3.12 on x86-64 Linux')
  if (size := total(out)) > LARGEST:
    lines.append(f'{size / 1e6:.1f} MB: must be at most {LARGEST / 1e6:.0f} MB')
  return lines


def total(out: pathlib.Path) -> int:
  return sum(path.stat().st_size for path in out.glob('*.whl'))


def made(out: str, parser: argparse.ArgumentParser) -> pathlib.Path:
  """The folder --out, before anything is computed for it."""
  path = pathlib.Path(out)
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    parser.error(f'--out={out}: cannot be made: {error.strerror}')
  return path


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    'python -m benchmarks.gpu_wheels', description=__doc__, allow_abbrev=False
  )
  parser.formatter_class = argparse.RawDescriptionHelpFormatter
  parser.add_argument('--out', default='.whl', help='the folder of the wheels (.whl)')
  args = parser.parse_args(arguments)
  out = made(args.out, parser)
  pinned, packages = pins(), []
  for name in CARRIED:
    version = pinned.get(name)
    if version is None:
      version = importlib.metadata.version(name)
      print(f'{name}: not in constraints.txt; {version} is taken, as installed here')
    packages.append(f'{name}=={version}')
    for path in wheels_in(out).get(name, ()):  # of before
      path.unlink()
  with futures.ThreadPoolExecutor(4) as pool:
    reasons = list(pool.map(lambda package: download(package, out), packages))
  failed = [f'{package}: {why}' for package, why in zip(packages, reasons) if why]
  problems = failed or wrong(out)
  for line in problems:
    print(f'error: {line}', file=sys.stderr)
  size = total(out) / 1e6
  print(f'{len(wheels_in(out))} of {len(CARRIED)} wheels in {out}, {size:.1f} MB')
  return 1 if problems else 0


if __name__ == '__main__':
  sys.exit(main())
