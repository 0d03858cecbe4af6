"""Decoding with a cache: latent attention absorbed and re-expanded, beside its peers.

  python -m benchmarks.attention_decode [--smoke] [--repetitions=20] [--output=DIR]

Writes benchmarks/results/attention_decode/MACHINE.json and .md. Each row is the attention
of one layer with PLM's sizes (arXiv 2503.12167), D 2048, 16 heads, and random weights. It
decodes one token of each row behind 4095 cached ones, in bfloat16 on a GPU and in float32
elsewhere; the cache is written in place:

  mla           as it decodes: the maps from the latents are in query and output
  mla, formed   the same outputs by keys and values of all heads, formed of the whole cache
  mha, gqa, sqa the peers; of gqa and sqa 4 heads of keys and values, of sqa 8 of queries
  a step        time, median and range
  to mha        that over mha's in the same run
  cache         bytes of the state's arrays
  temporary     bytes beside arguments and results, by the compiler's memory analysis

Hardware: any with 8 GiB; no result is recorded yet. Of shapes, mla has a seventh of
the cache of mha.
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

WIDTH, LENGTH, BATCHES = 2048, 4096, (1, 8)
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


class Decoding:
  """A compiled step: the last of `length` tokens of each row, state in place."""

  def __init__(self, kind: Any, parts: Parts, batch: int, length: int):
    module = kind.make(parts, name=None)
    angles = lambda at: parts.position.angles(at[None], kind.head_size(parts))

    def step(variables, x_Bx1xD, state, at):
      return module.apply(variables, x_Bx1xD, angles(at), state, at)

    keys = iter(jax.random.split(jax.random.key(0), 4))
    draw = lambda shape: jax.random.normal(next(keys), shape, parts.compute_dtype)
    x_Bx1xD, at = draw((batch, 1, parts.width)), jnp.int32(length - 1)
    init = jax.jit(functools.partial(module.init, state=None, start=0))
    variables = init(next(keys), x_Bx1xD, angles=angles(at))
    empty = jax.eval_shape(lambda: kind.empty_state(parts, batch, length))
    self.state = {name: draw(like.shape) for name, like in empty.items()}
    given = variables, x_Bx1xD, self.state, at
    self.program = jax.jit(step, donate_argnums=2).lower(*given).compile()
    self._variables, self._x_Bx1xD, self._at = variables, x_Bx1xD, at

  def __call__(self) -> jax.Array:
    """(B, 1, D)."""
    given = self._variables, self._x_Bx1xD, self.state, self._at
    y_Bx1xD, self.state = self.program(*given)
    return y_Bx1xD


def cases(smoke: bool, repetitions: int) -> Iterator[dict[str, Any]]:
  length = SMOKE_LENGTH if smoke else LENGTH
  for batch in SMOKE_BATCHES if smoke else BATCHES:
    steps = {
      name: Decoding(kind, parts(smoke), batch, length)
      for name, kind in kinds(smoke).items()
    }
    turns = {name: (step, ()) for name, step in steps.items()}
    yield {
      'name': f'batch {batch}',
      'length': length,
      'dtype': parts(smoke).compute_dtype,
      'seconds': microbenchmark.seconds_in_turns(turns, repetitions),
      'cache_bytes': {name: tree_bytes(step.state) for name, step in steps.items()},
      'temporary_bytes': {
        name: microbenchmark.temporary_bytes(step.program) for name, step in steps.items()
      },
    }


def table(found: list[dict[str, Any]]) -> list[str]:
  lines = [
    f'A token of each row behind {found[0]["length"] - 1} cached ones, in '
    f'{found[0]["dtype"]}.',
    '',
    '| rows | attention | a step, ms | to mha | cache, MiB | to mha | temporary, MiB |',
    '| --- | --- | --: | --: | --: | --: | --: |',
  ]
  for case in found:
    for name, seconds in case['seconds'].items():
      cache, temporary = (case[f'{x}_bytes'][name] for x in ('cache', 'temporary'))
      lines.append(
        f'| {case["name"]} | {name} | {microbenchmark.milliseconds(seconds)} | '
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
