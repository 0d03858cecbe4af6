"""What the commands share: one-line errors, and --config with its overrides."""

import argparse
import ast
import difflib
import pathlib
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ml_collections import ConfigDict

from elas_jax.errors import UserError


def run_command(main: Callable[[], Any]) -> None:
  """Runs a command; a UserError becomes one line on stderr and exit code 2."""
  from absl import logging

  # Orbax logs each phase, and failures also where it raises them.
  logging.set_verbosity(logging.FATAL)
  try:
    main()
  except UserError as error:
    print('error: ' + ' '.join(str(error).split()), file=sys.stderr)
    # What a failed save left half done complains when the interpreter ends.
    warnings.simplefilter('ignore')
    sys.unraisablehook = lambda _: None
    sys.exit(2)
  except KeyboardInterrupt:
    print('error: interrupted', file=sys.stderr)
    sys.exit(130)
  except BrokenPipeError:  # the reader of a pipe, such as head, has gone
    sys.exit(1)


class Parser(argparse.ArgumentParser):
  """argparse without abbreviations; a bad command line is a UserError."""

  def __init__(self, **options):
    super().__init__(allow_abbrev=False, **options)

  def error(self, message: str) -> NoReturn:
    raise UserError(message)


def load_config(spec: str, overrides: Sequence[str]) -> ConfigDict:
  """The ConfigDict of --config=`spec` with overrides '--config.FIELD=VALUE'.

  Args:
    spec: FILE.py or FILE.py:ARGUMENT; calls the file's get_config, with the argument.
    overrides: what is left of a command line.

  Raises:
    UserError: the file fails, or an override is not one of its fields.
  """
  path, _, argument = spec.partition(':')
  if not pathlib.Path(path).is_file():
    raise UserError(f'--config={spec}: no such file; give FILE.py or FILE.py:ARGUMENT')
  try:
    get_config = runpy.run_path(path)['get_config']
    config = get_config(argument) if argument else get_config()
  except ValueError as error:  # the file's own words
    raise UserError(str(error)) from error
  except Exception as error:
    places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    place = f'line {places[-1].lineno}: ' if places else ''
    what = f'{type(error).__name__}: {error}'
    raise UserError(f'--config={spec}: {place}{what}') from error
  for override in overrides:
    _override(config, override)
  return config


def _override(config: ConfigDict, override: str) -> None:
  """Applies one '--config.FIELD=VALUE'; the value must be of the type of the old one."""
  name, equals, text = override.removeprefix('--config.').partition('=')
  if not override.startswith('--config.') or not equals:
    raise UserError(
      f'{override!r}: no such flag; a field is overridden like --config.train.steps=100, '
      'and --help shows the flags'
    )
  *parents, field = name.split('.')
  section, above = config, ''
  for part in parents:
    section = _get(section, part, above, f'{name}={text}')
    above += part + '.'
  old = _get(section, field, above, f'{name}={text}')
  value = text if isinstance(old, str) else _literal(text)
  kind = type(old)
  if kind is ConfigDict:
    raise UserError(f'{name}={text}: is a section; accepted: {_fields(old, name + ".")}')
  if type(value) is not kind and (kind, type(value)) != (float, int):
    raise UserError(f'{name}={text!r}: must be of type {kind.__name__}')
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
  except (ValueError, SyntaxError):
    return text
  return tuple(value) if isinstance(value, list) else value
