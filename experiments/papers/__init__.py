"""One file a table; `python -m experiments.run --list` names them."""

import contextlib
import importlib
import os
import pathlib
import pkgutil
import runpy
from collections.abc import Iterator

from elas_jax.common.errors import UserError
from elas_jax.config.cli import where_it_failed
from elas_jax.tables.table import Table

RESULTS = pathlib.Path('experiments/results')
# What the list of the tables there says first.
ABOUT = (
  'The language proxies were made anew by another protocol (configs/proxy.py). The former '
  'one had 0.55 tokens a parameter, so that rates were chosen on a plateau; its one rate '
  'drove the embedding too, so that methods whose kernels want a large rate had the better '
  'embedding (GaLore came first, full rank last but one); attention saw across documents; '
  "and LORO's rows had a wrong exact step. Its runs stay in runs.jsonl.",
)


def names() -> list[str]:
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


@contextlib.contextmanager
def failures_of(name: str) -> Iterator[None]:
  """Around what runs a table of one's own: a program, which may fail in any way.

  Raises:
    UserError: it did, with the line; those of the tables here stay what they are.
  """
  try:
    yield
  except UserError:
    raise
  except (Exception, SystemExit) as error:
    if name in names():
      raise
    raise UserError(f'NAME={name}: {where_it_failed(name, error)}') from error


def table_of(name: str) -> Table:
  """Of a file here, or of a FILE.py elsewhere that has a TABLE.

  Raises:
    UserError: there is none of this name.
  """
  if name in names():
    return importlib.import_module(f'{__name__}.{name}').TABLE
  if not name.endswith('.py') or not pathlib.Path(name).is_file():
    known = ', '.join(names())
    raise UserError(f'NAME={name}: no such table; must be FILE.py or one of {known}')
  if pathlib.Path(name).stem in names():
    raise UserError(f'NAME={name}: a table of experiments/papers has this name; rename it')
  with failures_of(name):
    found = runpy.run_path(name).get('TABLE')
  if not isinstance(found, Table):
    raise UserError(f'NAME={name}: has no TABLE; must be a file like experiments/papers/*')
  return found


def results_of(name: str) -> pathlib.Path:
  """Where the results of a table lie that no flag has a place for."""
  file = pathlib.Path(name)
  return file.parent / 'results' if file.suffix else RESULTS


def name_on_page(name: str) -> str:
  """That of a table; for a file its path from the current folder, if it is in there."""
  path, here = pathlib.Path(os.path.abspath(name)), pathlib.Path.cwd()
  return str(path.relative_to(here)) if path.is_relative_to(here) else path.name


def about(results: pathlib.Path) -> tuple[str, ...]:
  """What the list of the tables in a folder of results says first."""
  return ABOUT if results.resolve() == RESULTS.resolve() else ()
