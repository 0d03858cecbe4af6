"""What a table declares: a file such as those of experiments/papers holds one, as TABLE.

It says which rows there are, at which scales, how learning rates are looked for, what was
published, and what follows from the entries. All else is the same for all tables: plan.py
says which runs these are, run.py makes them, render.py shows them. Runs are known by their
configs, so that tables that have the same run share it without knowing each other.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elas_jax.config.config import Config

RATE = 'optimizer.learning_rate'
MADE = '{made}'  # in fields of a row: the folder of the files that are made for it
Metric = tuple[str, str, int]  # name, header, digits
MARKS = {
  'P': 'read in the source',
  'S': "from a third party's summary of the source",
  'R': 'read in the README of the public code',
  'C': 'as later papers cite it; its source was not read',
}


class Published(NamedTuple):
  """A number of somebody else's, with its source and one of MARKS."""

  value: float
  source: str
  mark: str
  std: float | None = None  # over runs

  def __str__(self) -> str:
    text = f'{self.value:.2f}'.replace('nan', 'NaN')
    return text if self.std is None else f'{text} ± {self.std:.2f}'


class Look(NamedTuple):
  """What is found out of a finished run beyond its last evaluation.

  `of` gives numbers by name of its workdir; they are recorded as NAME/that name. Where the
  code behind it changes what comes out it needs another name, by which it is done anew.
  """

  name: str
  of: Callable[[Path], dict[str, float]]


class Made(NamedTuple):
  """Files that a run reads and that are made for it, by other code than training.

  `of` writes them into an empty folder, from the workdir that the run starts from, if there
  is one, and its seed. MADE in the fields of the row stands for the folder. Where the
  code behind it changes what it writes it needs another name.
  """

  name: str
  of: Callable[[Path | None, Path, int], None]


@dataclasses.dataclass(frozen=True)
class Row:
  """A method, and what is different about it here.

  Attributes:
    fields: of the config, over those of the scale.
    published: size -> values.
    rate_of: the row whose search gives the learning rate; None: the method's, as it is.
    config: FILE.py:ARGUMENT, with {size} and {method}; '': that of the scale.
    after: the row whose run of the same seed a run of this one starts from.
    converter: what makes the start of that run, 'prune --converter.sparsity=0.5'; '': its
      parameters as they are. `fields` must then give the config of what is made.
    made: files for each of its runs.
    look: at each of its runs.
  """

  label: str
  method: str
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  published: dict[str, tuple[Published, ...]] = dataclasses.field(default_factory=dict)
  rate_of: 'Row | None' = None
  config: str = ''
  after: 'Row | None' = None
  converter: str = ''
  made: Made | None = None
  look: Look | None = None

  @property
  def searched(self) -> 'Row':
    return self.rate_of or Row(self.method, self.method, config=self.config)


@dataclasses.dataclass(frozen=True)
class Rates:
  """A search for learning rates, before the rows: a share of the steps, another seed.

  It begins with ladder[first] of a method and goes on along the ladder while the best rate
  is the lowest or the highest tried. What is best at an end of the ladder is said to be.

  Attributes:
    best: min or max, of the values of the metric.
    size: the size at which it is done for a size.
    others: how it is done at some of these instead.
  """

  ladder: Callable[[str], tuple[float, ...]]
  first: slice
  metric: Metric
  seed: int = 1000
  share: float = 0.5  # of the steps
  best: Callable[..., float] = min
  size: Callable[[str], str] = lambda size: size
  others: Mapping[str, 'Rates'] = dataclasses.field(default_factory=dict)

  def at(self, size: str) -> 'Rates':
    return self.others.get(size, self)

  @property
  def about(self) -> str:
    share = f'{self.share:.0%} of the steps'.replace('%', ' %')
    best = 'lowest' if self.best is min else 'highest'
    return f'{share}, seed {self.seed}; the {best} {self.metric[1]} is taken.'


@dataclasses.dataclass(frozen=True)
class Scale:
  """What is run at a scale; `rates` None takes those of the config files.

  `fields_of_kinds` are set where the kinds of a run have them: SGD has no b2.
  """

  sizes: tuple[str, ...]
  seeds: int
  config: str  # FILE.py:ARGUMENT, with {size} and {method} to be filled in
  fields: dict[str, Any]  # of every run
  label: str  # stands in every table and plot; {shape} is that of its rows
  fields_of_kinds: dict[str, Any] = dataclasses.field(default_factory=dict)
  rates: Rates | None = None


@dataclasses.dataclass(frozen=True)
class Family:
  """What tables of one kind of model have in common."""

  published: str  # header of the published values
  about: str  # how ours are meant, below a table
  shape: Callable[[list[Config]], str]  # of the configs of all rows, for a scale's label
  recipe: Callable[[list[Config]], str]  # how the proxies are trained
  metrics: tuple[Metric, ...]
  compared: str = ''  # name of the metric that published values are of


@dataclasses.dataclass(frozen=True)
class Table:
  """A table.

  Attributes:
    rows: of a size, at a scale (`At`, plan.py).
    cells: further columns, of a row's config and its `Entry` (entries.py).
    conclude: what follows from the entries, as lines.
    first: what must be known of the entries before the table is read, as lines.
    draw: further figures: of `Line`s, whose runs are in this folder, beside this path.
  """

  title: str
  rows: Callable[[Any], list[Row]]
  family: Family
  scales: Mapping[str, Scale]
  metrics: tuple[Metric, ...] = ()  # (): the family's
  cells: Callable[[Config, Any], dict[str, str]] = lambda config, entry: {}
  conclude: Callable[[list[Any]], list[str]] = lambda entries: []
  first: Callable[[list[Any]], list[str]] = lambda entries: []
  draw: Callable[[list[Any], Path, Path], None] = lambda lines, runs, path: None
  notes: tuple[str, ...] = ()
  notes_at: Callable[[Any], list[str]] = lambda at: []
  first_seed: int = 0
