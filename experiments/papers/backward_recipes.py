"""ELAS by its backward pass: exact, two straight-through ones, split, transposable.

  python -m experiments.run backward_recipes --scale=proxy --workers=2

Reproduces: no table. The draft of ELAS goes straight through the pruning, its code has
three recipes, and no published number tells them apart; see elas_jax/ops/two_four.py.
Hardware and flags of the paper's scale: as table1_perplexity.
"""

import dataclasses

from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments.language import ACTIVATIONS, LANGUAGE, METRICS, scales

BACKWARDS = ('exact', 'straight_through', 'straight_through_dense', 'split', 'transposable')
OWN_RATE = f'{BACKWARDS[-1]}_at_its_rate'


def rows(at: At) -> list[Row]:
  field = 'model.feed_forward.recipe'
  found = [Row(x, 'elas', {field: 'top2', f'{field}.backward': x}) for x in BACKWARDS]
  last = found[-1]
  return [*found, dataclasses.replace(last, label=OWN_RATE, rate_of=last)]


def conclude(entries: list[Entry]) -> list[str]:
  pairs = [(name, 'exact') for name in (*BACKWARDS[1:], OWN_RATE)]
  return gap_lines(entries, pairs, METRICS)


TABLE = Table(
  title='ELAS by the recipe of its backward pass',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=('60m', '130m')),
  metrics=METRICS + ACTIVATIONS,
  conclude=conclude,
  notes=(
    'All rows prune by top2 in the forward pass. transposable prunes what is saved further '
    'in the backward pass, to 2:4 along tokens as well; as a rule of the forward pass it '
    'would let tokens see later ones. At the learning rate of the others it does not '
    'train; its second row has a rate that was searched for it.',
    "Nothing published separates these at ELAS's setting. For a full-rank model of 1.5B, "
    'Haziza et al. (arXiv 2503.16672, table 1; called perplexity, they look like losses) '
    '[P] give 2.651 dense, 2.652 with the split recipe, 2.682 without the split, 2.919 '
    'without the token permutation, and 3.735 (diverging) when the backward pass is not '
    'pruned as the forward one is.',
  ),
)
