"""A small tree of parameters with what any optimiser treats specially, and steps on it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elas_jax.systems.kinds import Training

SHAPES = {
  'head': {'kernel': (4, 7)},
  'layers': {
    'down': {'kernel': (2, 7, 4)},
    'norm': {'scale': (2, 4)},
    'query': {'a': (2, 6, 2), 'b': (2, 2, 5)},
    'square': {'kernel': (2, 4, 4)},
  },
}
PRODUCT = (2, 6, 5)  # the shape of A B
RATES = [0.05, 0.04, 0.03, 0.02, 0.01, 0.02, 0.03]


def draw(seed: int):
  random = np.random.default_rng(seed)
  is_shape = lambda node: isinstance(node, tuple)
  return jax.tree.map(lambda shape: random.normal(size=shape), SHAPES, is_leaf=is_shape)


def draw_gradient(seed: int):
  """Parameters -> the gradients of a loss that is linear in all, and in A B of a pair.

  So that the signs of factors' columns, of which an optimiser may choose any, do not
  change the next step of their product.
  """
  slopes = draw(seed)
  of_product = np.random.default_rng(100 + seed).normal(size=PRODUCT)

  def gradient(params):
    a, b = (params['layers']['query'][name] for name in 'ab')
    pair = {'a': of_product @ b.mT, 'b': a.mT @ of_product}
    return slopes | {'layers': slopes['layers'] | {'query': pair}}

  return gradient


def training_of(params, rates) -> Training:
  return Training(
    schedule=lambda step: jnp.asarray(rates)[step],
    params=params,
    decay=lambda factor: [optax.add_decayed_weights(factor)] if factor else [],
  )


def descend(kind, params, gradients: list, rates: list[float]):
  """The parameters after these steps, in their dtype, as arrays of NumPy."""
  optimizer = kind.build(training_of(params, rates))
  state, update = optimizer.init(params), jax.jit(optimizer.update)
  for gradient in gradients:
    grads = jax.tree.map(lambda g, p: jnp.asarray(g, p.dtype), gradient(params), params)
    updates, state = update(grads, state, params)
    params = jax.tree.map(lambda p, u: np.asarray(p + u), params, updates)
  return params


def determined(params):
  """The tree with the product of the pair in its place."""
  pair = params['layers']['query']
  return params | {'layers': params['layers'] | {'query': pair['a'] @ pair['b']}}
