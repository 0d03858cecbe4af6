"""What a table says of the configs of its rows: their shape, and how they are trained."""

from collections.abc import Iterable
from typing import Any

from elas_jax.config.config import Config
from elas_jax.systems.kinds import name_of
from elas_jax.systems.optimizers import OPTIMIZERS
from experiments.rates import at_the_edge


def either(values: Iterable[Any]) -> str:
  """'150 or 600': the different values in order."""
  return ' or '.join(f'{x:g}' for x in sorted(set(values)))


def shape(configs: list[Config]) -> str:
  """Data, sizes and steps, for the label of a scale."""
  sources = sorted({(c.data.source.label(), c.data.tokenizer.label()) for c in configs})
  data = ' or '.join(f'{source} ({tokenizer})' for source, tokenizer in sources)
  batches = sorted({(c.data.batch_size, c.data.sequence_length) for c in configs})
  ranks = [c.model.linear.rank for c in configs if hasattr(c.model.linear, 'rank')]
  return (
    f'{data}, D {either(c.model.width for c in configs)}, '
    f'N {either(c.model.layers for c in configs)}, '
    + (f'R {either(ranks)}, ' if ranks else '')
    + f'{either(c.train.steps for c in configs)} steps of '
    + ' or '.join(f'{batch} x {length}' for batch, length in batches)
  )


def proxy_recipe(configs: list[Config]) -> str:
  """What all proxy tables train by instead of the published recipes of configs/c4.py."""
  decays = {}
  for config in configs:
    name = name_of(OPTIMIZERS, config.optimizer)
    # One without the field has no weight decay.
    decays.setdefault(name, set()).add(getattr(config.optimizer, 'weight_decay', 0.0))
  decay = ', '.join(f'{either(values)} by {name}' for name, values in decays.items())
  return (
    f'Not the published recipes (configs/c4.py): weight decay {decay}; b2 '
    f'{either(c.optimizer.b2 for c in configs)} and gradients clipped at norm '
    f'{either(c.optimizer.clip_norm for c in configs)} for all. Evaluated on the same '
    f'{either(c.eval.units for c in configs)} validation tokens.'
  )


def chosen_rates(
  methods: Iterable[str], chosen: dict[str, dict[str, Any]], by: str = 'learning_rates'
) -> str:
  """Where the learning rates are from, and which of them may not be the best."""
  edges = [
    f'{method} ({rate:g})' for method in methods if (rate := at_the_edge(method, chosen))
  ]
  return (
    f'Learning rates: chosen by experiments.{by}, not the published ones; at the '
    f'edge of the grid, so that a better one may lie beyond: {", ".join(edges) or "none"}.'
  )
