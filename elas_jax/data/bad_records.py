"""The count of records that could not be read, kept with the prepared documents."""

import dataclasses

from elas_jax.errors import UserError

MAX_MESSAGES = 20


@dataclasses.dataclass
class BadRecords:
  """How many records were seen, how many were unreadable, and the first of those."""

  total: int = 0  # records seen, good and bad
  bad: int = 0
  messages: list[str] = dataclasses.field(default_factory=list)  # 'file:line: why'

  def add(self, message: str) -> None:
    """Counts one unreadable record and keeps its message if it is an early one."""
    self.bad += 1
    if len(self.messages) < MAX_MESSAGES:
      self.messages.append(message)

  @property
  def share(self) -> float:
    """Unreadable records over all records, 0 when there were none at all."""
    return self.bad / self.total if self.total else 0.0

  def lines(self) -> list[str]:
    """The report for the terminal; empty when every record was readable."""
    if not self.bad:
      return []
    head = f'{self.bad} of {self.total} records were unreadable and are left out:'
    more = self.bad - len(self.messages)
    tail = [f'  ... and {more} more'] if more else []
    return [head, *(f'  {message}' for message in self.messages), *tail]

  def check(self, source: str, max_bad_share: float) -> None:
    """Raises UserError when the unreadable share is above data.max_bad_share."""
    if self.share <= max_bad_share:
      return
    first = '; '.join(self.messages[:3])
    raise UserError(
      f'data.max_bad_share={max_bad_share:g}: {self.bad} of {self.total} records of '
      f'data.source={source!r} ({self.share:.2%}) are unreadable; repair them or '
      f'accept a larger share. First: {first}'
    )
