"""Which implementation an operation runs on, and what it says where it cannot."""

import json
import types

import jax
import jax.numpy as jnp
import pytest

from pallas_kernels.two_four import (
  TwoFour,
  cases,
  compress,
  dispatch,
  expand,
  feed_forward,
  gated_backward,
  matmul,
  mosaic,
  up_compress,
  weight_gradient,
)
from pallas_kernels.two_four.dispatch import H200
from pallas_kernels.two_four.mosaic_gpu import dense
from pallas_kernels.two_four.mosaic_gpu import matmul as sparse
from pallas_kernels.two_four.packed import metadata_shape

# The first of each operation.
CASES = list({case.op: case for case in reversed(cases.small())}.values())
B200 = types.SimpleNamespace(
  platform='gpu', device_kind='NVIDIA B200', compute_capability='10.0'
)
each_operation = pytest.mark.parametrize('case', CASES, ids=lambda case: case.op)


@pytest.fixture
def device(monkeypatch, tmp_path):
  """Sets the device that dispatch sees, and the tuned configs for it if there are any."""
  monkeypatch.setattr(dispatch, 'TUNED', tmp_path)

  def use(device, configs=None):
    monkeypatch.setattr(dispatch, '_device', lambda: device)
    if configs is not None:
      dispatch.tuned_file(device).write_text(json.dumps({'configs': configs}))

  use(jax.devices('cpu')[0])
  return use


def primitives(jaxpr) -> set[str]:
  """The names of all of them, inner ones included."""
  names = set()
  for equation in jaxpr.eqns:
    names.add(equation.primitive.name)
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, 'eqns')):
      inner = getattr(inner, 'jaxpr', inner)
      names |= primitives(inner) if hasattr(inner, 'eqns') else set()
  return names


def runs_kernels(case, implementation, inputs=None) -> bool:
  inputs = inputs or case.abstract_inputs()
  jaxpr = jax.make_jaxpr(case.function(implementation))(*inputs).jaxpr
  return 'copy_gmem_to_smem' in primitives(jaxpr)


@each_operation
def test_none_takes_xla_on_a_cpu(case, device):
  assert not runs_kernels(case, None)
  assert not runs_kernels(case, 'xla')


def in_float32(inputs):
  wider = lambda x: x.update(dtype=jnp.float32) if x.dtype == jnp.bfloat16 else x
  return jax.tree.map(wider, inputs)


@each_operation
def test_none_takes_the_kernels_where_they_were_checked(case, device):
  device(H200)
  assert not runs_kernels(case, None)
  assert runs_kernels(case, 'mosaic')
  device(H200, configs={})
  assert runs_kernels(case, None)
  assert not runs_kernels(case, 'xla')
  assert not runs_kernels(case, None, in_float32(case.abstract_inputs()))
  device(B200, configs={})
  assert not runs_kernels(case, None)


def test_none_takes_xla_for_what_has_no_kernel(device):
  device(H200, configs={})
  y, key = jax.ShapeDtypeStruct((64, 128), jnp.bfloat16), jax.random.key(0)
  function = lambda y, key: expand(compress(y, rule='mvue', key=key))
  assert 'copy_gmem_to_smem' not in primitives(jax.make_jaxpr(function)(y, key).jaxpr)


def test_whether_kernels_are_taken_can_be_asked(device):
  takes = lambda which, dtype='bfloat16': dispatch.takes_kernels(
    jax.ShapeDtypeStruct((), dtype), implementation=which
  )
  device(H200)
  assert not takes(None) and takes('mosaic') and not takes('xla')
  with pytest.raises(NotImplementedError, match='needs bfloat16, got float32'):
    takes('mosaic', 'float32')
  device(H200, configs={})
  assert takes(None) and not takes(None, 'float32') and not takes('xla')
  device(B200)
  with pytest.raises(NotImplementedError, match='B200'):
    takes('mosaic')


@each_operation
def test_mosaic_on_a_cpu_names_the_device_and_what_it_needs(case, device):
  message = (
    "implementation='mosaic': needs a Hopper GPU, compute capability 9.0; .* has cpu"
  )
  with pytest.raises(NotImplementedError, match=message):
    runs_kernels(case, 'mosaic')


@each_operation
def test_mosaic_on_another_gpu_names_it(case, device):
  device(B200, configs={})
  with pytest.raises(NotImplementedError, match=r'B200 \(gpu, compute capability 10.0\)'):
    runs_kernels(case, 'mosaic')


@each_operation
def test_mosaic_in_float32_names_bfloat16(case, device):
  device(H200)
  with pytest.raises(NotImplementedError, match='needs bfloat16, got float32'):
    runs_kernels(case, 'mosaic', in_float32(case.abstract_inputs()))


@each_operation
def test_an_unknown_implementation_is_named(case, device):
  with pytest.raises(ValueError, match="implementation='triton': must be one of"):
    runs_kernels(case, 'triton')


def test_what_has_no_kernel_is_named(device):
  device(H200)
  y = jnp.ones((4, 8), jnp.bfloat16)
  with pytest.raises(NotImplementedError, match="has no kernel for rule='soft_weights'"):
    compress(y, rule='soft_weights', scale=jnp.float32(1), implementation='mosaic')
  with pytest.raises(NotImplementedError, match='has no kernel for expand'):
    expand(compress(y), implementation='mosaic')


def x(*shape: int) -> jax.Array:
  return jnp.ones(shape, jnp.bfloat16)


def z(T: int, F: int, axis: int = 1) -> TwoFour:
  values = x(T, F // 2) if axis == 1 else x(T // 2, F)
  metadata = jnp.zeros(metadata_shape(*((T, F) if axis == 1 else (F, T))), jnp.uint32)
  return TwoFour(values, metadata, axis, (T, F))


ILLEGAL = {
  'compress': [(lambda on: compress(x(4, 6), **on), r'y of shape \(4, 6\).*multiple of 4')],
  'matmul': [(lambda on: matmul(z(4, 8), x(4, 2), **on), r'b of shape \(4, 2\).* have 8')],
  'up_compress': [
    (lambda on: up_compress(x(4, 8), x(4, 8), **on), r'x .*\(4, 8\) and w .*\(4, 8\)'),
    (lambda on: up_compress(x(4, 8), x(8, 6), **on), r'w of shape \(8, 6\): its F must be'),
    (
      lambda on: up_compress(x(4, 8), x(6, 8), transpose_w=True, **on),
      r'w of shape \(6, 8\): its F must be',
    ),
    (lambda on: up_compress(x(8), x(8, 4), **on), r'must be \(T, K\) and \(K, F\)'),
  ],
  'gated_backward': [
    (lambda on: gated_backward(x(4, 2), x(8, 3), z(4, 8), **on), r'and \(F, K\)'),
    (
      lambda on: gated_backward(x(4, 2), x(8, 2), z(8, 8), **on),
      r'z of shape \(8, 8\), axis=1: must be \(4, 8\)',
    ),
    (
      lambda on: gated_backward(x(4, 2), x(8, 2), z(4, 8, axis=0), **on),
      r'z of shape \(4, 8\), axis=0: must be .* packed along axis 1',
    ),
  ],
  'weight_gradient': [
    (lambda on: weight_gradient(z(4, 8), x(3, 2), **on), r'g of shape \(3, 2\): must be'),
    (lambda on: weight_gradient(z(4, 8, axis=0), x(4, 2), **on), 'axis=0'),
  ],
  'feed_forward': [
    (lambda on: feed_forward(x(4, 2), x(3, 8), x(8, 2), **on), r's of shape .* and up of'),
    (lambda on: feed_forward(x(4, 2), x(2, 8), x(4, 2), **on), r'down of shape \(4, 2\)'),
    (lambda on: feed_forward(x(4, 2), x(2, 6), x(6, 2), **on), 'F a multiple of 4'),
  ],
}


@pytest.mark.parametrize('implementation', [None, 'mosaic'])
@pytest.mark.parametrize('op', ILLEGAL)
def test_illegal_shapes_are_named(op, implementation, device):
  device(H200, configs={})
  for call, message in ILLEGAL[op]:
    with pytest.raises(ValueError, match=message):
      call({'implementation': implementation})


def test_every_operation_has_illegal_shapes():
  assert set(ILLEGAL) == {case.op for case in CASES}


def test_tuned_config_is_that_of_the_file(device):
  shape, default = {'M': 256, 'K': 128, 'N': 64}, sparse.Config()
  find = lambda shape=shape: dispatch.tuned_config('matmul', shape, default)
  assert find() == default
  device(H200, configs={'matmul M=256 K=128 N=64': {'tile_n': 64, 'stages': 4}})
  assert find() == sparse.Config(tile_n=64, stages=4)
  assert find(shape | {'N': 128}) == default
  assert dispatch.tuned_config('up_compress', shape, dense.Config()) == dense.Config()


@each_operation
def test_an_operation_asks_for_the_config_of_its_shape(case, device, monkeypatch):
  device(H200)
  asked = []

  def tuned_config(op, shape, default):
    asked.append((op, *shape.values()))
    return default

  monkeypatch.setattr(mosaic, 'tuned_config', tuned_config)
  assert runs_kernels(case, 'mosaic')
  op = 'compress features top2' if case.op == 'compress' else case.op
  assert asked == [(op, *case.shape.values())]
