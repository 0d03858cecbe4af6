"""What tables of classifiers and regressors say of a run beside its evaluation."""

import functools
import statistics
from typing import Any

from elas_jax.config.config import Config, RowsConfig
from elas_jax.models.classifier import Network
from elas_jax.models.flops import compiled_flops

# Rows of the train split of sets that are not here before someone prepares them.
TRAIN_ROWS = {'mnist': 60_000, 'fashion_mnist': 60_000, 'cifar10': 50_000}
TRAIN_ROWS['cifar100'] = TRAIN_ROWS['cifar10']


def network_values(
  config: Config, values: dict[str, float], lines: list[dict[str, Any]]
) -> dict[str, float]:
  """Accuracy and F1 in percent, and the seconds of an epoch, of those that there are.

  An epoch takes rows of the train split / examples per second, by the median of the
  speeds that the run has logged: without its first step, evaluations and checkpoints.
  """
  found = {
    f'{name}_percent': 100 * values[f'eval/{name}']
    for name in ('accuracy', 'f1')
    if values.get(f'eval/{name}') is not None
  }
  speeds = [
    x['train/examples_per_second'] for x in lines if 'train/examples_per_second' in x
  ]
  if speeds:
    found['seconds_per_epoch'] = train_rows(config.data) / statistics.median(speeds)
  return found


@functools.cache
def train_rows(data: RowsConfig) -> int:
  if (name := data.source.label()) in TRAIN_ROWS:
    return TRAIN_ROWS[name]
  return len(data.source.rows(data).train)


@functools.cache
def forward_flops(config: Config) -> float:
  """Of one row, as the compiler counts them, so that bases of KANs are among them."""
  return compiled_flops(Network(config.model), (1, *config.model.input_shape))
