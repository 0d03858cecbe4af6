"""The files of the corpus `python_source`: the running interpreter's library.

Apart from the builder, because a start with a warm cache needs the list of the files but
not TFDS.
"""

import os
import pathlib
import sysconfig

from elas_jax.common.errors import UserError

# Installed packages are not the standard library; the tests of the library are left
# out because distributions differ in whether they ship them.
EXCLUDED = frozenset(
  {'site-packages', 'dist-packages', 'test', 'tests', 'idle_test', '__pycache__'}
)


def list_files() -> list[tuple[str, pathlib.Path]]:
  """(name relative to the library, path) of every .py file, sorted by name.

  Raises:
    UserError: this interpreter has no library in .py files, or one that is locked.
  """
  root = sysconfig.get_path('stdlib')
  found = []

  def refuse(error: OSError):
    raise UserError(
      f"data.source='python_source': {error.filename} cannot be listed "
      f'({error.strerror}); make it readable or use another Python'
    ) from error

  for folder, subfolders, names in os.walk(root, onerror=refuse):
    subfolders[:] = [name for name in subfolders if name not in EXCLUDED]
    paths = [pathlib.Path(folder, name) for name in names if name.endswith('.py')]
    found += [(path.relative_to(root).as_posix(), path) for path in paths]
  if not found:
    raise UserError(
      f"data.source='python_source': {root} holds no .py files; use a Python that "
      "has them or data.source='text_files'"
    )
  return sorted(found)
