"""The runs behind the tables: their configs, where they live, whether they are finished.

A run is known by the fingerprint of its config alone, so that tables which need the same
run share it. Training is elas_jax.train.train, which continues a run that was stopped.
"""

import dataclasses
import functools
import glob
import json
import pathlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.cli import load_config
from elas_jax.config.config import Config
from elas_jax.config.overrides import apply, of_another_kind
from elas_jax.config.parsing import parse
from elas_jax.config.schema import leaves
from elas_jax.run.metrics import read_metrics, strict_json
from elas_jax.run.state import init_variables, parameter_count, state_from
from elas_jax.systems.kinds import kinds_of
from elas_jax.train import train
from experiments import stored_configs
from experiments.network_values import network_values
from experiments.published import SIZES
from experiments.rates import RATE, base_rate, chosen_rate
from experiments.revisions import revisions


@dataclasses.dataclass(frozen=True)
class Scale:
  """What is run at a scale of a family of tables.

  `of_method` gives further fields: of a setting, a size and a method; the learning rate
  only if it is asked for, when neither the row nor the caller has one. `fields_of_kinds`
  are set where the kinds of a run have them.
  """

  sizes: tuple[str, ...]
  seeds: int
  config: str  # FILE.py:ARGUMENT, with {size} and {method} to be filled in
  fields: dict[str, Any]  # of every run
  label: str  # stands in every table, plot and file; {shape} is that of its rows
  of_method: Callable[['Setting', str, str, bool], dict[str, Any]] = (
    lambda setting, size, method, rate: {}
  )
  fields_of_kinds: dict[str, Any] = dataclasses.field(default_factory=dict)


RUNS = pathlib.Path('runs/experiments')
PROXY = {
  'train.steps': 500,
  'checkpoint.every': 250,
  'checkpoint.keep_latest': 1,
  'checkpoint.keep_best': 0,
  'eval.every': 500,
  'eval.units': 131_072,  # the same ones for every run
  'eval.sample_tokens': 0,
}
# What stands here is set where the kinds of a run have it: SGD has no b2.
PROXY_OF_KINDS = {'optimizer.b2': 0.95, 'optimizer.weight_decay': 0.1}
SMOKE = PROXY | {
  'model.width': 32,
  'model.layers': 2,
  'model.feed_forward_width': 64,
  'model.unroll': 1,
  'data.sequence_length': 32,
  'data.batch_size': 8,
  'train.steps': 10,
  'train.log_every': 5,
  'checkpoint.every': 10,
  'eval.every': 10,
  'eval.units': 2048,
}
SMOKE_OF_KINDS = PROXY_OF_KINDS | {
  'model.linear.rank': 8,
  'optimizer.rank': 8,
  'schedule.restart_warmup_steps': 1,
}
SMOKE_LABEL = 'SMOKE TEST, not a result: a few steps of a tiny model, to see that all runs'
PROXY_LABEL = (
  "PROXY, not the paper's scale: {shape}; compare rows with each other, not with "
  'published values'
)


def of_language_method(
  setting: 'Setting', size: str, method: str, rate: bool
) -> dict[str, Any]:
  if not rate:
    return {}
  smoke = setting.scale == 'smoke'
  return {RATE: base_rate(method) if smoke else chosen_rate(method, setting.rates)}


SCALES = {
  'smoke': Scale(
    sizes=('smoke',),
    seeds=1,
    config='configs/default.py:{method}',
    fields=SMOKE,
    fields_of_kinds=SMOKE_OF_KINDS,
    label=SMOKE_LABEL,
    of_method=of_language_method,
  ),
  'proxy': Scale(
    sizes=('proxy',),
    seeds=3,
    config='configs/default.py:{method}',
    fields=PROXY,
    fields_of_kinds=PROXY_OF_KINDS,
    label=PROXY_LABEL,
    of_method=of_language_method,
  ),
  'paper': Scale(
    sizes=SIZES,
    seeds=3,
    config='configs/c4.py:{size},{method}',
    fields={'eval.sample_tokens': 0},
    label="the paper's scale: C4, configs/c4.py",
  ),
}


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a table: a method, and what is different about it here."""

  label: str
  method: str
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  published: dict[str, tuple] = dataclasses.field(default_factory=dict)  # by size
  problem: str = ''  # why it cannot be run
  config: str = ''  # FILE.py:ARGUMENT, with {size} and {method}; '' = that of the scale


@dataclasses.dataclass(frozen=True)
class Run:
  seed: int
  spec: str
  flags: tuple[str, ...]
  config: Config
  workdir: pathlib.Path

  @property
  def name(self) -> str:
    """The fingerprint that its folder was made with."""
    return self.workdir.name.rpartition('-')[2]

  @property
  def command(self) -> str:
    """What repeats it, in the default folder of the runs: it stands in result files."""
    flags, (*_, scale, name) = shlex.join(self.flags), self.workdir.parts
    workdir = (RUNS / scale / name).as_posix()
    return f'python -m elas_jax.train --config={self.spec} {flags} --workdir={workdir}'


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all runs of one call have in common."""

  scale: str
  overrides: tuple[str, ...]  # '--config.FIELD=VALUE'
  runs: pathlib.Path
  rates: pathlib.Path  # the result file of the chosen learning rates, for the proxy
  scales: Mapping[str, Scale] = dataclasses.field(default_factory=lambda: SCALES)

  def config(
    self, method: str, size: str, fields: dict[str, Any], spec: str = ''
  ) -> Config:
    return self._made(method, size, fields, spec)[1]

  def _made(
    self, method: str, size: str, fields: dict[str, Any], spec: str
  ) -> tuple[tuple[str, ...], Config]:
    """Overrides of the config file, and the config.

    Of the scale, the caller's, then the row's. Of the caller's only those that the kinds
    of this run have: rows of a table have different ones.
    """
    scale = self.scales[self.scale]
    given = {flag.partition('=')[0]: flag for flag in self.overrides}
    for name in fields:
      if flag := given.get(f'--config.{name}'):
        raise UserError(f'{flag}: this table sets {name} itself, row by row')
    missing = RATE not in fields and f'--config.{RATE}' not in given
    common = scale.fields_of_kinds | scale.fields
    common |= scale.of_method(self, size, method, missing)
    flags = _as_flags(common) | given | _as_flags(fields)
    some = given.keys() | _as_flags(scale.fields_of_kinds).keys()
    spec = self._spec(method, size, spec)
    return _made(spec, tuple(flags.values()), frozenset(some - _as_flags(fields).keys()))

  def _spec(self, method: str, size: str, spec: str) -> str:
    spec = spec or self.scales[self.scale].config
    return spec.format(size=size, method=method)

  def run(self, row: Row, size: str, seed: int) -> Run:
    # Seeds differ in their last flag alone, and it takes time to read a config file.
    fields = row.fields | {'seed': 0}
    (*flags, _), config = self._made(row.method, size, fields, row.config)
    config = dataclasses.replace(config, seed=seed)
    return Run(
      seed=seed,
      spec=self._spec(row.method, size, row.config),
      flags=(*flags, f'--config.seed={seed}'),
      config=config,
      workdir=_folder(self.runs / self.scale, config),
    )


def _folder(runs: pathlib.Path, config: Config) -> pathlib.Path:
  """Where this run was begun, maybe when its config had fewer fields; else a new one.

  Read off the config, not the row: two tables must find the same folder.
  """
  kinds = {path: value for path, value, field in leaves(config) if kinds_of(field)}
  if config.task == 'language':
    names = [kinds['model.linear'], kinds['model.feed_forward']]
  else:
    source = config.data.source.label()
    names = [source, kinds['model.architecture'], kinds['model.linear']]
  # Folders of before a revision are none of this config, although they say the same.
  end = '-'.join([kinds['optimizer'], f'seed{config.seed}', *revisions(config)])
  new = runs / '-'.join([*names, end, fingerprint(config)])
  if new.exists():
    return new
  begun = sorted(runs.glob(f'*-{glob.escape(end)}-{12 * "[0-9a-f]"}/config.json'))
  return next((x.parent for x in begun if _same(x, config)), new)


@functools.cache  # a table asks for all its configs after every run
def _made(
  spec: str, flags: tuple[str, ...], some: frozenset[str]
) -> tuple[tuple[str, ...], Config]:
  """The flags, less those of `some` (their names) that are of other kinds; the config."""
  tree, taken = load_config(spec, ()), []
  for flag in sorted(flags, key=lambda flag: flag.partition('=')[0].count('.')):
    name = flag.partition('=')[0]
    if name not in some or not of_another_kind(tree, name.removeprefix('--config.')):
      apply(tree, [flag])
      taken.append(flag)
  return tuple(flag for flag in flags if flag in taken), parse(tree)


def check_taken(runs: Iterable[Run], overrides: Sequence[str]) -> None:
  """Refuses a caller's override whose field the kinds of no run have."""
  name_of = lambda flag: flag.partition('=')[0]
  taken = {name_of(flag) for run in runs for flag in run.flags}
  for flag in overrides:
    if taken and name_of(flag) not in taken:
      raise UserError(f'{flag}: a field of kinds that no row of this table has')


def _as_flags(fields: dict[str, Any]) -> dict[str, str]:
  return {f'--config.{name}': f'--config.{name}={value}' for name, value in fields.items()}


@functools.cache
def fingerprint(config: Config) -> str:
  """Of every field that can change what a run computes, and the revisions of its code.

  A run keeps the one that it was first recorded with as its name; with one more field in
  the config it is another, so that runs are found by what is compared here, not by names.
  """
  return stored_configs.key(stored_configs.canonical(config), revisions(config))


def outcome(
  run: Run,
  known: dict[str, dict[str, Any]] | None = None,
  old: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Where a run stands: 'finished' with its values, 'diverged' with the step, 'not run'.

  By its folder or else, if that has no end, by the `recorded` outcomes. The name and
  the command of a recorded run stay; the command is that of its table's row, `old`.
  """
  own = {'seed': run.seed, 'command': run.command, 'fingerprint': run.name}
  if names := revisions(run.config):
    own['revisions'] = names
  found, there = _on_disk(run), (known or {}).get(fingerprint(run.config))
  if there:
    own |= {name: there[name] for name in ('command', 'fingerprint')}
    found = there if found['status'] == 'not run' else found
  if old and old.get('fingerprint') == own['fingerprint']:
    own['command'] = old['command']
  return found | own


def _on_disk(run: Run) -> dict[str, Any]:
  result = {'status': 'not run'}
  mark, config = run.workdir / 'diverged.json', run.workdir / 'config.json'
  if not config.exists() or not _same(config, run.config):
    return result
  if mark.exists():  # its message names a folder of this machine
    return {'status': 'diverged', 'step': json.loads(mark.read_text())['step']}
  if not (run.workdir / 'metrics.jsonl').exists():
    return result
  about, lines = read_metrics(run.workdir)
  values = {}
  for line in lines:
    if line['step'] == run.config.train.steps:
      values |= line
  if values.get('eval/loss') is None:
    return result
  # Of activations/NAME/LAYER only the mean over layers, activations/NAME.
  chosen = re.compile('(eval|activations)/[^/]+')
  values = {name: x for name, x in values.items() if chosen.fullmatch(name)}
  if run.config.task != 'language':
    values |= network_values(run.config, values, lines)
  where = {'commit': about['commit'], 'device': about['device']}
  return {'status': 'finished'} | where | {'values': values}


def _same(path: pathlib.Path, config: Config) -> bool:
  stored = _stored(path.read_text(errors='replace'))
  return stored is not None and fingerprint(stored) == fingerprint(config)


@functools.cache  # by the content: the folders are looked through again and again
def _stored(text: str) -> Config | None:
  try:
    return stored_configs.stored(json.loads(text))
  # Cut short, or written by a later version.
  except (UserError, ValueError, LookupError, TypeError):
    return None


def execute(run: Run) -> None:
  """Trains, or continues to; a divergence is written down and not tried again.

  Raises UserError if a signal stopped the run.
  """
  try:
    train(run.config, run.workdir)
  except UserError as error:
    found = re.match(r'training diverged at step (\d+)', str(error))
    if not found:
      raise
    mark = {'step': int(found[1]), 'message': str(error)}
    write_text(run.workdir / 'diverged.json', strict_json(mark, indent=2) + '\n')
    print(f'{error}; recorded, not tried again')
  finally:
    jax.clear_caches()  # the next run has other shapes; programs would pile up
  if outcome(run)['status'] == 'not run':
    raise UserError(f'{run.workdir}: stopped before its end; the same command continues')


def tree_bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@functools.cache
def footprint(config: Config) -> dict[str, int]:
  """Parameters, and the exact bytes of what a run keeps from step to step."""
  state = jax.eval_shape(lambda: state_from(config, init_variables(config)))
  return {
    'parameters': parameter_count(state.params),
    'parameter_bytes': tree_bytes(state.params),
    'buffer_bytes': tree_bytes(state.buffers),
    'optimizer_bytes': tree_bytes(state.opt_state),
  }
