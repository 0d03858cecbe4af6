"""Decoding that passes over zeros beside dense decoding: tokens a second of one sequence.

  python -m benchmarks.sparse_decoding [--smoke] [--repetitions=20] [--output=DIR]

Writes benchmarks/results/sparse_decoding/MACHINE.json and .md. Models of the sizes 60m and
350m of configs/c4.py (F by `squared_relu_width`), with the bytes' vocabulary of 257 and
with one of 32000, of which a token reads the whole head; float32, random weights, dense
linear maps, and a share of zeros that is planted: one feature of the residual stream is the
same for every token, and `up` subtracts a multiple of it. Three programs decode the same
tokens greedily behind a prompt, in turns:

  stacked   the layers in one loop, as `generate` does by default
  by layer  the same with arrays of each layer's own, the best dense peer
  skipping  by layer, and `down` by the rows that are not zero (ops/live_rows.py)

A token that they do not agree on is an error. Feed-forwards: squared ReLU, the same pruned
to 2:4 (half of the entries at least are zero), and, where nothing is zero but half, what
counting costs.

Hardware: a CPU. What is asked for at 90 % zeros is 1.3 times the tokens a second of the
faster dense program; no result is recorded yet.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import microbenchmark
from configs import c4
from elas_jax.config.cli import run_command
from elas_jax.config.config import ModelConfig
from elas_jax.models.decoder import Decoder, apart, empty_cache
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import name_of
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.sown import collections, gathered

SIZES, SMOKE = ('60m', '350m'), ('tiny',)
VOCABULARIES = (257, 32_000)
ZEROS = (0.5, 0.8, 0.9, 0.95)
PROMPT, TOKENS = 16, 16
SEED = 0


def model_of(size: str, vocab_size: int, feed_forward: Any) -> ModelConfig:
  D, swiglu_width, N, H, *_ = c4.SIZES[size]
  return ModelConfig(
    vocab_size=vocab_size,
    width=D,
    layers=N,
    feed_forward_width=c4.squared_relu_width(swiglu_width),
    linear=LINEARS['dense'](),
    feed_forward=feed_forward,
    attention=MIXERS['mha'](heads=H),
  )


def planted(model: ModelConfig, zeros: float) -> Any:
  """Variables of which this share of the feed-forwards' activations is zero, to 0.5 %."""
  tokens = jnp.zeros((1, 4), jnp.int32)
  variables = jax.jit(Decoder(model).init)(jax.random.key(SEED), tokens)
  params = jax.tree.map(np.array, variables['params'])
  layers = params['layers']
  # The first feature is the same for every token and no layer writes to it; as the norms
  # scale it, so it comes to `up`.
  params['embedding'][:, 0] = 1
  params['embedding'][:, 1:] *= 50  # about 1 each, beside it
  layers['attention']['output']['kernel'][..., 0] = 0
  layers['feed_forward']['down']['kernel'][..., 0] = 0
  kernel = layers['feed_forward']['up']['kernel']
  random = np.random.default_rng(SEED + 1)
  rows = jnp.asarray(random.integers(0, model.vocab_size, (1, 64)))
  low, high = 0.0, 10.0  # what `up` subtracts
  while True:
    kernel[:, 0, :] = -(low + high) / 2
    found = jax.tree.map(jnp.asarray, variables | {'params': params})
    share = float(share_of_zeros(model, found, rows))
    if abs(share - zeros) < 0.005:
      return found
    low, high = ((low + high) / 2, high) if share < zeros else (low, (low + high) / 2)


@functools.partial(jax.jit, static_argnums=0)
def share_of_zeros(model: ModelConfig, variables: Any, tokens_BxL: jax.Array) -> jax.Array:
  names = ('activation',)
  decoder, mutable = Decoder(model), collections(names)
  _, changed = decoder.apply(variables, tokens_BxL, mutable=mutable)
  (y,) = gathered(changed, names)['activation'].values()
  return (y == 0).mean()


def programs(model: ModelConfig, variables: Any) -> dict[str, tuple]:
  """Name -> (compiled program, inputs), each to TOKENS tokens behind the prompt."""
  random = np.random.default_rng(SEED)
  tokens_1xL = jnp.asarray(random.integers(0, model.vocab_size, (1, PROMPT)))
  read = jax.jit(functools.partial(Decoder(model).apply))
  logits, cache = read(variables, tokens_1xL, empty_cache(model, 1, PROMPT + TOKENS), 0)
  first_1 = logits[:, -1].argmax(-1)
  own, own_cache = jax.jit(apart, static_argnums=0)(model, variables, cache)
  of = {
    'stacked': (Decoder(model), variables, cache),
    'by layer': (Decoder(model, by_layer=True), own, own_cache),
    'skipping': (Decoder(model, by_layer=True, skip_zeros=True), own, own_cache),
  }
  found = {}
  for name, (decoder, *inputs) in of.items():
    inputs = (*inputs, first_1)
    found[name] = (
      microbenchmark.compiled(functools.partial(decode, decoder), *inputs),
      inputs,
    )
  return found


def decode(decoder: Decoder, variables: Any, cache: Any, first_1: jax.Array) -> jax.Array:
  """The most likely tokens, (TOKENS,)."""

  def one(carry, position):
    token_1, cache = carry
    logits_1x1xV, cache = decoder.apply(variables, token_1[:, None], cache, position)
    token_1 = logits_1x1xV[:, 0].argmax(-1)
    return (token_1, cache), token_1[0]

  positions = PROMPT + jnp.arange(TOKENS)
  return jax.lax.scan(one, (first_1, cache), positions)[1]


def cases(smoke: bool, repetitions: int) -> Iterator[dict[str, Any]]:
  feed_forwards = FEED_FORWARDS['mlp'](), FEED_FORWARDS['relu2_two_four'](dense_steps=0)
  of = SMOKE if smoke else SIZES, VOCABULARIES[: 1 if smoke else None], feed_forwards, ZEROS
  for size, vocab_size, feed_forward, zeros in itertools.product(*of):
    model, kind = (
      model_of(size, vocab_size, feed_forward),
      name_of(FEED_FORWARDS, feed_forward),
    )
    name = f'{size}, V {vocab_size}, {kind}, {zeros:.0%}'
    found = {'name': name, 'size': size, 'vocab_size': vocab_size, 'feed_forward': kind}
    yield found | {'zeros': zeros} | measured(name, model, zeros, repetitions)


def measured(
  name: str, model: ModelConfig, zeros: float, repetitions: int
) -> dict[str, Any]:
  variables = planted(model, zeros)
  of = programs(model, variables)
  tokens = {name: np.asarray(program(*inputs)) for name, (program, inputs) in of.items()}
  for other in tokens.values():
    if not np.array_equal(other, tokens['stacked']):
      raise RuntimeError(f'{name}: the programs do not decode the same tokens: {tokens}')
  return {
    'parameters': sum(x.size for x in jax.tree.leaves(variables['params'])),
    'tokens': TOKENS,
    'seconds': microbenchmark.seconds_in_turns(of, repetitions),
  }


def rate(case: dict[str, Any], name: str) -> str:
  """'123 [110, 130]': tokens a second, median and range."""
  seconds = case['seconds'][name]
  return '{:.0f} [{:.0f}, {:.0f}]'.format(
    *(case['tokens'] / seconds[x] for x in ('median', 'max', 'min'))
  )


def gain(case: dict[str, Any]) -> float:
  """Over the faster of the dense programs."""
  median = lambda name: case['seconds'][name]['median']
  return min(median('stacked'), median('by layer')) / median('skipping')


def table(found: list[dict[str, Any]]) -> list[str]:
  lines = [
    f'Tokens a second of one sequence, {TOKENS} greedy tokens behind {PROMPT}; all three '
    'decode the same tokens. Zeros: measured, of the activations before any pruning. Gain: '
    'skipping over the faster of the two dense programs.',
    '',
    '| size | V | M weights | layer | zeros | stacked | by layer | skipping | gain |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for one in found:
    rates = ' | '.join(rate(one, name) for name in ('stacked', 'by layer', 'skipping'))
    lines.append(
      f'| {one["size"]} | {one["vocab_size"]} | {one["parameters"] / 1e6:.0f} | '
      f'{one["feed_forward"]} | {one["zeros"]:.0%} | {rates} | {gain(one):.2f} |'
    )
  return lines


def main(arguments: list[str] | None = None) -> None:
  title = 'Decoding that passes over zeros'
  microbenchmark.run('sparse_decoding', title, cases, table, arguments)


if __name__ == '__main__':
  run_command(main)
