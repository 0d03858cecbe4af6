"""Forward passes of Kolmogorov-Arnold layers beside dense layers of equal FLOPs.

  python -m benchmarks.kan_layers [--smoke] [--repetitions=20] [--output=DIR]

Writes benchmarks/results/kan_layers/MACHINE.json and .md. Each row is one family, with the
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

from benchmarks import microbenchmark
from configs import rows
from elas_jax.config.cli import run_command
from elas_jax.config.config import NetworkConfig
from elas_jax.config.parsing import parse
from elas_jax.systems.kinds import about, name_of
from elas_jax.systems.linears import LINEARS

SHAPE, SMOKE = (1024, 784, 64), (64, 32, 16)
MOST = 10  # times a dense layer
BESIDE = 2.1  # values of an input, a normalised one for example, and a few of the row
GR_KAN = 'gr_kan'  # the only one of configs/rows.py:LAYERS without a basis


def models() -> dict[str, NetworkConfig]:
  """Of every family, as the classifiers and regressors have it."""
  found = {GR_KAN: _model(GR_KAN)}
  for name in rows.LAYERS:
    linear = (model := _model(name)).linear
    if about(linear, 'bases'):
      found[name_of(LINEARS, linear).removeprefix('kan_')] = model
  return found


def _model(layer: str) -> NetworkConfig:
  config = rows.base()
  rows.set_layer(config, layer)
  return parse(config).model


def bases(linear: Any) -> int:
  """Functions of an input; of a pool the sum, since the outputs of all are needed."""
  members = about(linear, 'members', default={}).values()
  return sum(map(bases, members)) or about(linear, 'bases', default=1)


def forward(model: NetworkConfig, shape: tuple[int, ...]) -> tuple:
  """(function, (variables, x)) of a family."""
  B, I, O = shape
  layer = model.linear.make(O, model.parts, name=None)
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
  for family, model in models().items():
    compiled = lambda function, inputs: microbenchmark.compiled(function, *inputs)
    function, inputs = forward(model, shape)
    program = compiled(function, inputs)
    flops = program.cost_analysis()['flops']
    plain, plain_inputs = dense(flops, B, O)
    peer = compiled(plain, plain_inputs)
    seconds = microbenchmark.seconds_in_turns(
      {'kan': (program, inputs), 'dense': (peer, plain_inputs)}, repetitions
    )
    twice: Callable = compiled(*forward(model, (2 * B, I, O)))
    temporary = [microbenchmark.temporary_bytes(p) for p in (program, twice)]
    basis = 4 * I * bases(model.linear)
    yield {
      'name': family,
      'shape': shape,
      'basis': bases(model.linear),
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
