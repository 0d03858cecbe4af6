"""What tables of language models share: scales, learning rates, how they are described."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from elas_jax.config.config import Config
from elas_jax.systems.kinds import name_of
from elas_jax.systems.optimizers import OPTIMIZERS
from elas_jax.tables.plan import At
from elas_jax.tables.table import Family, Metric, Rates, Scale

METRICS: tuple[Metric, ...] = (
  ('eval/bits_per_byte', 'bits per byte', 4),
  ('eval/perplexity', 'perplexity', 3),
  ('eval/published_perplexity', 'perplexity, published convention', 3),
)
ACTIVATIONS: tuple[Metric, ...] = (
  ('activations/zero_fraction', 'zeros before pruning', 4),
  ('activations/dropped_mass', 'dropped mass', 4),
  ('activations/dropped_mass_transposable', 'dropped mass, transposable', 4),
  ('activations/crowded_groups', 'groups with more than 2', 4),
)
SMOKE = {
  'model.width': 32,
  'model.layers': 2,
  'model.feed_forward_width': 64,
  'model.unroll': 1,
  'data.sequence_length': 32,
  'data.batch_size': 8,
  'train.steps': 10,
  'train.log_every': 5,
  'checkpoint.every': 10,
  'eval.units': 2048,
}
SMOKE_OF_KINDS = {
  'model.linear.rank': 8,
  'optimizer.rank': 8,
  'schedule.restart_warmup_steps': 1,
}
SMOKE_LABEL = 'SMOKE TEST, not a result: a few steps of a tiny model, to see that all runs'
PROXY_LABEL = (
  "PROXY, not the paper's scale: {shape}; compare rows with each other, not with "
  'published values'
)
SHARE = 0.6  # of the steps, in the searches
# In the middle of a method's grid: GaLore's and LORO's steps are shares of their rates.
BASE = dict.fromkeys(('galore', 'loro', 'loro_relu2', 'elas'), 1.6e-2)


def base_rate(method: str) -> float:
  return BASE.get(method, 4e-3)


def scales(
  base: Callable[[str], float] = base_rate,
  *,
  config: str = 'configs/proxy.py:{method}',
  paper: Sequence[str] = ('60m', '130m', '350m', '1b'),
  seeds: int = 3,
) -> dict[str, Scale]:
  """The scales of a table, by the middle of each method's grid; `paper` has its sizes.

  `seeds` are those of the proxy.
  """
  ladder = lambda method: tuple(base(method) * 2.0**k for k in range(-5, 6))
  rates = Rates(ladder, slice(4, 7), METRICS[0], share=SHARE)
  one = Rates(lambda method: (base(method),), slice(1), METRICS[0])
  smoke = (('smoke',), 1, config, SMOKE, SMOKE_LABEL, SMOKE_OF_KINDS, one)
  proxy = (('proxy',), seeds, config, {}, PROXY_LABEL, {}, rates)
  found = {'smoke': Scale(*smoke), 'proxy': Scale(*proxy)}
  if paper:
    label = "the paper's scale: C4, configs/c4.py"
    own = ('configs/c4.py:{size},{method}', {'eval.sample_tokens': 0}, label)
    found['paper'] = Scale(tuple(paper), 3, *own)
  return found


def with_sizes(found: dict[str, Scale], sizes: Iterable[str]) -> dict[str, Scale]:
  """With a proxy of several sizes, whose fields rows set; each has searches of its own."""
  return found | {'proxy': dataclasses.replace(found['proxy'], sizes=tuple(sizes))}


def resolved(at: At, method: str) -> dict[str, Any]:
  """Fields of runs for gaps that are below the spread of other tables.

  As long as the runs of the search whose rate they take, so that there can be more of
  them; evaluated on a million bytes.
  """
  steps = at.config(method).train.steps
  if at.scale == 'smoke':
    return {'train.steps': steps}
  return {'train.steps': round(SHARE * steps), 'eval.units': 1_048_576}


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


EASY = (
  ' Of the first 131,072 bytes 42 % are entries of character tables, of all 9 %. Nearly '
  'the same tables are in the training files, so they are easier than code (order_trials '
  'has the order of methods over a million bytes).'
)


def recipe(configs: list[Config]) -> str:
  """What all proxy tables train by instead of the published recipes of configs/c4.py."""
  decays = {}
  for config in configs:
    name = name_of(OPTIMIZERS, config.optimizer)
    # One without the field has no weight decay.
    decays.setdefault(name, set()).add(getattr(config.optimizer, 'weight_decay', 0.0))
  units = ' or '.join(f'{x:,}' for x in sorted({c.eval.units for c in configs}))
  decay = ', '.join(f'{either(values)} by {name}' for name, values in decays.items())
  # Plain SGD has neither.
  having = lambda name: [
    x for c in configs if (x := getattr(c.optimizer, name, None)) is not None
  ]
  b2, norms = either(having('b2')) or 'none', either(having('clip_norm')) or 'none'
  return (
    f'Not the published recipes (configs/c4.py): weight decay {decay}; b2 {b2} and '
    f'gradients clipped at norm {norms} for all. All rows are evaluated on the same '
    f'{units} validation tokens, and rates are chosen on these or the first of them.'
    + (EASY if any(map(_is_easy, configs)) else '')
  )


def _is_easy(config: Config) -> bool:
  names = config.data.source.label(), config.data.tokenizer.label(), config.eval.units
  return names == ('python_source', 'bytes', 131_072)


LANGUAGE = Family(
  published='published C4 perplexity',
  about=(
    'Ours: perplexity and bits per byte are token-weighted; the published convention '
    'divides the sum of batch means by one batch too many, as the published values do. '
  ),
  shape=shape,
  recipe=recipe,
  metrics=METRICS,
  compared='eval/published_perplexity',
)
