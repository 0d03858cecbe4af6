"""Rows that tables of sparse activations share: from scratch, and trained on."""

from typing import Any

from elas_jax.tables.plan import At
from elas_jax.tables.table import RATE, Metric, Row
from experiments.looks import FATRELU

FROM_SCRATCH = {RATE: 4e-3, 'eval.measures': 'sparsity'}
RATE_ON = 1e-3  # of what goes on
SHARE_ON = 0.6  # of the steps: how long it does
COEFFICIENT = 1.0
WHERE = 'model.feed_forward.activation'
L1 = 'train.objectives.l1_activations'
CONSTANT = {'train.objectives': 'l1_activations', f'{L1}.coefficient': COEFFICIENT}
STAGED = CONSTANT | {
  f'{L1}.schedule': 'half_sine_stages',
  f'{L1}.schedule.stages': '0:0.1,0.05:0.2,0.25:0.5,0.25:0.6,1:0.9,1:1.0',
}
ZEROS: Metric = ('sparsity/zero_fraction', 'zeros', 4)


def gated(activation: str) -> Row:
  """A gated feed-forward, from scratch."""
  return Row(activation, 'full', FROM_SCRATCH | {WHERE: activation})


def hidden(at: At) -> int:
  """F of ungated feed-forwards, of as many parameters as the gated ones."""
  return 96 if at.scale == 'smoke' else 3 * at.config('full').model.feed_forward_width // 2


def ungated(at: At, label: str, kind: str, **fields: Any) -> Row:
  """An ungated feed-forward of this kind and its fields, from scratch."""
  own = {'model.feed_forward_width': hidden(at), 'model.feed_forward': kind}
  own |= {f'model.feed_forward.{name}': x for name, x in fields.items()}
  return Row(label, 'full', FROM_SCRATCH | own)


def on(at: At, label: str, after: Row, activation: str, more: dict[str, Any]) -> Row:
  """`after` trained on, by an activation that a converter has put there if it is new."""
  steps = round(SHARE_ON * at.config('full').train.steps)
  fields = {RATE: RATE_ON, 'eval.measures': 'sparsity', WHERE: activation}
  fields |= {'train.steps': steps, 'eval.every': steps}
  new = f'replace_activation --converter.activation={activation}'
  converter = '' if activation == after.fields[WHERE] else new
  # Of a ReLU a higher threshold is looked at, too.
  look = FATRELU if activation == 'relu' else None
  return Row(label, 'full', fields | more, after=after, converter=converter, look=look)
