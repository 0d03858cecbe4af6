"""The matrices of linear maps: by the maps' truths, of the unit vectors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.models import layout
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from tests.systems.sections import classifier, decoder


def shapes(model):
  """Of parameters and buffers."""
  if hasattr(model, 'architecture'):
    init, x = Network(model).init, jnp.zeros((1, *model.input_shape))
  else:
    init, x = Decoder(model).init, jnp.zeros((1, 4), jnp.int32)
  return jax.eval_shape(init, jax.random.key(0), x)


def drawn(model):
  """Such arrays; integers are the places of entries, each another one."""
  random = np.random.default_rng(0)

  def draw(x):
    if x.dtype == jnp.int32:
      return jnp.broadcast_to(3 * jnp.arange(x.shape[-1]) + 1, x.shape)
    return jnp.asarray(random.normal(size=x.shape), jnp.float32)

  return jax.tree.map(draw, shapes(model))


def at(tree, path):
  for key in path.split('/'):
    tree = tree.get(key, {})
  return tree


@pytest.mark.parametrize('name', ['dense', 'low_rank', 'lora', 'sltrain'])
@pytest.mark.parametrize('of', [decoder, classifier])
def test_matrices_are_what_their_maps_multiply_with(name, of):
  kind = room(LINEARS[name]).CASES[0]
  model = of(linear=kind)
  variables = drawn(model)
  found = layout.matrices(model, variables)
  maps = {path for path, (owner, _) in layout.owners(model).items() if owner is kind}
  assert maps and maps <= found.keys()
  for path in maps:
    product = functools.reduce(np.matmul, map(np.float64, found[path]))
    p = {k: np.float64(x) for part in variables.values() for k, x in at(part, path).items()}
    p.pop('bias', None)
    unit = np.eye(product.shape[-2])
    for layer in range(2) if product.ndim == 3 else [...]:
      expected = room(kind).truth(kind, unit, {k: x[layer].copy() for k, x in p.items()})
      np.testing.assert_allclose(product[layer], expected, rtol=1e-5, atol=1e-5)


def matrices(model):
  """Path -> shapes."""
  found = jax.eval_shape(lambda x: layout.matrices(model, x), shapes(model))
  return {path: tuple(x.shape for x in of) for path, of in found.items()}


def test_of_other_maps_each_parameter_counts():
  cola = matrices(decoder(LINEARS['cola'](rank=4)))
  assert cola['layers/feed_forward/up/a'] == ((2, 8, 4),)
  assert cola['layers/feed_forward/up/b'] == ((2, 4, 16),)
  spline = LINEARS['kan_bspline']()
  bases = spline.grid + spline.order
  found = matrices(decoder(spline))
  (path,) = (path for path in found if 'up' in path and found[path][0][1] == 8 * bases)
  assert found[path] == ((2, 8 * bases, 16),)


def test_embedding_and_head_count_and_norms_do_not():
  found = matrices(decoder(LINEARS['low_rank'](rank=4)))
  assert found['embedding'] == ((61, 8),) and found['head'] == ((8, 61),)
  assert found['layers/attention/query'] == ((2, 8, 4), (2, 4, 8))
  assert not [path for path in found if 'norm' in path]
  assert 'head' not in matrices(decoder(tied_head=True))


def test_convolutions_are_unfolded():
  found = matrices(classifier(ARCHITECTURES['convnet']()))
  kernels = [x for path, (x,) in found.items() if 'layer_' in path]
  assert kernels and kernels[0] == (3 * 3 * 1, 8)
