"""Every kernel, in all operand layouts, lowers for a GPU on a machine without one."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.mosaic.gpu.launch_context import DropUnitDimsTransform
from jax.extend.core import jaxprs_in_params
from jax.interpreters import mlir
from jaxlib.mlir import ir

from pallas_kernels.aot_programs import Program, programs
from pallas_kernels.two_four import cases, feed_forward
from pallas_kernels.two_four.dispatch import H200, building_for
from pallas_kernels.two_four.mosaic_gpu import dense
from pallas_kernels.two_four.mosaic_gpu import feed_forward as feed_forward_kernel
from pallas_kernels.two_four.mosaic_gpu.instructions import row_width, whole_rows
from tests.conftest import thinned

SMALL = [
  Program(case.name, case.function('mosaic'), case.abstract_inputs, ((0, 0),))
  for case in cases.small()
  if case.op != 'feed_forward' or case.shape['N'] <= 256
]


LARGE = programs()
# Every second, of one size and of sizes of no whole tiles: half of the layouts.
QUICK = [*LARGE[:12:2], *SMALL[-7::2]]


@pytest.mark.parametrize(
  'program', thinned([*LARGE, *SMALL], *QUICK), ids=lambda program: program.name
)
def test_lowers(program):
  with building_for(H200):
    traced = jax.jit(program.function).trace(*program.operands())
    text = traced.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('mosaic_gpu_v2') == len(program.products)


# Without the product of the forward pass, which nobody asks for; where both weights have
# gradients of one shape, their kernel is there once.
@pytest.mark.parametrize(
  ('N', 'kernels'), thinned([(40, 4), (300, 5)], (40, 4)), ids=['fused', 'two_kernels']
)
def test_the_gradient_lowers(N, kernels):
  [case] = [c for c in cases.small() if c.op == 'feed_forward' and c.shape['N'] == N]
  function, operands = case.function('mosaic'), case.abstract_inputs()
  backward = lambda g, *operands: jax.vjp(function, *operands)[1](g)
  with building_for(H200):
    out = jax.eval_shape(function, *operands)
    lowered = jax.jit(backward).trace(out, *operands).lower(lowering_platforms=('cuda',))
  assert lowered.as_text().count('mosaic_gpu_v2') == kernels


def primitives(jaxpr):
  """(name, shapes of operands) of a program and all within it, kernels left out."""
  for equation in jaxpr.eqns:
    shapes = [x.aval.shape for x in equation.invars if hasattr(x.aval, 'shape')]
    yield equation.primitive.name, shapes
    if equation.primitive.name != 'mpmd_map':
      for inner in jaxprs_in_params(equation.params):
        yield from primitives(inner)


@pytest.mark.parametrize('N', [40, 300], ids=['fused', 'two_kernels'])
def test_nothing_wide_is_copied_to_pad_or_cut_it(N):
  """F of no whole tile, T of whole ones: features are padded in the weights alone."""
  T, R, F = 256, 40, 1156
  shapes = [(T, N), (T, R), (R, F), (F, N)]
  g, *operands = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)
  function = lambda *x: feed_forward(*x, 'exact', 'mosaic')
  both = lambda g, *operands: jax.vjp(function, *operands)[1](g)
  with building_for(H200):
    program = jax.make_jaxpr(both)(g, *operands)
  moved = [
    (name, shape)
    for name, shapes in primitives(program.jaxpr)
    if name in ('pad', 'slice', 'dynamic_slice', 'concatenate', 'gather')
    for shape in shapes
    if len(shape) == 2 and shape[0] >= T // 2 and shape[1] >= F // 2
  ]
  assert not moved


def memref(shape, strides):
  layout = ir.StridedLayoutAttr.get(ir.ShapedType.get_dynamic_stride_or_offset(), strides)
  return ir.MemRefType.get(shape, ir.BF16Type.get(), layout)


def test_the_rows_of_a_reference_to_part_of_the_columns():
  whole, part = (8, 2, 8, 64), (8, 1, 8, 64)
  strides = [1024, 512, 64, 1]
  with mlir.make_ir_context(), ir.Location.unknown():
    whole, part = (SimpleNamespace(type=memref(s, strides)) for s in (whole, part))
    assert row_width(whole) == row_width(part) == 128
    whole_rows(whole)
    with pytest.raises(ValueError, match='must be whole rows'):
      whole_rows(part)


def abstract(*shapes):
  return [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]


FEW_TOKENS = {
  'up_compress': (dense.up_compress, abstract((64, 1024), (1024, 512))),
  'feed_forward that keeps z': (
    functools.partial(feed_forward_kernel.feed_forward, keep=True),
    abstract((64, 128), (128, 512), (512, 128)),
  ),
}


@pytest.mark.parametrize('name', FEW_TOKENS)
def test_no_warpgroup_without_tokens_writes_over_those_with(name, monkeypatch):
  """A copy drops the index of an axis of one: beyond it is then the same as within it."""
  dropped, drop = [], DropUnitDimsTransform.transform_index

  def transform_index(self, index):
    dropped.extend(index[axis] for axis in self.unit_dims)
    return drop(self, index)

  monkeypatch.setattr(DropUnitDimsTransform, 'transform_index', transform_index)
  function, operands = FEW_TOKENS[name]
  with building_for(H200):
    jax.jit(function).trace(*operands).lower(lowering_platforms=('cuda',))
  assert not dropped


FEWEST_TOKENS = (
  cases.Case('matmul', {'M': 8, 'K': 256, 'N': 128}, {'axis': 1}),
  cases.Case('up_compress', {'T': 4, 'K': 128, 'F': 256}),
  cases.Case('gated_backward', {'T': 4, 'N': 1024, 'F': 256}),
  cases.Case('feed_forward', {'T': 1, 'R': 128, 'F': 256, 'N': 128}),
)


@pytest.mark.parametrize('case', FEWEST_TOKENS, ids=lambda case: case.op)
def test_eight_tokens_or_fewer_are_two_blocks_of_eight(case):
  """Else the rows of the second warpgroup would be those of the only block, as above."""
  with building_for(H200):
    program = jax.make_jaxpr(case.function('mosaic'))(*case.abstract_inputs())
  rows = [
    shapes
    for name, shapes in primitives(program.jaxpr)
    if name == 'mpmd_map'
    for shapes in shapes
    if len(shapes) == 2
  ]
  assert rows and min(shape[0] for shape in rows) >= 16
