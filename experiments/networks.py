"""What tables of classifiers and regressors share: scales, and how they are described.

A size is a data set, and --only takes it: a table's config is FILE.py:SIZE,METHOD. The
learning rates of the proxies are chosen by experiments.network_rates.
"""

import bisect
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from configs.functions import FUNCTIONS, SHAPES
from elas_jax.config.config import Config, NetworkConfig
from elas_jax.models.classifier import Network
from elas_jax.run.state import parameter_count
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.kinds import name_of
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.systems.schedules import SCHEDULES
from experiments import notes
from experiments.harness import Family
from experiments.network_values import forward_flops
from experiments.rates import RATE, chosen_rate
from experiments.runs import PROXY_LABEL, SMOKE_LABEL, Scale, Setting

IMAGES, POINTS = 'configs/images.py', 'configs/functions.py'
# The sets whose rates the others take: functions and shapes are one net, of one recipe.
RATE_SIZES = {IMAGES: 'digits', POINTS: 'exp_sin_square'}
ACCURACY = (
  ('accuracy_percent', 'accuracy, %', 2),
  ('f1_percent', 'macro F1, %', 2),
  ('seconds_per_epoch', 's per epoch', 4),
)
FITS = (
  ('eval/rmse', 'RMSE', 5),
  ('accuracy_percent', 'accuracy, %', 2),
  ('seconds_per_epoch', 's per epoch', 4),
)
PROXY = {
  'train.steps': 500,
  'train.log_every': 100,
  'checkpoint.every': 1000,
  'checkpoint.keep_latest': 1,
  'checkpoint.keep_best': 0,
  'eval.every': 500,
}
SMOKE = PROXY | {
  'model.width': 16,
  'model.depth': 1,
  'data.batch_size': 16,
  'train.steps': 10,
  'train.log_every': 5,
  'eval.every': 10,
}


def rate_name(size: str, method: str) -> str:
  points = size in FUNCTIONS or size in SHAPES
  return f'{RATE_SIZES[POINTS if points else IMAGES]},{method}'


def chosen(setting: Setting, size: str, method: str, rate: bool) -> dict[str, Any]:
  return {RATE: chosen_rate(rate_name(size, method), setting.rates)} if rate else {}


def scales(
  file: str,
  *,
  proxy: tuple[str, ...],
  paper: tuple[str, ...],
  smoke: tuple[str, ...] = (),
  seeds: int = 5,
  steps: int = PROXY['train.steps'],
  paper_label: str = "the paper's scale: {shape}",
) -> dict[str, Scale]:
  """The scales of a table; `paper` names sets that TFDS has prepared, or nothing."""
  config = f'{file}:{{size}},{{method}}'
  length = {'train.steps': steps, 'eval.every': steps}
  found = {
    'smoke': Scale(smoke or proxy, 1, config, SMOKE, SMOKE_LABEL),
    'proxy': Scale(proxy, seeds, config, PROXY | length, PROXY_LABEL, chosen),
  }
  if paper:
    fields = {'checkpoint.keep_latest': 1}
    found['paper'] = Scale(paper, seeds, config, fields, paper_label)
  return found


def shape(configs: list[Config]) -> str:
  """Data, widths, depths and steps, for the label of a scale."""
  sources = ', '.join(dict.fromkeys(c.data.source.label() for c in configs))
  kinds = (name_of(ARCHITECTURES, c.model.architecture) for c in configs)
  networks = ', '.join(dict.fromkeys(kinds))
  return (
    f'{sources}, {networks} of width {_range(c.model.width for c in configs)} and depth '
    f'{_range(c.model.depth for c in configs)}, '
    f'{notes.either(c.train.steps for c in configs)} steps of '
    f'{notes.either(c.data.batch_size for c in configs)} rows'
  )


def _range(values: Any) -> str:
  found = sorted(set(values))
  return f'{found[0]}' if len(found) == 1 else f'{found[0]} to {found[-1]}'


def recipe(configs: list[Config]) -> str:
  either = lambda values: ' or '.join(dict.fromkeys(values))
  return (
    f'Trained by {either(name_of(OPTIMIZERS, c.optimizer) for c in configs)} with weight '
    f'decay {notes.either(c.optimizer.weight_decay for c in configs)}, schedule '
    f'{either(name_of(SCHEDULES, c.schedule) for c in configs)} after '
    f'{notes.either(c.schedule.warmup_steps for c in configs)} steps of warm-up. '
    'Evaluated on the validation split after the last step; there is no third split, so '
    'where rates were chosen, it was on this one, with another seed.'
  )


NETWORKS = Family(
  rates='network_rates',
  published='published accuracy, %',
  about=(
    'Ours: after the last step. FLOPs are those of the forward pass for one row, as the '
    'compiler counts them: functions such as tanh and exp as none. Seconds of an epoch '
    'are by the median logged speed, on a machine that others may have used; on sets '
    'as small as these they are mostly those of the loop; experiments.kan_layers times '
    'layers. '
  ),
  shape=shape,
  recipe=recipe,
  rate_name=rate_name,
)


def cells(config: Config, outcomes: list[dict[str, Any]]) -> dict[str, str]:
  return {'width': str(config.model.width)} | flops_cell(config, outcomes)


def flops_cell(config: Config, outcomes: list[dict[str, Any]]) -> dict[str, str]:
  return {'FLOPs per row': f'{forward_flops(config):,.0f}'}


@functools.cache
def parameters(model: NetworkConfig) -> int:
  row = jnp.zeros((1, *model.input_shape))
  shapes = jax.eval_shape(Network(model).init, jax.random.key(0), row)
  return parameter_count(shapes['params'])


def equal_width(model: NetworkConfig, budget: int, step: int = 1) -> int:
  """The width, a multiple of `step`, at which a network's parameters are nearest."""
  one, two, three = (
    parameters(dataclasses.replace(model, width=units * step)) for units in (1, 2, 3)
  )
  # Layers have at most width x width parameters, so that three counts give all others.
  count = lambda n: (
    one + (n - 1) * (two - one) + (n - 1) * (n - 2) // 2 * (three - 2 * two + one)
  )
  high = 1
  while count(high) < budget:
    high *= 2
  nearest = bisect.bisect_left(range(1, high + 1), budget, key=count) + 1
  return step * min(
    (max(1, nearest - 1), nearest), key=lambda units: abs(count(units) - budget)
  )
