"""What the training loop asks of a kind of problem; see TASKS in elas_jax/tasks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from elas_jax.config.config import Config
from elas_jax.models import layout
from elas_jax.models.flops import flops
from elas_jax.systems.seen import Seen
from elas_jax.systems.sown import as_thresholds, collections, gathered

Batch = dict[str, Any]  # arrays of B rows, among them `valid`; see `Task.rows`
Sums = dict[str, jax.Array]

# What a state's buffers may hold beside the network's own, by name. It is in a checkpoint
# of a run; who starts from its parameters, or converts them, leaves it behind.
REFERENCE = 'reference'  # the variables at the start: tasks/preference.py
KEPT = 'objectives'  # what objectives keep from step to step, in runs in which one does
BESIDE = (REFERENCE, KEPT)  # no module of a network has one of these names


def of_network(variables: Any) -> dict[str, Any]:
  """The variables without what lies beside the network's buffers."""
  buffers = {name: x for name, x in variables['buffers'].items() if name not in BESIDE}
  return variables | {'buffers': buffers}


def mutable(train: bool, sown: Sequence[str]) -> list[str]:
  """The collections that a pass may change."""
  return [*(['buffers'] if train else []), *collections(sown)]


def seen_of(
  config: Config,
  variables: Any,
  batch: Batch,
  changed: Mapping[str, Any],
  sown: Sequence[str],
  again: Callable[[Any], Seen],
  **computed: jax.Array,
) -> Seen:
  """A pass: what it was given, the collections that it changed, what was `computed`.

  `again` makes it of other variables.
  """
  network = {name: variables[name] for name in ('params', 'buffers')}
  return Seen(
    config=config,
    params=variables['params'],
    buffers=variables['buffers'],
    batch=batch,
    sown=gathered(changed, sown),
    changed=changed.get('buffers', variables['buffers']),
    matrices=lambda: layout.matrices(config.model, network),
    again=lambda thresholds: again(network | as_thresholds(thresholds)),
    **computed,
  )


@dataclasses.dataclass(frozen=True)
class Task:
  """The parts of a problem, all functions of the config.

  Attributes:
    unit: what is counted, in the plural: 'tokens', 'examples'.
    module: config -> the Flax module.
    inputs: config -> zeros that the module is initialised with, one row.
    row_units: config -> how many units a row has at most.
    rows: (config, B) -> a batch as ShapeDtypeStructs. `valid` says how many units a row
      has; a row that only fills up a batch has none.
    prepare: config, and a tokenizer if not that of data.tokenizer -> data, with the sets
      of rows `train` and `validation`, and `describe` and `record` for a checkpoint.
      Raises a UserError where they do not fit the model.
    forward: (config, variables, batch, key, train, sown=()) -> systems/seen.py:Seen, one
      pass with its sums over the units, `loss` and `count` among them. `key` is for layers
      that draw numbers; buffers change only if `train`; `sown` names what layers shall give
      away.
    train_values: the sums of a step, as floats -> what is logged.
    eval_values: the sums of an evaluation, stacked over its batches -> what is logged.
    show: (config, state, data) -> prints what a finished run has to show.
    headline: an evaluation -> one line.
    unit_flops: (config, params) -> FLOPs of training for one unit.
    beside: the network's variables at the start -> what the state has of BESIDE.
  """

  unit: str
  module: Callable[[Config], nn.Module]
  inputs: Callable[[Config], jax.Array]
  row_units: Callable[[Config], int]
  rows: Callable[[Config, int], Batch]
  prepare: Callable[..., Any]
  forward: Callable[..., Seen]
  train_values: Callable[[dict[str, float]], dict[str, float]]
  eval_values: Callable[[dict[str, np.ndarray]], dict[str, float]]
  show: Callable[[Config, Any, Any], None]
  headline: Callable[[dict[str, float]], str]
  unit_flops: Callable[[Config, Any], float] = lambda config, params: flops(
    config.model, params, config.length
  )
  beside: Callable[[Any], dict[str, Any]] = lambda variables: {}
