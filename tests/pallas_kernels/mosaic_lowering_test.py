"""Every kernel, in all operand layouts, lowers for a GPU on a machine without one."""

import jax
import pytest

from pallas_kernels import aot
from pallas_kernels.two_four import cases
from pallas_kernels.two_four.dispatch import H200, building_for

SMALL = [
  aot.Program(case.name, case.function('mosaic'), case.abstract_inputs, ((0, 0),))
  for case in cases.small()
  if case.op != 'feed_forward' or case.shape['N'] <= 256
]


@pytest.mark.parametrize('program', [*aot.programs(), *SMALL], ids=lambda p: p.name)
def test_lowers(program):
  with building_for(H200):
    traced = jax.jit(program.function).trace(*program.operands())
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('mosaic_gpu_v2') == len(program.products)


# Without the product of the forward pass, which nobody asks for; where both weights have
# gradients of one shape, their kernel is there once.
@pytest.mark.parametrize(
  ('N', 'kernels'), [(40, 4), (300, 5)], ids=['fused', 'two_kernels']
)
def test_the_gradient_lowers(N, kernels):
  [case] = [c for c in cases.small() if c.op == 'feed_forward' and c.shape['N'] == N]
  function, operands = case.function('mosaic'), case.abstract_inputs()
  backward = lambda g, *operands: jax.vjp(function, *operands)[1](g)
  with building_for(H200):
    out = jax.eval_shape(function, *operands)
    lowered = jax.jit(backward).trace(out, *operands).lower(lowering_platforms=('cuda',))
  assert lowered.as_text().count('mosaic_gpu_v2') == kernels
