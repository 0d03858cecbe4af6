"""Forward passes of Kolmogorov-Arnold layers beside dense layers of equal FLOPs.

  python -m experiments.kan_layers [--smoke] [--repetitions=20] [--output=DIR]

Writes experiments/results/kan_layers/MACHINE.json and .md. Each row is one family, with the
grid and order of configs/rows.py, of (1024, 784) to 64 in float32:

  dense       a product (1024, K) to 64 with the FLOPs that the compiler counts for the
              family: of its products and of its arithmetic as it is carried out, tanh and
              the like not among them
  to dense    time of the family over that of its dense layer
  temporary   bytes beside arguments and results, by the compiler's memory analysis, for
              1024 rows and, for the slope, for 2048
  slope       what temporary bytes grow by a row, over one float32 basis of the row, of
              inputs x S: at 1 it is held once
  beside      float32 values of an input held beside its basis, (slope - 1) S

Hardware: any; a minute on two cores. Expected on a CPU: to dense below 10 and at most two
values beside the basis.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from configs import rows
from elas_jax.config.cli import run_command
from elas_jax.config.config import KanConfig, parse
from elas_jax.layers.kan import KANS
from elas_jax.layers.rational import GroupRationalDense
from experiments import microbenchmark

SHAPE, SMOKE = (1024, 784, 64), (64, 32, 16)
MOST = 10  # times a dense layer
BESIDE = 2.1  # values of an input, a normalised one for example, and a few of the row
# Functions of an input that a family has.
GR_KAN = 'gr_kan'
BASES = {
  GR_KAN: lambda c: 1,
  'bspline': lambda c: c.grid + c.order,
  'chebyshev': lambda c: c.order + 1,
  'polynomial': lambda c: c.order + 1,
  'fourier': lambda c: 2 * c.grid,
  'wavelet': lambda c: c.grid,
  'fast': lambda c: c.grid,
  'faster': lambda c: c.grid,
  'bsrbf': lambda c: c.grid + c.order,
  'relu': lambda c: c.grid + c.order,
  'af': lambda c: c.grid + c.order,
  'skan': lambda c: 1,
  # Of its pool the sum: the outputs of all are needed.
  'selectable': lambda c: sum(BASES[name](c) for name in c.pool.split(',')),
}


GROUPS = 8  # of gr_kan


def configs() -> dict[str, KanConfig | None]:
  """Of every family, as the networks on rows have it; gr_kan has none."""
  found = {GR_KAN: None}
  for name, fields in rows.LAYERS.items():
    if fields['layer'] in KANS:
      config = rows.base()
      rows.set_layer(config, name)
      found[fields['layer']] = parse(config).model.kan
  return found


def forward(family: str, config: KanConfig | None, shape: tuple[int, ...]) -> tuple:
  """(function, (variables, x)) of a family."""
  B, I, O = shape
  layer = KANS[family](O, config) if config else GroupRationalDense(O, GROUPS)
  keys = jax.random.split(jax.random.key(0))
  x_BxI = jax.random.normal(keys[0], (B, I))
  return layer.apply, (jax.jit(layer.init)(keys[1], x_BxI), x_BxI)


def dense(flops: float, B: int, O: int) -> tuple:
  K = max(1, round(flops / (2 * B * O)))
  keys = jax.random.split(jax.random.key(0))
  return jnp.matmul, (
    jax.random.normal(keys[0], (B, K)),
    jax.random.normal(keys[1], (K, O)),
  )


def cases(smoke: bool, repetitions: int) -> Iterator[dict[str, Any]]:
  B, I, O = shape = SMOKE if smoke else SHAPE
  for family, config in configs().items():
    compiled = lambda function, inputs: microbenchmark.compiled(function, *inputs)
    function, inputs = forward(family, config, shape)
    program = compiled(function, inputs)
    flops = program.cost_analysis()['flops']
    plain, plain_inputs = dense(flops, B, O)
    peer = compiled(plain, plain_inputs)
    seconds = microbenchmark.seconds_in_turns(
      {'kan': (program, inputs), 'dense': (peer, plain_inputs)}, repetitions
    )
    twice: Callable = compiled(*forward(family, config, (2 * B, I, O)))
    temporary = [microbenchmark.temporary_bytes(p) for p in (program, twice)]
    basis = 4 * I * BASES[family](config)
    yield {
      'name': family,
      'shape': shape,
      'basis': BASES[family](config),
      'flops': flops,
      'dense_inputs': plain_inputs[0].shape[1],
      'seconds': seconds,
      'temporary_bytes': temporary,
      'slope': (temporary[1] - temporary[0]) / (B * basis),
    }


def table(found: list[dict[str, Any]]) -> list[str]:
  lines = [
    'The dense layer has equal FLOPs. Slope: growth of temporary bytes by a row, in '
    'float32 bases of that row. Beside: values of an input held beside its basis.',
    '',
    '| family | S | MFLOP | ms | dense layer, ms | to dense | temporary MB | slope | '
    'beside |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for case in found:
    kan, peer = (case['seconds'][name] for name in ('kan', 'dense'))
    lines.append(
      f'| {case["name"]} | {case["basis"]} | {case["flops"] / 1e6:.0f} | '
      f'{microbenchmark.milliseconds(kan)} | {microbenchmark.milliseconds(peer)} | '
      f'{ratio(case):.1f} | {case["temporary_bytes"][0] / 1e6:.1f} | '
      f'{case["slope"]:.2f} | {beside(case):.1f} |'
    )
  slow = [c['name'] for c in found if ratio(c) > MOST]
  large = [c['name'] for c in found if beside(c) > BESIDE]
  return [
    *lines,
    '',
    f'Above {MOST} times the time of the dense layer: {", ".join(slow) or "none"}. More '
    f'than two values of an input beside its basis: {", ".join(large) or "none"}.',
  ]


def ratio(case: dict[str, Any]) -> float:
  """Time over that of the dense layer."""
  return case['seconds']['kan']['median'] / case['seconds']['dense']['median']


def beside(case: dict[str, Any]) -> float:
  return (case['slope'] - 1) * case['basis']


def main(arguments: list[str] | None = None) -> None:
  title = 'Forward passes of Kolmogorov-Arnold layers'
  microbenchmark.run('kan_layers', title, cases, table, arguments)


if __name__ == '__main__':
  run_command(main)
