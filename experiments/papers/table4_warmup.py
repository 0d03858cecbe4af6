"""How long ELAS trains dense before it prunes: table 4 of ELAS.

  python -m experiments.run table4_warmup --scale=proxy --workers=2

Reproduces: dense steps 0, 500, 1000 and 2000 at 60m and 130m; at the proxy the shares of a
run that those are at 60m. The paper prints NaN for 0 steps at 60m, so the column
'non-finite loss' says for every run whether and where that happened; every step is
checked. Hardware and flags of the paper's scale: as table1_perplexity.
"""

from elas_jax.tables.entries import Entry
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import published
from experiments.language import ACTIVATIONS, LANGUAGE, METRICS, scales

SHARES = {'0': 0, '1/20': 20, '1/10': 10, '1/5': 5}  # one step in so many is dense


def rows(at: At) -> list[Row]:
  if at.scale == 'paper':
    labels = {str(steps): steps for steps in published.WARMUP}
  else:
    steps = at.config('elas').train.steps
    labels = {label: share and steps // share for label, share in SHARES.items()}
  field = 'model.feed_forward.dense_steps'
  return [
    Row(f'dense_{label}', 'elas', {field: dense}, values)
    for (label, dense), values in zip(labels.items(), published.WARMUP.values())
  ]


def conclude(entries: list[Entry]) -> list[str]:
  """Whether the paper's NaN without warm-up is seen here, size by size."""
  lines = []
  for entry in (x for x in entries if x.label == 'dense_0'):
    done, diverged = len(entry.runs) - len(entry.of('not run')), entry.of('diverged')
    where = ', '.join(f'seed {run.seed} at step {run.recorded.step}' for run in diverged)
    if not done:
      answer = 'not known, no run is done yet'
    elif diverged:
      answer = f'{len(diverged)} of {done} runs had a non-finite loss ({where})'
    else:
      answer = f'no run had a non-finite loss, of {done} done'
    lines.append(f'Without warm-up ({entry.size}): {answer}.')
  return lines


TABLE = Table(
  title='ELAS by the length of its dense warm-up (ELAS, table 4)',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=('60m', '130m')),
  metrics=METRICS + ACTIVATIONS,
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
