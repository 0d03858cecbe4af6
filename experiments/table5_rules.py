"""ELAS by the rule that makes its activations 2:4: table 5 of ELAS, and one more rule.

  python -m experiments.table5_rules --scale=smoke
  python -m experiments.table5_rules --scale=proxy
  python -m experiments.table5_rules --scale=paper \
      --config.data.source.path=... (see table 1)

Reproduces: top2 (the paper's naive), soft_weights and soft_activations at 60m to 1b;
mvue is not in the paper. Rules that change the kept values have no exact backward pass by
what is saved, and go straight through.
Hardware: proxy two CPU cores, 12 runs of 500 steps, 3 of them table 1's, three to
five minutes each on a core of its own; paper GPUs, not yet run on any.
Expected: experiments/results/table5_rules/proxy.md, whose runs are to be made again.
"""

from elas_jax.config.cli import run_command
from experiments import published, report
from experiments.harness import Experiment, main
from experiments.runs import Row, Setting

BACKWARD = {
  'top2': 'exact',
  'mvue': 'straight_through',
  'soft_weights': 'straight_through',
  'soft_activations': 'straight_through',
}


def rows(setting: Setting, size: str) -> list[Row]:
  return [
    Row(
      rule,
      'elas',
      {'model.feed_forward.recipe': rule, 'model.feed_forward.recipe.backward': backward},
      published.RULES_OF_TABLE.get(rule, {}),
    )
    for rule, backward in BACKWARD.items()
  ]


EXPERIMENT = Experiment(
  name='table5_rules',
  title='ELAS by pruning rule (ELAS, table 5)',
  rows=rows,
  metrics=report.METRICS + report.ACTIVATIONS,
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
    'must not see. As a backward pass after top2 it is in experiments.backward_recipes.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
