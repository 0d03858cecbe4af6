"""Recorded runs that nothing has trained, and a small table of them."""

import dataclasses

from elas_jax.config.config import to_tree
from elas_jax.run.record import Record, Recorded, key, portable
from elas_jax.run.revisions import revisions
from elas_jax.tables.entries import gap_lines
from elas_jax.tables.plan import Plan
from elas_jax.tables.table import Rates, Row, Scale, Table
from experiments.language import LANGUAGE, METRICS, PROXY_LABEL, scales

SIZE = {'parameters': 1234567, 'parameter_bytes': 2e6, 'buffer_bytes': 5e5}
SIZE |= {'optimizer_bytes': 4e6, 'training_flops': 1e6}

BASE = {'full': 1e-3}
FIELDS = {'train.steps': 500, 'eval.every': 500, 'eval.units': 131_072}


def ladder(method):
  return tuple(BASE.get(method, 2e-3) * 2.0**k for k in range(-3, 4))


# A protocol of the tests' own.
SCALES = scales() | {
  'proxy': Scale(
    ('proxy',),
    3,
    'configs/default.py:{method}',
    FIELDS,
    PROXY_LABEL,
    {'optimizer.b2': 0.95, 'optimizer.weight_decay': 0.1},
    Rates(ladder, slice(2, 5), METRICS[0]),
  )
}


def values(bits):
  return {
    'eval/loss': bits / 1.5,
    'eval/bits_per_byte': bits,
    'eval/perplexity': 10 * bits,
    'eval/published_perplexity': 5 * bits,
  }


def recorded(config, bits, **more):
  """The line of a run of this config; it diverged if `bits` is None."""
  found = {'status': 'finished', 'values': values(bits)} if bits else {'status': 'diverged'}
  found |= {} if bits else {'step': 7}
  about = {'commit': 'a' * 40, 'device': 'cpu', 'versions': {'jax': '0.0'}, 'size': SIZE}
  about |= {'revisions': revisions(config), 'curve': {'train/loss': [[1, 5.0], [9, bits]]}}
  tree = portable(to_tree(config))
  return Recorded(fingerprint=key(config), config=tree, **found | about | more)


def pair(**fields):
  """A table of two rows of one size, with seeds 0 to 2 and rates that are looked for."""
  rows = [Row('one', 'low_rank'), Row('two', 'full')]
  table = Table(
    title='A pair',
    rows=lambda at: rows,
    family=LANGUAGE,
    scales=SCALES,
    conclude=lambda entries: gap_lines(entries, [('one', 'two')], METRICS),
  )
  return dataclasses.replace(table, **fields)


def plan_of(table, runs=(), scale='proxy', overrides=(), seeds=None):
  return Plan(table, scale, Record(runs), overrides, seeds)


def record_all(table, bits_of, scale='proxy', **asked):
  """A record of all runs, as far as those that are done ask for more."""
  found = []
  while todo := (plan := plan_of(table, found, scale, **asked)).todo(plan.lines):
    found += [recorded(run.config, bits_of(run)) for run in todo]
  return found
