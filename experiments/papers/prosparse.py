"""ProSparse and other ways to sparse activations, from one ReLU start and from none.

  python -m experiments.run prosparse --scale=proxy --workers=2

Decoders with gated feed-forwards (reglu, swiglu) and the proxy's sizes:

  relu, silu    trained from scratch
  relu_on       relu trained on, at a lower rate: what the further tokens alone do
  prosparse     relu trained on with L1 of its activations, in ProSparse's stages
  l1            the same with a constant coefficient
  shifted_relu  relu trained on with max(x - 0.1, 0)
  relufied      silu with a ReLU in its place, trained on; and
  relufied_prosparse  with ProSparse's L1 in addition: its three steps
  relu_ungated, silu_ungated  from scratch, and beside them
  top_k         the F / 10 largest of each token, by relu
  block         BlockFFN's experts with its two objectives, by silu

After training FATReLU takes the place of ReLU at several thresholds, without training.
Reproduces: ProSparse (arXiv 2402.13516) for LLaMA2-7B: zeros 66.98 % of ReLU, 88.11 % of
ProSparse and 89.32 % with a threshold, at no loss of scores. Here it is asked for at least
80 % of zeros at most 1 % of perplexity above relu_on.
Hardware: proxy two CPU cores, estimated at 35 minutes, 36 runs.
"""

import dataclasses

from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Metric, Row, Table
from experiments.language import LANGUAGE, METRICS, scales
from experiments.looks import FATRELU, THRESHOLDS
from experiments.sparse import (
  COEFFICIENT,
  CONSTANT,
  RATE_ON,
  SHARE_ON,
  STAGED,
  ZEROS,
  gated,
  hidden,
  on,
  ungated,
)

MOST = 1.01  # of relu_on's perplexity, and
LEAST = 0.8  # of zeros, what is asked of ProSparse
CHUNKS: Metric = ('sparsity/cls', 'off for 8 tokens', 4)


def rows(at: At) -> list[Row]:
  relu, silu = gated('relu'), gated('silu')
  block = ungated(at, 'block', 'block', experts=24)
  objectives = {'train.objectives': 'activation_locality,chunk_sparsity'}
  if at.scale == 'smoke':  # whose rows are shorter than a chunk
    objectives |= {'train.objectives.chunk_sparsity.chunk': 16}
  return [
    relu,
    silu,
    on(at, 'relu_on', relu, 'relu', {}),
    on(at, 'prosparse', relu, 'relu', STAGED),
    on(at, 'l1', relu, 'relu', CONSTANT),
    on(at, 'shifted_relu', relu, 'shifted_relu', {}),
    on(at, 'relufied', silu, 'relu', {}),
    on(at, 'relufied_prosparse', silu, 'relu', STAGED),
    ungated(at, 'relu_ungated', 'mlp', activation='relu'),
    ungated(at, 'top_k', 'top_k', k=hidden(at) // 10),
    ungated(at, 'silu_ungated', 'mlp', activation='silu'),
    dataclasses.replace(block, fields=block.fields | objectives),
  ]


def conclude(entries: list[Entry]) -> list[str]:
  pairs = [(x, 'relu_on') for x in ('prosparse', 'l1', 'shifted_relu')]
  pairs += [('relufied_prosparse', 'relufied'), ('relufied', 'relu_on'), ('relu', 'silu')]
  pairs += [('top_k', 'relu_ungated'), ('block', 'silu_ungated')]
  by = {x.label: x for x in entries}
  return [*goal(by), *gap_lines(entries, pairs, [METRICS[0], ZEROS]), *with_thresholds(by)]


def goal(by: dict[str, Entry]) -> list[str]:
  """Whether ProSparse has the zeros that are asked for at the perplexity that is."""
  one, usual, (name, _, _) = by['prosparse'], by['relu_on'], METRICS[1]
  seeds = [seed for seed in one.values(name) if seed in usual.values(name)]
  if not seeds or ZEROS[0] not in one.mean:
    return []
  ratios = [one.values(name)[seed] / usual.values(name)[seed] for seed in seeds]
  zeros = [one.values(ZEROS[0])[seed] for seed in seeds]
  good = [r <= MOST and z >= LEAST for r, z in zip(ratios, zeros)]
  verdict = {True: 'reached', False: 'NOT reached'}[all(good)]
  return [
    f'At least {LEAST:.0%} zeros at most {MOST - 1:.0%} of perplexity above relu_on: '
    f'{verdict} by {sum(good)} of {len(good)} seeds; {min(zeros):.1%} to {max(zeros):.1%} '
    f'at {min(ratios) - 1:+.2%} to {max(ratios) - 1:+.2%}.'.replace('%', ' %')
  ]


def with_thresholds(by: dict[str, Entry]) -> list[str]:
  """What FATReLU does to zeros and perplexity, of each row that was looked at."""
  lines = []
  for label, entry in by.items():
    of = lambda name, x, entry=entry: entry.mean.get(f'{FATRELU.name}/{name}_{x:g}')
    found = [(x, of('zeros', x), of('perplexity', x)) for x in THRESHOLDS]
    if None in [x for one in found for x in one]:
      continue
    usual = entry.mean[METRICS[1][0]]
    text = '; '.join(
      f'{x:g}: {zeros:.1%} zeros, perplexity {perplexity / usual - 1:+.2%}'
      for x, zeros, perplexity in found
    )
    lines.append(f'{label} with FATReLU at {text}.'.replace('%', ' %'))
  return lines


TABLE = Table(
  title='Sparse activations: ProSparse, thresholds, top-k, experts',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=()),
  metrics=(*METRICS[:2], ZEROS, CHUNKS),
  conclude=conclude,
  notes=(
    f'Rows that go on have {SHARE_ON:g} of the steps, at {RATE_ON:g}, from the run of the '
    'same seed; their tokens are more than those of the rows from scratch.',
    'block has the routers beside the parameters of the others.',
    'Of so many differences about one in twenty has an interval without zero by chance.',
    f'The L1 is a mean over entries, times {COEFFICIENT:g} at its peak; its stages are '
    "those of ProSparse's 7B model, squeezed into the run, but for their lengths.",
    'zeros: exact ones among what enters the last map; off for 8 tokens: the share of '
    'neurons, of block of experts, that are off for 8 tokens together (CLS). Both in one '
    'validation batch, the mean over layers.',
    'Rates were not searched: 4e-3 from scratch, which is that of full in table 1, and '
    '1e-3 in what goes on.',
  ),
)
