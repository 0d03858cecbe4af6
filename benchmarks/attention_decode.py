"""Decoding with a cache: latent attention absorbed and re-expanded, beside its peers.

  python -m benchmarks.attention_decode [--smoke] [--repetitions=20] [--output=DIR]

Writes benchmarks/results/attention_decode/MACHINE.json and .md. Each row is the attention
of one layer with PLM's sizes (arXiv 2503.12167), D 2048, 16 heads, and random weights. It
decodes 16 tokens one after the other behind 4080 cached ones, in bfloat16 on a GPU and in
float32 elsewhere:

  mla           as it decodes: the maps from the latents are in query and output
  mla, formed   the same outputs by keys and values of all heads, formed of the whole cache
  mha, gqa, sqa the peers; of gqa and sqa 4 heads of keys and values, of sqa 8 of queries
  a token       time, median and range
  to mha        that over mha's in the same run
  cache         bytes of the state's arrays
  temporary     bytes beside arguments and results, by the compiler's memory analysis; a
                copy of the cache is among them, since a program leaves its arguments

Hardware: any with 8 GiB; some minutes on two cores. Expected: mla far below the same with
keys formed, and with a seventh of the cache of mha.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import microbenchmark
from elas_jax.common.memory import tree_bytes
from elas_jax.config.cli import run_command
from elas_jax.config.config import ModelConfig
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.mixers.mla import MLA

WIDTH, LENGTH, TOKENS, BATCHES = 2048, 4096, 16, (1, 8)
SMOKE_WIDTH, SMOKE_LENGTH, SMOKE_BATCHES = 64, 32, (2,)


@dataclasses.dataclass(frozen=True)
class Formed(MLA):
  """Latent attention that forms the keys and values of its cache for every query."""

  def absorbs(self, parts: Parts, queries: int) -> bool:
    return False


def kinds(smoke: bool) -> dict[str, Any]:
  sizes = {'kv_rank': 16, 'nope_size': 4, 'rope_size': 2, 'value_size': 4} if smoke else {}
  return {
    'mla': MLA(**sizes),
    'mla, formed': Formed(**sizes),
    'mha': MIXERS['mha'](heads=16),
    'gqa': MIXERS['gqa'](heads=16, kv_heads=4),
    'sqa': MIXERS['sqa'](heads=16, query_heads=8, kv_heads=4),
  }


def parts(smoke: bool) -> Parts:
  return ModelConfig(
    width=SMOKE_WIDTH if smoke else WIDTH,
    linear=LINEARS['dense'](),
    compute_dtype='bfloat16' if jax.default_backend() == 'gpu' else 'float32',
  ).parts


def decoding(kind: Any, parts: Parts, batch: int, length: int) -> tuple:
  """(function, (variables, x (TOKENS, B, 1, D), state)); its last token fills the cache."""
  module = kind.make(parts, name=None)
  angles = lambda at: parts.position.angles(at[None], kind.head_size(parts))

  def decode(variables, x_TxBx1xD, state):
    def one(state, given):
      x_Bx1xD, at = given
      y_Bx1xD, state = module.apply(variables, x_Bx1xD, angles(at), state, at)
      return state, y_Bx1xD

    positions = length - TOKENS + jnp.arange(TOKENS)
    return jax.lax.scan(one, state, (x_TxBx1xD, positions))[1]

  keys = iter(jax.random.split(jax.random.key(0), 4))
  draw = lambda shape: jax.random.normal(next(keys), shape, parts.compute_dtype)
  x_TxBx1xD = draw((TOKENS, batch, 1, parts.width))
  init = jax.jit(functools.partial(module.init, state=None, start=0))
  variables = init(next(keys), x_TxBx1xD[0], angles=angles(jnp.array(0)))
  empty = jax.eval_shape(lambda: kind.empty_state(parts, batch, length))
  state = {name: draw(like.shape) for name, like in empty.items()}
  return decode, (variables, x_TxBx1xD, state)


def cases(smoke: bool, repetitions: int) -> Iterator[dict[str, Any]]:
  length = SMOKE_LENGTH if smoke else LENGTH
  for batch in SMOKE_BATCHES if smoke else BATCHES:
    programs = {}
    for name, kind in kinds(smoke).items():
      function, inputs = decoding(kind, parts(smoke), batch, length)
      programs[name] = microbenchmark.compiled(function, *inputs), inputs
    yield {
      'name': f'batch {batch}',
      'length': length,
      'tokens': TOKENS,
      'dtype': parts(smoke).compute_dtype,
      'seconds': microbenchmark.seconds_in_turns(programs, repetitions),
      'cache_bytes': {name: tree_bytes(x[2]) for name, (_, x) in programs.items()},
      'temporary_bytes': {
        name: microbenchmark.temporary_bytes(program)
        for name, (program, _) in programs.items()
      },
    }


def table(found: list[dict[str, Any]]) -> list[str]:
  first = found[0]
  lines = [
    f'{first["tokens"]} tokens, one after the other, up to position {first["length"]}, in '
    f'{first["dtype"]}.',
    '',
    '| rows | attention | a token, ms | to mha | cache, MiB | to mha | temporary, MiB |',
    '| --- | --- | --: | --: | --: | --: | --: |',
  ]
  for case in found:
    for name, seconds in case['seconds'].items():
      each = {x: seconds[x] / case['tokens'] for x in ('median', 'min', 'max')}
      cache, temporary = (case[f'{x}_bytes'][name] for x in ('cache', 'temporary'))
      lines.append(
        f'| {case["name"]} | {name} | {microbenchmark.milliseconds(each)} | '
        f'{seconds["median"] / case["seconds"]["mha"]["median"]:.2f} | '
        f'{cache / 2**20:.3g} | {cache / case["cache_bytes"]["mha"]:.3f} | '
        f'{temporary / 2**20:.3g} |'
      )
  return lines


def main(arguments: list[str] | None = None) -> None:
  title = 'Decoding with a cache of one attention layer'
  microbenchmark.run('attention_decode', title, cases, table, arguments)


if __name__ == '__main__':
  run_command(main)
