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
from collections.abc import Callable, Mapping
from typing import Any

import jax

from configs.methods import METHODS
from elas_jax.common.errors import UserError
from elas_jax.common.places import write_text
from elas_jax.config.cli import load_config
from elas_jax.config.config import Config, parse, to_json
from elas_jax.run.metrics import read_metrics, strict_json
from elas_jax.run.state import init_variables, parameter_count, state_from
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
  only if it is asked for, when neither the row nor the caller has one.
  """

  sizes: tuple[str, ...]
  seeds: int
  config: str  # FILE.py:ARGUMENT, with {size} and {method} to be filled in
  fields: dict[str, Any]  # of every run
  label: str  # stands in every table, plot and file; {shape} is that of its rows
  of_method: Callable[['Setting', str, str, bool], dict[str, Any]] = (
    lambda setting, size, method, rate: {}
  )


RUNS = pathlib.Path('runs/experiments')
PROXY = {
  'train.steps': 500,
  'checkpoint.every': 250,
  'checkpoint.keep_latest': 1,
  'checkpoint.keep_best': 0,
  'eval.every': 500,
  'eval.tokens': 131_072,  # the same ones for every run
  'eval.sample_tokens': 0,
  'optimizer.b2': 0.95,
}
SMOKE = PROXY | {
  'model.width': 32,
  'model.layers': 2,
  'model.feed_forward_width': 64,
  'model.rank': 8,
  'model.unroll': 1,
  'data.sequence_length': 32,
  'data.batch_size': 8,
  'optimizer.projection_rank': 8,
  'optimizer.restart_warmup_steps': 1,
  'train.steps': 10,
  'train.log_every': 5,
  'checkpoint.every': 10,
  'eval.every': 10,
  'eval.tokens': 2048,
}
SMOKE_LABEL = 'SMOKE TEST, not a result: a few steps of a tiny model, to see that all runs'
PROXY_LABEL = (
  "PROXY, not the paper's scale: {shape}; compare rows with each other, not with "
  'published values'
)


def of_language_method(
  setting: 'Setting', size: str, method: str, rate: bool
) -> dict[str, Any]:
  fields = {}
  if METHODS[method].get('optimizer.name') != 'loro':
    fields['optimizer.weight_decay'] = 0.1
  if rate:
    smoke = setting.scale == 'smoke'
    fields[RATE] = base_rate(method) if smoke else chosen_rate(method, setting.rates)
  return fields


SCALES = {
  'smoke': Scale(
    sizes=('smoke',),
    seeds=1,
    config='configs/default.py:{method}',
    fields=SMOKE,
    label=SMOKE_LABEL,
    of_method=of_language_method,
  ),
  'proxy': Scale(
    sizes=('proxy',),
    seeds=3,
    config='configs/default.py:{method}',
    fields=PROXY,
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

  def flags(self, method: str, size: str, fields: dict[str, Any]) -> tuple[str, ...]:
    """Overrides of the config file: of the scale, the caller's, then the row's."""
    scale = self.scales[self.scale]
    given = {flag.partition('=')[0]: flag for flag in self.overrides}
    for name in fields:
      if flag := given.get(f'--config.{name}'):
        raise UserError(f'{flag}: this table sets {name} itself, row by row')
    missing = RATE not in fields and f'--config.{RATE}' not in given
    common = scale.fields | scale.of_method(self, size, method, missing)
    return tuple((_as_flags(common) | given | _as_flags(fields)).values())

  def config(
    self, method: str, size: str, fields: dict[str, Any], spec: str = ''
  ) -> Config:
    spec = self._spec(method, size, spec)
    return _parsed(spec, self.flags(method, size, fields))

  def _spec(self, method: str, size: str, spec: str) -> str:
    spec = spec or self.scales[self.scale].config
    return spec.format(size=size, method=method)

  def run(self, row: Row, size: str, seed: int) -> Run:
    fields = row.fields | {'seed': seed}
    config = self.config(row.method, size, fields, row.config)
    return Run(
      seed=seed,
      spec=self._spec(row.method, size, row.config),
      flags=self.flags(row.method, size, fields),
      config=config,
      workdir=_folder(self.runs / self.scale, config),
    )


def _name(config: Config) -> str:
  """Read off the config, not the row: two tables must find the same folder."""
  model, optimizer = config.model, config.optimizer
  kinds = (
    (model.linear, model.feed_forward)
    if config.task == 'language'
    else (config.data.source, model.architecture, model.layer)
  )
  # Folders of before a revision are none of this config, although they say the same.
  return '-'.join([*kinds, optimizer.name, f'seed{config.seed}', *revisions(config)])


def _folder(runs: pathlib.Path, config: Config) -> pathlib.Path:
  """Where this run was begun, maybe when its config had fewer fields; else a new one."""
  name = _name(config)
  new = runs / f'{name}-{fingerprint(config)}'
  if new.exists():
    return new
  begun = sorted(runs.glob(f'{glob.escape(name)}-{12 * "[0-9a-f]"}/config.json'))
  return next((x.parent for x in begun if _same(x, config)), new)


@functools.cache  # a table asks for all its configs after every run
def _parsed(spec: str, flags: tuple[str, ...]) -> Config:
  return parse(load_config(spec, flags))


def _as_flags(fields: dict[str, Any]) -> dict[str, str]:
  return {f'--config.{name}': f'--config.{name}={value}' for name, value in fields.items()}


@functools.cache
def fingerprint(config: Config) -> str:
  """Of every field that can change what a run computes, and the revisions of its code.

  A run keeps the one that it was first recorded with as its name; with one more field in
  the config it is another, so that runs are found by what is compared here, not by names.
  """
  tree = stored_configs.canonical(json.loads(to_json(config)))
  return stored_configs.key(tree, revisions(config))


def recorded(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Fingerprint -> outcome of what the result file at `path` has; {} without a file.

  The folder of the runs is in no commit. So a result file is also where a clone finds
  what has been run, and where calls with other folders of runs find each other's. The
  fingerprint is what the stored config has today, not the name that the outcome has; runs
  without a stored config (experiments/stored_configs.py) are left out. Those of before a
  revision, which a table only keeps, have a fingerprint without it.
  """
  configs = stored_configs.read(path.parent.parent)
  return {
    stored_configs.key(configs[run['fingerprint']], run.get('revisions', ())): run
    for run in _done(path)
    if run.get('fingerprint') in configs
  }


def check_recognised(path: pathlib.Path, found: set[tuple[str, str, int]]) -> None:
  """Refuses to write over runs of the result file at `path` that nothing recognises.

  `found` are label, size and seed of what is done. Runs of which there is no stored config
  can only be found in their folders.
  """
  configs = stored_configs.read(path.parent.parent)
  lost = [
    (label, size, seed)
    for (label, size), runs in runs_of_file(path).items()
    for seed, run in runs.items()
    if run['status'] != 'not run' and run.get('fingerprint') not in configs
  ]
  if lost := [x for x in lost if x not in found]:
    raise UserError(
      f'{path}: of {len(lost)} runs, {lost[0]} the first, there is no config in '
      f'{path.parent.parent}/configs.jsonl and no folder; give --results=DIR for new ones'
    )


def _done(path: pathlib.Path) -> list[dict[str, Any]]:
  rows = json.loads(path.read_text())['rows'] if path.exists() else []
  runs = [run.get('before', run) for row in rows for run in row['runs']]
  return [run for run in runs if run['status'] != 'not run']


def recorded_by_tables(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """`recorded` of all tables beside the one at `path`, at its scale: they share runs."""
  found = {}
  for other in sorted(path.parent.parent.glob(f'*/{path.name}')):
    found |= recorded(other)
  return found | recorded(path)


def runs_of_file(path: pathlib.Path) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
  """(Label, size) -> seed -> what the result file at `path` has of the run, done or not."""
  rows = json.loads(path.read_text())['rows'] if path.exists() else []
  return {(x['label'], x['size']): {r['seed']: r for r in x['runs']} for x in rows}


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
  try:
    return fingerprint(parse(json.loads(path.read_text()))) == fingerprint(config)
  except (UserError, ValueError):  # written by another version, or cut short
    return False


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
