"""How long ELAS trains dense before it prunes: table 4 of ELAS.

  python -m experiments.table4_warmup --scale=smoke
  python -m experiments.table4_warmup --scale=proxy
  python -m experiments.table4_warmup --scale=paper \
      --config.data.source.path=... (see table 1)

Reproduces: dense steps 0, 500, 1000 and 2000 at 60m and 130m; at the proxy the shares of a
run that those are at 60m. The paper prints NaN for 0 steps at 60m, so the column
'non-finite loss' says for every run whether and where that happened; every step is
checked.
Hardware: proxy two CPU cores, 12 runs of 500 steps, 3 of them table 1's, three to
five minutes each on a core of its own; paper GPUs, not yet run on any.
Expected: experiments/results/table4_warmup/proxy.md, whose runs are to be made again.
"""

from typing import Any

from elas_jax.config.cli import run_command
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
    {'model.feed_forward.dense_steps': dense_steps},
    published.WARMUP[published_steps],
  )


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  """Whether the paper's NaN without warm-up is seen here, size by size."""
  found, lines = [], []
  for entry in entries:
    if entry['label'] != 'dense_0':
      continue
    done = [run for run in entry['runs'] if run['status'] != 'not run']
    diverged = [run for run in done if run['status'] == 'diverged']
    found.append({'size': entry['size'], 'done': len(done), 'diverged': len(diverged)})
    where = ', '.join(f'seed {run["seed"]} at step {run["step"]}' for run in diverged)
    if not done:
      answer = 'not known, no run is done yet'
    elif diverged:
      answer = f'{len(diverged)} of {len(done)} runs had a non-finite loss ({where})'
    else:
      answer = f'no run had a non-finite loss, of {len(done)} done'
    lines.append(f'Without warm-up ({entry["size"]}): {answer}.')
  return {'without_warmup': found}, lines


EXPERIMENT = Experiment(
  name='table4_warmup',
  title='ELAS by the length of its dense warm-up (ELAS, table 4)',
  rows=rows,
  paper_sizes=('60m', '130m'),
  metrics=report.METRICS + report.ACTIVATIONS,
  conclude=conclude,
  notes=(
    'Loss and gradient norm are checked at every step of every run; a run stops at the '
    'first that is not finite.',
    'Differences from the published code: bf16 or float32 throughout, where it casts '
    'relu(h)^2 to fp16, which overflows for h above 256; exactly two of four entries kept '
    'on ties; the exact gradient of what is pruned. Inference, not tested here: each is a '
    'plausible cause of a NaN there that is not seen here.',
  ),
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
