"""What the commands share: one-line errors and the --config flag."""

import sys
from collections.abc import Callable
from typing import Any

from elas_jax.errors import UserError


def run_command(main: Callable[[], Any]) -> None:
  """Runs a command; a UserError becomes one line on stderr and exit code 2."""
  try:
    main()
  except UserError as error:
    fail(str(error))
  except BrokenPipeError:  # the reader of a pipe, such as head, has gone
    sys.exit(1)


def fail(message: str) -> None:
  """One line on stderr, exit code 2."""
  print('error: ' + ' '.join(message.split()), file=sys.stderr)
  sys.exit(2)


def run_config_command(main: Callable[[list[str]], Any]) -> None:
  """Absl's app.run for a command with --config, with one-line errors throughout."""
  from absl import app, flags, logging

  logging.set_verbosity(logging.ERROR)  # JAX and Orbax report every phase otherwise

  def parse_flags(arguments: list[str]) -> list[str]:
    # A bad override surfaces as whatever ml_collections or the config file raised.
    try:
      rest = flags.FLAGS(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
      fail(_without_quotes(error))
    except OSError as error:
      fail(f'--config: {error.filename or error}: {error.strerror or "unreadable"}')
    if len(rest) > 1:
      fail(f'{rest[1]!r}: not a flag; overrides look like --config.train.steps=100')
    return rest

  app.run(lambda arguments: run_command(lambda: main(arguments)), flags_parser=parse_flags)


def _without_quotes(error: Exception) -> str:
  """The message; KeyError would print its repr."""
  return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
