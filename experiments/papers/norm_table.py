"""Activations and norms of classifiers: EvoNorms beside batch norm, SELU in deep stacks.

  python -m experiments.run norm_table --scale=proxy --workers=2

On MNIST-1D (arXiv 2011.14439), at the batch of its authors or, NAME_8, of 8 rows:

  batch_relu, batch_relu_8     the CNN of kan_table: batch norm, then ReLU
  evonorm_b0, evonorm_b0_8     EvoNorm-B0 for both (arXiv 2004.02967)
  evonorm_s0, evonorm_s0_8     EvoNorm-S0 for both, which needs no batch
  deep_relu, deep_elu, ...     stacks of 16 layers of width 64 without a norm: of relu and
                               elu (arXiv 1511.07289), which start by He's normal, of selu
                               (arXiv 1706.02515) by LeCun's; and relu behind batch norm

Reproduces: no table. Published: EvoNorm-S0 is above batch norm and ReLU by 7.8 and 7.3
points of ImageNet where batches are small; SELU keeps mean and variance through layers.
Hardware: proxy two CPU cores, estimated at 25 minutes, 50 runs, and their searches.
"""

import dataclasses
from typing import Any

from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Metric, Row, Table
from experiments import networks

SMALL = 8  # rows
DEPTH, WIDTH = 16, 64
NORMS = {
  'batch_relu': {},
  'evonorm_b0': {'model.norm': 'evonorm_b0', 'model.activation': 'none'},
  'evonorm_s0': {'model.norm': 'evonorm_s0', 'model.activation': 'none'},
}
DEEP = {
  'relu': {'model.init': 'he'},
  'elu': {'model.init': 'he', 'model.activation': 'elu'},
  'selu': {'model.init': 'lecun_normal', 'model.activation': 'selu'},
  'relu_batch': {'model.init': 'he', 'model.norm': 'batch'},
}
STEPS = 2000
CODES: tuple[Metric, ...] = (
  ('codes/joint_redundancy', 'redundancy of codes', 4),
  ('dead_neurons/dynamic_rate', 'dead units', 4),
)


def rows(at: At) -> list[Row]:
  look = {'eval.measures': 'codes,dead_neurons'}
  found = []
  for suffix, batch in (('', {}), (f'_{SMALL}', {'data.batch_size': SMALL})):
    for name, kinds in NORMS.items():
      found.append(_row(f'{name}{suffix}', 'conv_mlp', look | kinds | batch))
  sizes: dict[str, Any] = {'model.width': WIDTH, 'model.depth': DEPTH}
  if at.scale == 'smoke':
    sizes = {'model.depth': 4}
  sizes |= {'model.use_bias': True}
  for name, kinds in DEEP.items():
    found.append(_row(f'deep_{name}', 'mlp_100_100', look | sizes | kinds))
  return networks.longer(at, found, STEPS)


def _row(label: str, model: str, fields: dict[str, Any]) -> Row:
  """With a search of its own: by its method a published network has a published rate."""
  config = f'{networks.IMAGES}:{{size}},{model}'
  row = Row(label, label, fields, config=config)
  return dataclasses.replace(row, rate_of=row)


def conclude(entries: list[Entry]) -> list[str]:
  pairs = [
    (f'{name}{suffix}', f'batch_relu{suffix}')
    for suffix in ('', f'_{SMALL}')
    for name in NORMS
    if name != 'batch_relu'
  ]
  pairs += [(f'deep_{x}', 'deep_relu') for x in DEEP if x != 'relu']
  pairs += [('deep_selu', 'deep_relu_batch')]
  return gap_lines(entries, pairs, networks.ACCURACY[:1])


TABLE = Table(
  title='EvoNorms, and deep stacks of ELU and SELU, on MNIST-1D',
  rows=rows,
  family=networks.NETWORKS,
  scales=networks.scales(networks.IMAGES, proxy=('mnist1d',)),
  metrics=(*networks.ACCURACY[:1], *CODES),
  cells=networks.flops_cell,
  conclude=conclude,
  notes=(
    'Each row has a rate of its own search.',
    'Redundancy of codes (arXiv 2101.05490): the share of rows of a validation batch whose '
    'signs of all hidden units another row has too. Dead units are zero for all of these '
    'rows. EvoNorms have no activation apart of which there could be either.',
    'EvoNorms replace the norm and the activation behind it.',
  ),
)
