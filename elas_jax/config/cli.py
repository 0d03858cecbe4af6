"""What the commands share: one-line errors, and --config with its overrides."""

import argparse
import contextlib
import os
import pathlib
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from elas_jax.common.errors import UserError
from elas_jax.common.interruption import INTERRUPTED, end_of_start
from elas_jax.common.limits import LARGEST_INTEGER, cut, shown
from elas_jax.common.places import place

# Of this package, also where someone has a folder of that name.
DEFAULT_CONFIG = str(pathlib.Path(__file__).parents[1] / 'configs/default.py')


def run_command(main: Callable[[], Any]) -> None:
  """Runs a command; a UserError becomes one line on stderr and exit code 2."""
  from absl import logging

  # Orbax logs each phase, and failures also where it raises them.
  logging.set_verbosity(logging.FATAL)
  # A terminal or a file that is not UTF-8 gets '?' for what it cannot hold.
  with contextlib.suppress(AttributeError):  # something else may stand in for stdout
    sys.stdout.reconfigure(errors='replace')
  try:
    end_of_start()
    main()
  except UserError as error:
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    # What a failed save left half done complains when the interpreter ends.
    warnings.simplefilter('ignore')
    sys.unraisablehook = lambda _: None
    sys.exit(2)
  except KeyboardInterrupt:
    print('error: interrupted', file=sys.stderr)
    sys.exit(INTERRUPTED)
  except BrokenPipeError:  # the reader of a pipe, such as head, has gone
    sys.exit(1)


class Parser(argparse.ArgumentParser):
  """argparse without abbreviations; a bad command line is a UserError."""

  def __init__(self, **options):
    super().__init__(allow_abbrev=False, **options)

  def add_place(self, flag: str, **options) -> None:
    """Adds an argument that is a path: expanded, or refused if it cannot be one."""

    def read(text: str) -> pathlib.Path:
      if not text:  # as of a variable of the shell that is not set
        raise UserError(f'{flag}: empty; must be a path')
      return place(flag, text)

    self.add_argument(flag, type=read, **options)

  def error(self, message: str) -> NoReturn:
    raise UserError(cut(message, 1000))


def integer(least: int = 0, most: int = LARGEST_INTEGER) -> Callable[[str], int]:
  """A type for argparse: an integer from `least` to `most`."""

  def read(text: str) -> int:
    try:
      value = int(text)
    except ValueError:
      value = None
    if value is None or not least <= value <= most:
      accepted = f'must be an integer from {least} to {most}'
      raise argparse.ArgumentTypeError(f'{shown(text)}: {accepted}')
    return value

  return read


def load_config(spec: str, overrides: Sequence[str]) -> ConfigDict:
  """The ConfigDict of --config=`spec` with overrides '--config.FIELD=VALUE'.

  Args:
    spec: FILE.py or FILE.py:ARGUMENT; calls the file's get_config, with the argument.
    overrides: what is left of a command line, in any order.

  Raises:
    UserError: the file fails, or an override is not one of its fields.
  """
  path, argument = _config_file(spec)
  try:
    get_config = runpy.run_path(path).get('get_config')
    if not callable(get_config):
      raise UserError(f'--config={spec}: must define a function get_config')
    config = get_config(argument) if argument else get_config()
  except UserError:
    raise
  except ValueError as error:  # the file's own words
    raise UserError(str(error)) from error
  except (Exception, SystemExit) as error:  # it is a program, and may fail in any way
    raise UserError(f'--config={spec}: {where_it_failed(path, error)}') from error
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'--config={spec}: get_config returned {config!r:.60}; must be a ConfigDict of '
      'ml_collections'
    )
  # With all systems; commands begin with this module, before what takes seconds.
  from elas_jax.config.overrides import apply, check_references

  config = ConfigDict(config)  # one that can be changed, of one that cannot too
  check_references(config, spec)
  apply(config, overrides)
  return config


def where_it_failed(path: str, error: BaseException) -> str:
  """The line of a user's program, and what was raised there."""
  places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
  line = f'line {places[-1].lineno}: ' if places else ''
  return f'{line}{type(error).__name__}: {error}'


def _config_file(spec: str) -> tuple[str, str]:
  """FILE.py:ARGUMENT in two; configs/FILE.py is found from any folder."""
  name, _, argument = spec.partition(':')
  path = place('--config', name)
  own = pathlib.Path(__file__).parents[1] / path  # of this package, and of no other
  for found in (path, own) if path.parts[:1] == ('configs',) else (path,):
    if os.path.isfile(found):
      return str(found), argument
  raise UserError(f'--config={spec}: no such file; give FILE.py or FILE.py:ARGUMENT')
