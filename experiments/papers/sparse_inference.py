"""What decoding can pass over in trained models: zeros by token, and equal outputs.

  python -m experiments.run sparse_inference --scale=proxy --workers=2

Trained decoders whose activations are zero for many units: ungated squared ReLU, the same
pruned to 2:4, top-k, and relu and prosparse of the table prosparse. Of each, decoding of a
validation text with the rows of `down` whose activation is zero passed over
(ops/live_rows.py) is compared with decoding that reads all of them: the share of rows that
the smallest program that fits reads, by token and layer, whether the likeliest next tokens
are the same, and by how much logits differ. Tokens a second are those of
benchmarks/sparse_decoding.py, since models of this size are in the caches.
Reproduces: no table. PowerInfer decodes ProSparse's 7B model 4.44 times as fast as the
dense one (arXiv 2402.13516), with a predictor of zeros, which this has not.
Hardware: proxy two CPU cores, estimated at 10 minutes, 15 runs, of which prosparse has six.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.models.decoder import Decoder, apart, empty_cache
from elas_jax.ops.live_rows import sizes
from elas_jax.systems.sown import collections, gathered
from elas_jax.tables.entries import Entry
from elas_jax.tables.plan import At
from elas_jax.tables.table import Look, Metric, Row, Table
from experiments.language import LANGUAGE, METRICS, scales
from experiments.looks import opened
from experiments.sparse import STAGED, ZEROS, gated, hidden, on, ungated

TOKENS = 128  # of validation text, decoded one by one
FOUND: tuple[Metric, ...] = (
  ('decoding/rows', 'rows of down read', 3),
  ('decoding/least', 'rows that are not zero', 3),
  ('decoding/same', 'same next token', 4),
  ('decoding/change', 'largest change of a logit', 7),
)


def decoding(workdir: pathlib.Path) -> dict[str, float]:
  """Of a validation text: what is read of `down`, and how outputs change."""
  run = opened(workdir)
  model, variables = run.config.model, run.variables
  rows = run.prepared(('validation',)).validation.read(range(16))['tokens']
  tokens_1xL = jnp.asarray(rows[:, :-1].reshape(1, -1)[:, :TOKENS])
  own, cache = apart(model, variables, empty_cache(model, 1, tokens_1xL.shape[1]))

  def decode(skip_zeros: bool) -> np.ndarray:
    decoder = Decoder(model, by_layer=True, skip_zeros=skip_zeros)

    def one(state: Any, given: Any) -> Any:
      token, position = given
      logits, state = decoder.apply(own, token[None, None], state, position)
      return state, logits[0, 0]

    given = tokens_1xL[0], jnp.arange(tokens_1xL.shape[1])
    return np.asarray(jax.jit(lambda: jax.lax.scan(one, cache, given)[1])())

  whole, skipping = decode(False), decode(True)
  return live(model, variables, tokens_1xL) | {
    'same': float((whole.argmax(-1) == skipping.argmax(-1)).mean()),
    'change': float(np.abs(whole - skipping).max()),
  }


def live(model: Any, variables: Any, tokens_1xL: jax.Array) -> dict[str, float]:
  """Shares of F by token and layer, on average: not zero, and of the program that fits."""
  names = ('activation',)
  _, changed = Decoder(model).apply(variables, tokens_1xL, mutable=collections(names))
  F, counts = model.feed_forward_width, []
  for y in gathered(changed, names)['activation'].values():
    on_NxTxF = np.asarray(y) != 0
    # Of 2:4 they are sown before pruning, which leaves two of four.
    if hasattr(model.feed_forward, 'recipe'):
      on_of_four = on_NxTxF.reshape(*on_NxTxF.shape[:-1], F // 4, 4).sum(-1)
      counts.append(np.minimum(on_of_four, 2).sum(-1).ravel())
    else:
      counts.append(on_NxTxF.sum(-1).ravel())
  counts = np.concatenate(counts)
  steps = np.array([*sizes(F), F])
  read = steps[np.searchsorted(steps, counts)]
  return {'least': float(counts.mean() / F), 'rows': float(read.mean() / F)}


LOOK = Look('decoding', decoding)


def rows(at: At) -> list[Row]:
  relu = gated('relu')
  found = [
    ungated(at, 'relu2', 'mlp'),
    ungated(at, 'two_four', 'relu2_two_four'),
    ungated(at, 'top_k', 'top_k', k=hidden(at) // 10),
    relu,
    on(at, 'prosparse', relu, 'relu', STAGED),
  ]
  return [dataclasses.replace(row, look=LOOK) for row in found]


def conclude(entries: list[Entry]) -> list[str]:
  """What is read of each row, and whether what is said next stays."""
  known = [x for x in entries if {name for name, _, _ in FOUND} <= x.mean.keys()]
  return [
    f'{x.label}: {x.mean["decoding/least"]:.1%} of the rows are not zero and '
    f'{x.mean["decoding/rows"]:.1%} are read; {x.mean["decoding/same"]:.2%} of '
    'the likeliest next tokens are the same.'.replace('%', ' %')
    for x in known
  ]


TABLE = Table(
  title='What decoding can pass over: zeros of trained models',
  rows=rows,
  family=LANGUAGE,
  scales=scales(paper=()),
  metrics=(METRICS[0], ZEROS, *FOUND),
  conclude=conclude,
  notes=(
    f'{TOKENS} tokens of validation text, one sequence. Rows are shares of F, the '
    'mean over tokens and layers. There are programs for 1/32, 1/16, 1/8 and 1/4 of '
    'the rows; with more, all are read.',
    'Of two_four zeros are those before pruning, rows those after it.',
    'Tokens a second are measured by benchmarks.sparse_decoding, at 60m and 350m.',
  ),
)
