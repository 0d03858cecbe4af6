"""ELAS by the rule that makes its activations 2:4: table 5 of ELAS, and one more rule.

  python -m experiments.run table5_rules --scale=proxy --workers=2

Reproduces: top2 (the paper's naive), soft_weights and soft_activations at 60m to 1b;
mvue is not in the paper. Rules that change the kept values have no exact backward pass by
what is saved, and go straight through. Hardware and flags: as table1_perplexity.
"""

from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import published
from experiments.language import ACTIVATIONS, LANGUAGE, METRICS, scales

BACKWARD = {
  'top2': 'exact',
  'mvue': 'straight_through',
  'soft_weights': 'straight_through',
  'soft_activations': 'straight_through',
}


def rows(at: At) -> list[Row]:
  field = 'model.feed_forward.recipe'
  return [
    Row(
      rule,
      'elas',
      {field: rule, f'{field}.backward': backward},
      published.RULES.get(rule, {}),
    )
    for rule, backward in BACKWARD.items()
  ]


def conclude(entries: list[Entry]) -> list[str]:
  return gap_lines(
    entries, [(rule, 'top2') for rule in BACKWARD if rule != 'top2'], METRICS
  )


TABLE = Table(
  title='ELAS by pruning rule (ELAS, table 5)',
  rows=rows,
  family=LANGUAGE,
  scales=scales(),
  metrics=METRICS + ACTIVATIONS,
  conclude=conclude,
  notes=(
    'Backward pass: '
    + ', '.join(f'{rule} {backward}' for rule, backward in BACKWARD.items())
    + '.',
    'Zeros, dropped mass and crowded groups are of the activations before pruning, in one '
    'validation batch after the last step, as means over layers; dropped mass is what top2 '
    'would drop, whatever the rule, and its transposable form what is not 2:4 along tokens '
    'as well.',
    'There is no row of the rule transposable: in a decoder the mask of a 4 x 4 tile '
    'makes what a token keeps depend on up to three tokens after it, which a causal model '
    'must not see. As a backward pass after top2 it is in backward_recipes.',
  ),
)
