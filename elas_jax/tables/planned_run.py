"""One run of a table: its config, what it starts from, and what the record has of it."""

import dataclasses
import pathlib
from typing import Any

from elas_jax.config import schema
from elas_jax.config.config import Config
from elas_jax.run.ended import workdir_of
from elas_jax.run.record import DIVERGED, FINISHED, Recorded, key
from elas_jax.run.revisions import revisions
from elas_jax.systems.kinds import name_of
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.tables.table import MADE, Look, Made


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of a table, and what the record has of it.

  `before` is what was made before a revision: kept and said, but neither shown nor taken.
  `after` is the run that it starts from, which `converter` changes first. Of one that is
  recorded without its `look`, there is no `recorded` either.
  """

  label: str
  size: str
  config: Config
  recorded: Recorded | None
  before: Recorded | None
  after: 'Run | None' = None
  converter: str = ''
  made: Made | None = None
  look: Look | None = None

  @property
  def key(self) -> str:
    return key(self.config)

  def workdir(self, runs: pathlib.Path) -> pathlib.Path:
    """That of its config, which several tables may have."""
    return workdir_of(runs, _stem(self.config), self.config)

  def start(self, runs: pathlib.Path) -> pathlib.Path:
    """The workdir that it starts from: of `after`, or made of that by the converter."""
    if not self.converter:
      return self.after.workdir(runs)
    return runs / 'converted' / self.config.restore

  def made_in(self, runs: pathlib.Path) -> pathlib.Path:
    """The folder of the files made for it: the same for the same start and seed."""
    parts = [self.made.name, f'seed{self.seed}', self.config.restore]
    return runs / 'made' / '-'.join(filter(None, parts))

  def config_here(self, start: str, made: pathlib.Path | None) -> Config:
    """The config with the places on this machine of its start and of its files."""
    config = dataclasses.replace(self.config, restore=start)

    def put(kind: Any) -> Any:
      fields = {x.name: getattr(kind, x.name) for x in dataclasses.fields(kind)}
      texts = {name: x for name, x in fields.items() if isinstance(x, str) and MADE in x}
      placed = {name: x.replace(MADE, str(made)) for name, x in texts.items()}
      return dataclasses.replace(kind, **placed) if placed else kind

    return schema.replaced(config, put) if made else config

  @property
  def seed(self) -> int:
    return self.config.seed

  @property
  def ready(self) -> bool:
    """Whether what it starts from is recorded."""
    return self.after is None or self.after.recorded is not None

  @property
  def without_start(self) -> bool:
    """Whether what it would start from has diverged, so that it cannot be made."""
    after = self.after
    return after is not None and (after.status == DIVERGED or after.without_start)

  @property
  def lacks(self) -> list[str]:
    """Revisions that the run of before was made without."""
    return [
      x for x in revisions(self.config) if self.before and x not in self.before.revisions
    ]

  @property
  def status(self) -> str:
    return self.recorded.status if self.recorded else 'not run'

  @property
  def values(self) -> dict[str, float]:
    """Of a finished run."""
    return self.recorded.values if self.status == FINISHED else {}


def with_starts(run: Run) -> list[Run]:
  """The run behind those that it starts from, the first one first."""
  return [*(with_starts(run.after) if run.after else ()), run]


def looked(run: Recorded, look: Look) -> bool:
  """Whether the record has what this look finds out, or there is nothing to look at."""
  return run.status == DIVERGED or any(x.startswith(f'{look.name}/') for x in run.values)


def _stem(config: Config) -> str:
  """What the name of a workdir begins with."""
  return f'{config.data.source.label()}-{name_of(OPTIMIZERS, config.optimizer)}'


def name_of_start(after: Run, converter: str) -> str:
  """What stands for the start of a run in its config: the same wherever runs lie."""
  name = f'{after.key}-{"".join(c if c.isalnum() else "_" for c in converter)}'
  return name.rstrip('-')
