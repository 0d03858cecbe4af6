"""Checksums against CRC-32C bit by bit, on several devices and after changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from elas_jax.run import checksums


def crc32c(data):
  """RFC 3720, appendix B.4: the reflected polynomial 0x82F63B78, one bit at a time."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def on(mesh_sizes, spec, value):
  devices = jax.devices()[: int(np.prod(mesh_sizes))]
  mesh = jax.make_mesh(mesh_sizes, ('x', 'y'), devices=devices)
  return jax.device_put(value, NamedSharding(mesh, PartitionSpec(*spec)))


@pytest.fixture(scope='module')
def values():
  random = np.random.default_rng(0)
  return {
    'float32': random.normal(size=(8, 12)).astype(np.float32),
    'bfloat16': np.asarray(jnp.asarray(random.normal(size=(4, 6)), jnp.bfloat16)),
    'int32': np.int32(7),
  }


def tree_of(values, sizes=(2, 2), spec=('x', 'y')):
  return {
    name: on(sizes, spec if value.ndim else (), value) for name, value in values.items()
  }


def test_check_value():
  array = on((1, 1), (), np.frombuffer(b'123456789', np.uint8))
  assert checksums.of_arrays({'a': array}) == {'a': {'0:9': 0xE3069283}}


def test_of_json_depends_on_the_value_alone():
  assert checksums.of_json({'b': 1, 'a': 0.5}) == crc32c(b'{"a": 0.5, "b": 1}')


def test_pieces_are_those_of_the_devices(values):
  found = checksums.of_arrays(tree_of(values))
  for name, (rows, columns) in {'float32': (8, 12), 'bfloat16': (4, 6)}.items():
    r, c = rows // 2, columns // 2
    assert found[name] == {
      f'{i}:{i + r},{j}:{j + c}': crc32c(values[name][i : i + r, j : j + c].tobytes())
      for i in (0, r)
      for j in (0, c)
    }
  assert found['int32'] == {'': crc32c(values['int32'].tobytes())}


@pytest.mark.parametrize(
  'sizes, spec', [((2, 2), ('x', 'y')), ((1, 1), ()), ((4, 1), ('x',)), ((1, 2), ('y',))]
)
def test_every_flipped_bit_is_found_on_any_devices(values, sizes, spec):
  sums = checksums.of_arrays(tree_of(values))
  assert checksums.differing(tree_of(values, sizes, spec), sums) == []
  random = np.random.default_rng(1)
  for name, value in values.items():
    for bit in random.integers(8 * value.nbytes, size=20):
      data = bytearray(value.tobytes())
      data[bit // 8] ^= 1 << (bit % 8)
      changed = np.frombuffer(bytes(data), value.dtype).reshape(value.shape)
      tree = tree_of(values | {name: changed}, sizes, spec)
      assert checksums.differing(tree, sums) == [name]


def test_arrays_without_checksum_or_of_another_shape_differ(values):
  sums = checksums.of_arrays(tree_of(values))
  more = tree_of(values | {'new': np.float32([1, 2])}, spec=())
  assert checksums.differing(more, sums) == ['new']
  del sums['int32']
  smaller = tree_of(values | {'float32': values['float32'][:4]}, spec=())
  assert checksums.differing(smaller, sums) == ['float32', 'int32']
  flat = tree_of(values | {'float32': values['float32'].reshape(-1)}, spec=())
  assert checksums.differing(flat, sums) == ['float32', 'int32']


def test_a_part_of_the_tree_is_enough(values):
  sums = checksums.of_arrays(tree_of(values))
  part = {'bfloat16': tree_of(values)['bfloat16']}
  assert checksums.differing(part, sums) == []


def test_buffers_can_still_be_donated():
  array = on((2, 2), ('x', 'y'), np.ones((64, 64), np.float32)) + 1
  buffers = lambda x: [shard.data.unsafe_buffer_pointer() for shard in x.addressable_shards]
  before = buffers(array)
  checksums.of_arrays({'a': array})
  step = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=array.sharding)
  assert buffers(step(array)) == before
