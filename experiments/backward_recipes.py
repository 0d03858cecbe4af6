"""ELAS by its backward pass: exact, two straight-through ones, split, transposable.

  python -m experiments.backward_recipes --scale=smoke
  python -m experiments.backward_recipes --scale=proxy
  python -m experiments.backward_recipes --scale=paper \
      --config.data.source.path=... (see table 1)

Reproduces: no table. The draft of ELAS goes straight through the pruning, its code has
three recipes, and no published number tells them apart; see elas_jax/ops/two_four.py.
Hardware: proxy two CPU cores, 15 runs of 500 steps, 3 of them table 1's, three to
five minutes each on a core of its own; paper GPUs, not yet run on any.
Expected: experiments/results/backward_recipes/proxy.md, whose runs are to be made again.
"""

from typing import Any

from elas_jax.config.cli import run_command
from experiments import report
from experiments.harness import Experiment, main
from experiments.runs import Row, Setting

BACKWARDS = ('exact', 'straight_through', 'straight_through_dense', 'split', 'transposable')


def rows(setting: Setting, size: str) -> list[Row]:
  fields = {'model.feed_forward.recipe': 'top2'}
  return [
    Row(name, 'elas', fields | {'model.feed_forward.recipe.backward': name})
    for name in BACKWARDS
  ]


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  pairs = tuple((name, 'exact') for name in BACKWARDS[1:])
  gaps, lines = report.gaps(entries, pairs)
  return {'gaps_to_exact': gaps}, lines


EXPERIMENT = Experiment(
  name='backward_recipes',
  title='ELAS by the recipe of its backward pass',
  rows=rows,
  paper_sizes=('60m', '130m'),
  metrics=report.METRICS + report.ACTIVATIONS,
  conclude=conclude,
  notes=(
    'All rows prune by top2 in the forward pass. transposable prunes what is saved further '
    'in the backward pass, to 2:4 along tokens as well; as a rule of the forward pass it '
    'would let tokens see later ones.',
    "Nothing published separates these at ELAS's setting. For a full-rank model of 1.5B, "
    'Haziza et al. (arXiv 2503.16672, table 1; called perplexity, they look like losses) '
    '[P] give 2.651 dense, 2.652 with the split recipe, 2.682 without the split, 2.919 '
    'without the token permutation, and 3.735 (diverging) when the backward pass is not '
    'pruned as the forward one is.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
