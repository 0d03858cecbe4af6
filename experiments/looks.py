"""What tables look for in finished runs beyond their last evaluation."""

import dataclasses
import pathlib
from typing import Any

import jax

from elas_jax.config import schema
from elas_jax.config.config import Config
from elas_jax.run.conversion import Source
from elas_jax.run.evaluation import evaluate
from elas_jax.run.measures import Measures
from elas_jax.run.workdir import Run, open_run
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.converters import CONVERTERS
from elas_jax.systems.measures import MEASURES
from elas_jax.tables.table import Look

THRESHOLDS = (0.01, 0.03, 0.1, 0.3)  # of FATReLU
BETAS = (0.01, 0.1, 0.3)  # of merge_features, of those that are published


def opened(workdir: pathlib.Path) -> Run:
  return open_run(workdir, None, {})


def values(run: Run, config: Config, rows: Any) -> dict[str, float]:
  """Bits per byte over eval.units of these rows, and zeros of one batch of them."""
  measured = dataclasses.replace(config.eval, measures=(MEASURES['sparsity'](),))
  config = dataclasses.replace(config, eval=measured)
  found = evaluate(config, run.variables, rows, run.mesh)
  with jax.set_mesh(run.mesh):
    seen = Measures(config, rows, run.mesh).values(config, run.variables)
  result = {name: found[f'eval/{name}'] for name in ('bits_per_byte', 'perplexity')}
  return result | {'zeros': float(seen['sparsity']['zero_fraction'].mean())}


def with_activation(config: Config, activation: Any) -> Config:
  """The config whose feed-forwards have this activation."""

  def change(kind: Any) -> Any:
    if not hasattr(kind, 'activation') or not hasattr(kind, 'maps'):
      return kind
    return dataclasses.replace(kind, activation=activation)

  model = schema.replaced(config.model, change)
  return dataclasses.replace(config, model=model)


def thresholds(workdir: pathlib.Path) -> dict[str, float]:
  """What FATReLU in the place of ReLU does at each of THRESHOLDS, without training."""
  run, found = opened(workdir), {}
  rows = run.prepared(('validation',)).validation
  for threshold in THRESHOLDS:
    fatrelu = ACTIVATIONS['fatrelu'](threshold)
    of = values(run, with_activation(run.config, fatrelu), rows)
    found |= {f'{name}_{threshold:g}': x for name, x in of.items()}
    jax.clear_caches()
  return found


def merging(workdir: pathlib.Path) -> dict[str, float]:
  """What is left of the units of feed-forwards, merged at each of BETAS, and the loss."""
  run, found = opened(workdir), {}
  given = Source(run, False).given
  rows = run.prepared(('validation',)).validation
  for beta in BETAS:
    merge = CONVERTERS['merge_features'](beta, summed='columns')
    config, variables = merge.convert(given)
    of = evaluate(config, variables, rows, run.mesh)
    width = config.model.feed_forward_width / run.config.model.feed_forward_width
    found |= {f'bits_{beta:g}': of['eval/bits_per_byte'], f'units_{beta:g}': width}
    jax.clear_caches()
  return found


def start(workdir: pathlib.Path) -> dict[str, float]:
  """What the run began with: the workdir that it was restored from, evaluated like it."""
  run = opened(workdir)
  first, rows = opened(run.past.parsed.restore), run.prepared(('validation',)).validation
  config = dataclasses.replace(first.config, eval=run.config.eval)
  found = evaluate(config, first.variables, rows, first.mesh)
  result = {name: found[f'eval/{name}'] for name in ('bits_per_byte', 'perplexity')}
  masks = [x for x in jax.tree.leaves(first.variables['buffers']) if x.ndim > 1]
  if masks:
    result['pruned'] = 1 - sum(x.sum() for x in masks) / sum(x.size for x in masks)
  return result


FATRELU = Look('fatrelu', thresholds)
START = Look('start', start)
MERGING = Look('merging', merging)
