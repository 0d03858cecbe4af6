"""The count of what could not be read, kept with the prepared documents."""

import dataclasses

from elas_jax.common.errors import UserError

MAX_MESSAGES = 20


@dataclasses.dataclass
class BadRecords:
  """How much was seen, how much of it was unreadable, and the first messages.

  Bytes are counted beside records because one unreadable file may outweigh thousands of
  lines. A file that breaks off has lost an unknown number of both, so it is counted for
  itself.
  """

  total: int = 0  # records seen, good and bad
  bad: int = 0
  total_bytes: int = 0  # of the records seen, as they were read
  bad_bytes: int = 0
  broken_files: int = 0  # that break off, so that what they have lost is unknown
  empty_files: int = 0  # without a single record
  messages: list[str] = dataclasses.field(default_factory=list)  # 'file:line: why'

  def count(self, size: int) -> None:
    """Counts one record of so many bytes, good or bad."""
    self.total += 1
    self.total_bytes += size

  def add(self, message: str, size: int, breaks_off: bool = False) -> None:
    """Counts a record as unreadable too; keeps its message if it is an early one."""
    self.bad += 1
    self.bad_bytes += size
    self.broken_files += breaks_off
    # Broken files come first: they would otherwise hide behind single lines.
    place = self.broken_files - 1 if breaks_off else len(self.messages)
    self.messages.insert(place, message)
    del self.messages[MAX_MESSAGES:]

  @property
  def share(self) -> float:
    """The unreadable share, of records or of bytes, whichever is larger."""
    of_records = self.bad / self.total if self.total else 0.0
    of_bytes = self.bad_bytes / self.total_bytes if self.total_bytes else 0.0
    return max(of_records, of_bytes)

  def lines(self) -> list[str]:
    """The report for the terminal; empty when everything was readable."""
    lines = []
    if self.bad:
      files = f', {self.broken_files} files break off' if self.broken_files else ''
      lines += [
        f'{self.bad} of {self.total} records were unreadable and are left out '
        f'({self.bad_bytes} of {self.total_bytes} bytes{files}):'
      ]
      lines += [f'  {message}' for message in self.messages]
      if len(self.messages) == MAX_MESSAGES < self.bad:
        lines += [f'  ... and {self.bad - MAX_MESSAGES} more']
    if self.empty_files:
      lines += [f'{self.empty_files} files hold no record']
    return lines

  def check(self, named: str, max_bad_share: float) -> None:
    """Refuses a larger unreadable share than data.max_bad_share, and broken files.

    How much a broken file has lost cannot be known from it, so that no share below 1
    accepts one.

    Args:
      named: the field that names the corpus, and its value.
      max_bad_share: data.max_bad_share.

    Raises:
      UserError: more is unreadable than accepted.
    """
    where = f'data.max_bad_share={max_bad_share:g}: '
    first = f'First: {"; ".join(self.messages[:3])}'
    if self.broken_files and max_bad_share < 1:
      raise UserError(
        f'{where}{self.broken_files} files of {named} break off, and how '
        'much they have lost is unknown; repair or remove them, or accept any loss with '
        f'1. {first}'
      )
    if self.share > max_bad_share:
      raise UserError(
        f'{where}{self.bad} of {self.total} records of {named} are '
        f'unreadable, {self.bad_bytes} of {self.total_bytes} bytes ({self.share:.2%}); '
        f'repair them or accept a larger share. {first}'
      )
