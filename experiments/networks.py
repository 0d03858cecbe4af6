"""What tables of classifiers and regressors share: scales, and how they are described.

A size is a data set, and --only takes it: a table's config is FILE.py:SIZE,METHOD.
"""

import dataclasses
from typing import Any

from configs.functions import FUNCTIONS, SHAPES
from elas_jax.config.config import Config
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.kinds import name_of
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.systems.schedules import SCHEDULES
from elas_jax.tables.entries import Entry
from elas_jax.tables.plan import At
from elas_jax.tables.table import Family, Rates, Row, Scale
from experiments import published
from experiments.language import PROXY_LABEL, SMOKE_LABEL, either

IMAGES, POINTS = 'configs/images.py', 'configs/functions.py'
LOSS = ('eval/loss', 'validation loss', 4)
ACCURACY = (
  ('accuracy_percent', 'accuracy, %', 2),
  ('f1_percent', 'macro F1, %', 2),
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
LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


def rates_size(size: str) -> str:
  """The set whose learning rates a set takes: functions and shapes are one small net."""
  if size in FUNCTIONS or size in SHAPES:
    return 'exp_sin_square'
  return 'mnist1d' if size == 'mnist1d' else 'digits'


def ladder_of_mnist1d(method: str) -> tuple[float, ...]:
  """Of networks that are published, their own rate."""
  return (1e-2,) if method in published.MNIST1D else LADDER


# By accuracy: a network that fits the train split of MNIST-1D is the surer of what it
# misses, so that the loss is lowest for one that has learnt little.
RATES_OF_MNIST1D = Rates(ladder_of_mnist1d, slice(3, 7), ACCURACY[0], best=max)
RATES = Rates(
  lambda method: LADDER,
  slice(2, 7),
  LOSS,
  size=rates_size,
  others={'mnist1d': RATES_OF_MNIST1D},
)


def scales(
  file: str,
  *,
  proxy: tuple[str, ...],
  paper: tuple[str, ...] = (),
  smoke: tuple[str, ...] = (),
  seeds: int = 5,
  steps: int = PROXY['train.steps'],
  paper_label: str = "the paper's scale: {shape}",
) -> dict[str, Scale]:
  """The scales of a table; `paper` names sets that TFDS has prepared, or nothing."""
  config = f'{file}:{{size}},{{method}}'
  fields = PROXY | {'train.steps': steps, 'eval.every': steps}
  found = {
    'smoke': Scale(smoke or proxy, 1, config, SMOKE, SMOKE_LABEL),
    'proxy': Scale(proxy, seeds, config, fields, PROXY_LABEL, rates=RATES),
  }
  if paper:
    found['paper'] = Scale(paper, seeds, config, {'checkpoint.keep_latest': 1}, paper_label)
  return found


def longer(at: At, rows: list[Row], steps: int) -> list[Row]:
  """The rows, which on mnist1d have so many steps at the proxy scale, as their searches."""
  if (at.scale, at.size) != ('proxy', 'mnist1d'):
    return rows
  more = {'train.steps': steps, 'eval.every': steps}
  own = lambda row: dataclasses.replace(row, fields=more | row.fields)
  return [dataclasses.replace(own(row), rate_of=own(row.searched)) for row in rows]


def epochs(count: int) -> dict[str, Any]:
  """Batches of 64 of 60,000 rows; the rate falls by 0.8 an epoch, a little in each step."""
  steps = count * 60_000 // 64
  return {
    'train.steps': steps,
    'schedule': 'wsd',
    'schedule.decay_shape': 'exponential',
    'schedule.warmup_steps': 0,
    'schedule.decay_steps': steps,
    'schedule.final_fraction': 0.8**count,
  }


def shape(configs: list[Config]) -> str:
  """Data, widths, depths and steps, for the label of a scale."""
  sources = ', '.join(dict.fromkeys(c.data.source.label() for c in configs))
  kinds = (name_of(ARCHITECTURES, c.model.architecture) for c in configs)
  return (
    f'{sources}, {", ".join(dict.fromkeys(kinds))} of width '
    f'{_range(c.model.width for c in configs)} and depth '
    f'{_range(c.model.depth for c in configs)}, '
    f'{either(c.train.steps for c in configs)} steps of '
    f'{either(c.data.batch_size for c in configs)} rows'
  )


def _range(values: Any) -> str:
  found = sorted(set(values))
  return f'{found[0]}' if len(found) == 1 else f'{found[0]} to {found[-1]}'


def recipe(configs: list[Config]) -> str:
  any_of = lambda values: ' or '.join(dict.fromkeys(values))
  return (
    f'Trained by {any_of(name_of(OPTIMIZERS, c.optimizer) for c in configs)} with weight '
    f'decay {either(c.optimizer.weight_decay for c in configs)}, schedule '
    f'{any_of(name_of(SCHEDULES, c.schedule) for c in configs)} after '
    f'{either(c.schedule.warmup_steps for c in configs)} steps of warm-up. '
    'Evaluated on the validation split after the last step; there is no third split, so '
    'where rates were chosen, it was on this one, with another seed.'
  )


NETWORKS = Family(
  published='published accuracy, %',
  about=(
    'Ours: after the last step. FLOPs are those of the forward pass for one row, as the '
    'compiler counts them: functions such as tanh and exp as none. Seconds of an epoch '
    'are by the median logged speed, on a machine that others may have used; on sets '
    'as small as these they are mostly those of the loop; benchmarks.kan_layers times '
    'layers. '
  ),
  shape=shape,
  recipe=recipe,
  metrics=ACCURACY,
  compared='accuracy_percent',
)


def cells(config: Config, entry: Entry) -> dict[str, str]:
  model = config.model
  return {'width': str(model.width) if model.depth else '-'} | flops_cell(config, entry)


def flops_cell(config: Config, entry: Entry) -> dict[str, str]:
  found = entry.size_of.get('forward_flops')
  return {'FLOPs per row': '-' if found is None else f'{found:,.0f}'}
