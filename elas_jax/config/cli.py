"""What the commands share: one-line errors, and --config with its overrides."""

import argparse
import ast
import contextlib
import difflib
import functools
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
from elas_jax.common.limits import LARGEST_INTEGER, check_float, cut, shown
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
    self.add_argument(flag, type=functools.partial(place, flag), **options)

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
    overrides: what is left of a command line.

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
    places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    line = f'line {places[-1].lineno}: ' if places else ''
    what = f'{type(error).__name__}: {error}'
    raise UserError(f'--config={spec}: {line}{what}') from error
  if not isinstance(config, ConfigDict):
    raise UserError(
      f'--config={spec}: get_config returned {config!r:.60}; must be a ConfigDict of '
      'ml_collections'
    )
  for override in overrides:
    _override(config, override)
  return config


def _config_file(spec: str) -> tuple[str, str]:
  """FILE.py:ARGUMENT in two; configs/FILE.py is found from any folder."""
  name, _, argument = spec.partition(':')
  path = place('--config', name)
  own = pathlib.Path(__file__).parents[1] / path  # of this package, and of no other
  for found in (path, own) if path.parts[:1] == ('configs',) else (path,):
    if os.path.isfile(found):
      return str(found), argument
  raise UserError(f'--config={spec}: no such file; give FILE.py or FILE.py:ARGUMENT')


def _override(config: ConfigDict, override: str) -> None:
  """Applies one '--config.FIELD=VALUE'; the value must be of the type of the old one."""
  name, equals, text = override.removeprefix('--config.').partition('=')
  if not override.startswith('--config.') or not equals:
    raise UserError(
      f'{shown(override)}: no such flag; a field is overridden like '
      '--config.train.steps=100, and --help shows the flags'
    )
  *parents, field = name.split('.')
  section, above, given = config, '', cut(f'{name}={text}')
  for part in parents:
    section = _get(section, part, above, given)
    above += part + '.'
  old = _get(section, field, above, given)
  value = text if isinstance(old, str) else _literal(text)
  kind = type(old)
  if kind is ConfigDict:
    raise UserError(f'{given}: is a section; accepted: {_fields(old, name + ".")}')
  if type(value) is not kind and (kind, type(value)) != (float, int):
    raise UserError(f'{name}={shown(text)}: must be of type {kind.__name__}')
  if kind is float:  # which an integer may be too large for
    check_float(name, value)
  section[field] = value


def _get(section: Any, part: str, above: str, override: str) -> Any:
  if not isinstance(section, ConfigDict):
    raise UserError(f'{override}: no such field; {above[:-1]} is not a section')
  if part not in section:
    close = difflib.get_close_matches(part, section, 1)
    hint = f'did you mean {above}{close[0]}? ' if close else ''
    raise UserError(f'{override}: no such field; {hint}accepted: {_fields(section, above)}')
  return section[part]


def _fields(section: ConfigDict, above: str) -> str:
  return ', '.join(above + field for field in sorted(section))


def _literal(text: str) -> Any:
  """A number, a bool or a tuple as Python writes it; the text itself otherwise."""
  if text.lower() in ('true', 'false'):
    return text.lower() == 'true'
  try:
    value = ast.literal_eval(text)
  # What it may raise, by its documentation: the last three for operators or brackets of too
  # many levels; ValueError also for an integer of too many digits.
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text
  return tuple(value) if isinstance(value, list) else value
