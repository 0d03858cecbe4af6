"""The environment of processes that use the GPU, which each of them starts with.

Where the packages of CUDA 13 are installed without its compiler, jax takes their folder for
a CUDA toolkit and finds nothing in it: `jax._src.lib.cuda_path` is then the text 'None',
and XLA and Mosaic GPU look for ptxas there. CUDA_ROOT goes first, so it is set to the
toolkit whose nvcc is on the path.
"""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parents[2]
CACHE = pathlib.Path(tempfile.gettempdir()) / f'elas_jax_compilations_{os.getuid()}'


def toolkit(path: str | None = None) -> pathlib.Path | None:
  """The CUDA toolkit whose nvcc is on `path`, by default that of the process."""
  nvcc = shutil.which('nvcc', path=path)
  return pathlib.Path(nvcc).resolve().parents[1] if nvcc else None


def child_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
  """`given` and, where it says nothing of them: the toolkit, memory as needed, one cache.

  XLA_PYTHON_CLIENT_PREALLOCATE=false, since several processes share the GPU's memory, and
  JAX_COMPILATION_CACHE_DIR, so that none compiles what another has compiled. PYTHONPATH
  begins with the folder of this code, PATH with the toolkit's programs.
  """
  environment = {
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'JAX_COMPILATION_CACHE_DIR': str(CACHE),
    **given,
  }
  if root := toolkit(given.get('PATH')):
    root = pathlib.Path(environment.setdefault('CUDA_ROOT', str(root)))
    environment['PATH'] = _first(str(root / 'bin'), given.get('PATH'))
  environment['PYTHONPATH'] = _first(str(ROOT), given.get('PYTHONPATH'))
  return environment


def _first(folder: str, others: str | None) -> str:
  rest = [x for x in (others or '').split(os.pathsep) if x and x != folder]
  return os.pathsep.join([folder, *rest])
