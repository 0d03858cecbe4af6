"""How long ELAS trains dense before it prunes: table 4 of ELAS.

  python -m experiments.table4_warmup --scale=smoke
  python -m experiments.table4_warmup --scale=proxy
  python -m experiments.table4_warmup --scale=paper --config.data.path=... (see table 1)

Reproduces: dense steps 0, 500, 1000 and 2000 at 60m and 130m; at the proxy the shares of a
run that those are at 60m. The paper prints NaN for 0 steps at 60m, so the column
'non-finite loss' says for every run whether and where that happened; every step is
checked.
Hardware: proxy two CPU cores, 12 runs of 600 steps, not yet timed, 3 of them table 1's;
paper GPUs, not yet run on any.
Expected: none yet.
"""

from elas_jax.cli import run_command
from experiments import published, report
from experiments.harness import Experiment, main
from experiments.runs import Row, Setting


def rows(setting: Setting, size: str) -> list[Row]:
  if setting.scale == 'paper':
    return [_row(str(steps), steps, steps) for steps in published.WARMUP]
  steps = setting.config('elas', size, {}).train.steps
  shares = {'0': 0, '1/20': steps // 20, '1/10': steps // 10, '1/5': steps // 5}
  return [
    _row(label, dense, paper)
    for (label, dense), paper in zip(shares.items(), published.WARMUP)
  ]


def _row(label: str, dense_steps: int, published_steps: int) -> Row:
  return Row(
    f'dense_{label}',
    'elas',
    {'model.two_four_dense_steps': dense_steps},
    published.WARMUP[published_steps],
  )


EXPERIMENT = Experiment(
  name='table4_warmup',
  title='ELAS by the length of its dense warm-up (ELAS, table 4)',
  rows=rows,
  paper_sizes=('60m', '130m'),
  metrics=report.METRICS + report.ACTIVATIONS,
  notes=(
    'Loss and gradient norm are checked at every step of every run; a run stops at the '
    'first that is not finite.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
