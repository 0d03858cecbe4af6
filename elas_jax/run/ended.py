"""What is recorded of a run that has ended, from its workdir and its config."""

import dataclasses
import functools
import json
import pathlib
import re
import statistics
from typing import Any

import jax

from elas_jax.common.errors import UserError
from elas_jax.common.memory import tree_bytes
from elas_jax.config.config import Config, RowsConfig, filled, to_tree
from elas_jax.config.migrate import lifted
from elas_jax.models.classifier import Network
from elas_jax.models.flops import compiled_flops
from elas_jax.run.continuation import past_of
from elas_jax.run.metrics import read_metrics
from elas_jax.run.record import DIVERGED, FINISHED, Recorded, key, portable
from elas_jax.run.revisions import revisions
from elas_jax.run.state import init_variables, parameter_count, state_from
from elas_jax.tasks import task_of

POINTS = 24  # of a curve
# What is sparse or massive is told of as it comes about, beside the losses.
CURVES = (
  *('train/loss', 'eval/loss', 'sparsity/zero_fraction'),
  *('ppl_sparsity/activation_ratio', 'massive/ratio'),
)


def recorded(
  workdir: pathlib.Path, config: Config, diverged: int | None, seconds: float | None
) -> Recorded:
  """The line of a run that ended now: at its last step, or with a loss not finite.

  Raises:
    UserError: it has not come to its end.
  """
  about, lines = read_metrics(workdir)
  last = values(config, lines)
  if diverged is None and last.get('eval/loss') is None:
    raise UserError(f'{workdir}: stopped before its end; the same command continues')
  return Recorded(
    fingerprint=key(config),
    config=portable(to_tree(config)),
    status=FINISHED if diverged is None else DIVERGED,
    step=diverged,
    values=last if diverged is None else {},
    size=size_of(config),
    curve=thin(lines),
    revisions=revisions(config),
    seconds=seconds,
    **where(about),
    versions=about['versions'] | {'python': about['python']},
    data=_data(workdir),
    time=about['time'],
  )


def _data(workdir: pathlib.Path) -> str:
  """Which rows it was trained on: a path, or a standard library, names others elsewhere."""
  past = past_of(workdir)  # None if it diverged before its first checkpoint
  known = past is not None and past.record
  return past.record['splits']['train']['fingerprint'] if known else ''


def where(about: dict[str, Any]) -> dict[str, str]:
  """Commit, device and platform of a run; those that it went on with are joined to them."""
  parts = [about, *about.get('continued', ())]
  every = lambda *names: ', '.join(
    dict.fromkeys(next(x[n] for n in names if n in x) for x in parts if {*names} & {*x})
  )
  # Of before `machine` was written down `device` is all that is known.
  return {
    'commit': every('commit'),
    'device': every('machine', 'device'),
    'platform': every('platform'),
  }


def values(config: Config, lines: list[dict[str, Any]]) -> dict[str, float]:
  """Of the last step: the evaluation, means of measures over layers; and what follows.

  Accuracy and F1 in percent, and of networks on rows the seconds of an epoch: rows of the
  train split / examples per second, by the median of the speeds that the run has logged,
  without its first step, evaluations and checkpoints.
  """
  last = {k: v for x in lines if x['step'] == config.train.steps for k, v in x.items()}
  # Of a measure by layers, MEASURE/NAME/LAYER, only the mean over layers, MEASURE/NAME.
  whole = re.compile('(?!train/)[^/]+/[^/]+')
  found = {name: x for name, x in last.items() if whole.fullmatch(name)}
  for name in ('accuracy', 'f1'):
    if found.get(f'eval/{name}') is not None:
      found[f'{name}_percent'] = 100 * found[f'eval/{name}']
  name = 'train/examples_per_second'
  if found and (speeds := [x[name] for x in lines if name in x]):
    found['seconds_per_epoch'] = _train_rows(config.data) / statistics.median(speeds)
  return found


@functools.cache
def _train_rows(data: RowsConfig) -> int:
  return len(data.source.rows(data).train)


def thin(lines: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
  """CURVES of the lines of metrics.jsonl: the last point, and others evenly before it."""
  found = {}
  for name in CURVES:
    points = [[x['step'], x[name]] for x in lines if x.get(name) is not None]
    if points:
      every = -(-len(points) // POINTS)
      found[name] = [[s, float(f'{v:.5g}')] for s, v in points[::-1][::every][::-1]]
  return found


def size_of(config: Config) -> dict[str, float]:
  """From exact shapes: parameters, bytes that stay from step to step, FLOPs of a unit.

  Training FLOPs are those of models/flops.py; of networks on rows there are also those of
  the forward pass, as the compiler counts them, so that bases of KANs are among them.
  """
  return dict(_size_of(dataclasses.replace(config, seed=0)))


@functools.cache
def _size_of(config: Config) -> dict[str, float]:
  state = jax.eval_shape(lambda: state_from(config, init_variables(config)))
  found = {
    'parameters': parameter_count(state.params),
    'parameter_bytes': tree_bytes(state.params),
    'buffer_bytes': tree_bytes(state.buffers),
    'optimizer_bytes': tree_bytes(state.opt_state),
    'training_flops': task_of(config).unit_flops(config, state.params),
  }
  if not config.traits.text:
    row = (1, *config.model.input_shape)
    found['forward_flops'] = compiled_flops(Network(config.model), row)
  return found


def workdir_of(folder: pathlib.Path, name: str, config: Config) -> pathlib.Path:
  """Where a run of this config was begun, maybe when it had fewer fields; else a new one.

  The folder is called by `name`, seed and key. One of before a revision has the names of
  fewer revisions in it, and is none of this config although it says the same.
  """
  name = '-'.join([name, f'seed{config.seed}', *revisions(config)])
  if not (new := folder / f'{name}-{key(config)}').exists():
    for path in sorted(folder.glob(f'{name}-{12 * "[0-9a-f]"}/config.json')):
      if _key(path.read_bytes()) == key(config):
        return path.parent
  return new


@functools.cache  # by the content: the folders are looked through again and again
def _key(text: bytes) -> str:
  """Of a config.json; '' if it was cut short, or a later version wrote it."""
  try:
    return key(filled(lifted(json.loads(text))))
  except (UserError, ValueError):
    return ''
