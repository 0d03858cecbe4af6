"""The one exception type that commands print as a single line instead of a traceback."""


class UserError(Exception):
  """A mistake in what the user gave: a config field, a path, a file.

  The message names the field (or file), the value it has and what is accepted.
  """
