"""The feed-forward with 2:4-sparse squared ReLU, z = prune(relu(h)^2), and its gradients.

  h = x U,  y = relu(h)^2,  z = prune(y),  out = z V

U is (W1,) or the factors (A1, B1), V is (W2,) or (A2, B2). With t the gradient of z, the
backward passes differ in what they take for the gradients of h and of V's first factor:

  exact             dh = 2 sqrt(z) t at the kept entries, else 0; V gets z. The gradient of
                    the pruned forward, since relu(h) = sqrt(z) wherever z is kept. Saved:
                    the packed z, nothing F-wide and dense.
  straight_through  dh = 2 relu(h) t at all entries; V gets z: the recipe of the draft of
                    ELAS's method section (arXiv 2605.03667). Saved: the packed z and h.
  straight_through_dense  the same, but V gets the unpruned y, as in the authors'
                    development code. Saved: h.
  split             as exact, but in the gradients of the weights, which contract tokens,
                    z and dh are also pruned along tokens for the 95 % sparsest features
                    (Haziza et al., arXiv 2503.16672). Saved: the packed z and F counts.
  transposable      as exact with z pruned further, so that it is 2:4 along tokens as well:
                    the one packed tensor then suits every product. Ours. Saved: the packed
                    z. (In the forward pass such a mask would show a token those after it.)
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.linear import chain
from pallas_kernels.two_four import (
  compress,
  expand,
  feed_forward,
  largest_two,
  matmul,
  sharded_feed_forward,
  takes_kernels,
)

BACKWARDS = ('exact', 'straight_through', 'straight_through_dense', 'split', 'transposable')
HAVE_KERNELS = ('exact', 'transposable')  # with the rule top2
DENSE_SHARE = 0.05  # of the features, in the backward pass 'split'

Kernels = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How to prune and how to go back.

  Attributes:
    rule: a name of pallas_kernels/two_four/rules.py:RULES.
    backward: one of BACKWARDS.
    length: L, for the token order of 'split'.
    implementation: 'auto': the kernels on devices that they were checked on; 'xla':
      dense; 'mosaic': the kernels, or an error.
  """

  rule: str
  backward: str
  length: int
  implementation: str = 'auto'

  @property
  def of_products(self) -> str | None:
    """As pallas_kernels takes it."""
    return None if self.implementation == 'auto' else self.implementation


def without_kernels(rule: str, backward: str) -> str:
  """Which of a recipe's 2:4 operations have no kernel, and why; '' if all have one."""
  if rule != 'top2':
    return f'pruning by the rule {rule!r} has no kernel'
  if backward not in HAVE_KERNELS:
    return f'the products of the backward pass {backward!r} have no kernels'
  return ''


def described(recipe: Recipe, dtype: str, devices: int) -> str:
  """What a layer's 2:4 products run on, on so many of these devices, in one line.

  Raises NotImplementedError for 'mosaic' where it cannot run.
  """
  x = jax.ShapeDtypeStruct((), dtype)
  if not takes_kernels(x, implementation=recipe.of_products):
    return 'dense, in XLA'
  lacking = without_kernels(recipe.rule, recipe.backward)
  if lacking and devices > 1:
    return f'dense, in XLA ({lacking})'
  if lacking:
    return f'of the forward pass by the kernels, of the backward pass in XLA ({lacking})'
  return 'by the kernels for sparse tensor cores'


def two_four_feed_forward(
  recipe: Recipe,
  x_TxD: jax.Array,
  up: Kernels,
  down: Kernels,
  key: jax.Array | None = None,
  scale: jax.Array | None = None,
) -> jax.Array:
  """`sparse_feed_forward`, by the kernels for sparse tensor cores where they take it.

  They do top2 with the backward passes exact and transposable, in bf16. Under a mesh each
  device takes its tokens and its features.

  Raises:
    NotImplementedError: with 'mosaic', where kernels lack for the recipe or the device.
    ValueError: with 'mosaic', where the tokens do not divide among the devices.
  """
  inner = up[-1].astype(x_TxD.dtype), down[0].astype(x_TxD.dtype)
  mesh = jax.sharding.get_abstract_mesh()
  parts = math.prod(mesh.shape[axis] for axis in ('data', 'fsdp')) if mesh.size > 1 else 1
  which, forced = recipe.of_products, recipe.implementation == 'mosaic'
  lacking = without_kernels(recipe.rule, recipe.backward)
  if forced and lacking:
    raise NotImplementedError(f"implementation='mosaic': {lacking}")
  by_kernels = takes_kernels(x_TxD, *inner, implementation=which)
  if lacking or not by_kernels or (x_TxD.shape[0] % parts and not forced):
    if mesh.size > 1:  # the compiler would gather all operands for one kernel
      recipe = dataclasses.replace(recipe, implementation='xla')
    return sparse_feed_forward(recipe, x_TxD, up, down, key, scale)
  s_TxR = chain(x_TxD, up[:-1])
  split = {'backward': recipe.backward, 'implementation': which}
  if mesh.size > 1:
    split |= {'rows': ('data', 'fsdp'), 'features': 'tensor'}
    t_TxR = sharded_feed_forward(s_TxR, *inner, **split)
  else:
    t_TxR = feed_forward(s_TxR, *inner, **split)
  return chain(t_TxR, down[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sparse_feed_forward(
  recipe: Recipe,
  x_TxD: jax.Array,
  up: Kernels,
  down: Kernels,
  key: jax.Array | None = None,
  scale: jax.Array | None = None,
) -> jax.Array:
  """relu(x U)^2, pruned, times V: (T, D) -> (T, D); see the top of this file.

  `key` is for the rule 'mvue' and `scale` for the soft ones.
  """
  return _forward(recipe, x_TxD, up, down, key, scale)[0]


def pruned_activations(
  recipe: Recipe, h_TxF: jax.Array, key: jax.Array | None = None, scale: Any = None
) -> jax.Array:
  """The squared ReLU of h, (T, F), with zeros for what is pruned."""
  return expand(_compressed(recipe, h_TxF, key, scale))


def _compressed(recipe, h_TxF, key, scale):
  return compress(
    h_TxF,
    rule=recipe.rule,
    activation='relu2',
    key=key,
    scale=scale,
    implementation=recipe.of_products,
  )


def _forward(recipe, x_TxD, up, down, key, scale):
  h_TxF = chain(x_TxD, up)
  z = _compressed(recipe, h_TxF, key, scale)
  # Only z leads on from here: what is saved is what the product read.
  first = down[0].astype(x_TxD.dtype)
  t_TxR = matmul(z, first, implementation=recipe.of_products)
  saved = {'x': x_TxD, 'z': z, 'down_inputs': _inputs(t_TxR, down[1:])}
  saved['up_inputs'] = _inputs(x_TxD, up)[1:]
  if recipe.backward == 'split':
    saved['counts'] = (h_TxF > 0).sum(axis=0, dtype=jnp.int32)
  elif recipe.backward.startswith('straight_through'):
    saved['h'] = h_TxF
  if recipe.backward == 'straight_through_dense':
    del saved['z']
  return chain(t_TxR, down[1:]), saved | {'up': up, 'down': down}


def _inputs(x: jax.Array, kernels: Kernels) -> list[jax.Array]:
  """What each kernel of a chain multiplies."""
  inputs = []
  for kernel in kernels:
    inputs.append(x)
    x = chain(x, (kernel,))
  return inputs


def _chain_backward(inputs, kernels, g):
  """(dx, gradients of the kernels) of a chain whose kernels multiplied `inputs`."""
  gradients = []
  for x, kernel in zip(reversed(inputs), reversed(kernels)):
    gradients.insert(0, jnp.matmul(x.T, g).astype(kernel.dtype))
    g = jnp.matmul(g, kernel.T.astype(g.dtype))
  return g, gradients


def _backward(recipe, saved, g_TxD):
  up, down = saved['up'], saved['down']
  dt_TxR, d_rest = _chain_backward(saved['down_inputs'], down[1:], g_TxD)
  dz_TxF = jnp.matmul(dt_TxR, down[0].T.astype(g_TxD.dtype))
  dh_TxF, z_of_down, dh_of_up = _RECIPES[recipe.backward](recipe, saved, dz_TxF)
  d_first = jnp.matmul(z_of_down.T, dt_TxR).astype(down[0].dtype)

  # The last kernel of U meets dh twice: with all of it for dx, and pruned for itself.
  last, last_input = up[-1], [saved['x'], *saved['up_inputs']][len(up) - 1]
  d_last = jnp.matmul(last_input.T, dh_of_up).astype(last.dtype)
  ds = jnp.matmul(dh_TxF, last.T.astype(dh_TxF.dtype))
  dx_TxD, d_up = _chain_backward([saved['x']][: len(up) - 1], up[:-1], ds)
  return dx_TxD, (*d_up, d_last), (d_first, *d_rest), None, None


def _exact(recipe, saved, dz_TxF):
  z_TxF = expand(saved['z'])
  dh_TxF = _slope(jnp.sqrt(z_TxF.astype(jnp.float32)), dz_TxF)
  return dh_TxF, z_TxF, dh_TxF


def _straight_through(recipe, saved, dz_TxF):
  dh_TxF = _slope(jnp.maximum(saved['h'].astype(jnp.float32), 0), dz_TxF)
  return dh_TxF, expand(saved['z']), dh_TxF


def _straight_through_dense(recipe, saved, dz_TxF):
  positive = jnp.maximum(saved['h'], 0)
  dh_TxF = _slope(positive.astype(jnp.float32), dz_TxF)
  return dh_TxF, positive * positive, dh_TxF


def _split(recipe, saved, dz_TxF):
  dh_TxF, z_TxF, _ = _exact(recipe, saved, dz_TxF)
  F = dh_TxF.shape[1]
  # The densest features stay whole; of features with equal counts the lower index.
  order = jnp.argsort(-saved['counts'], stable=True)
  rank_F = jnp.zeros(F, jnp.int32).at[order].set(jnp.arange(F, dtype=jnp.int32))
  dense_F = rank_F < math.ceil(DENSE_SHARE * F)
  prune = lambda x: jnp.where(dense_F[None, :], x, _prune_tokens(x, recipe.length))
  return dh_TxF, prune(z_TxF), prune(dh_TxF)


def _transposable(recipe, saved, dz_TxF):
  z_TxF = expand(saved['z'])
  implementation = recipe.of_products
  z_TxF = expand(compress(z_TxF, rule='transposable', implementation=implementation))
  dh_TxF = _slope(jnp.sqrt(z_TxF.astype(jnp.float32)), dz_TxF)
  return dh_TxF, z_TxF, dh_TxF


_RECIPES = {
  'exact': _exact,
  'straight_through': _straight_through,
  'straight_through_dense': _straight_through_dense,
  'split': _split,
  'transposable': _transposable,
}


def _slope(positive_TxF: jax.Array, dz_TxF: jax.Array) -> jax.Array:
  """2 relu(h) dz in float32, rounded once."""
  return (2 * positive_TxF * dz_TxF.astype(jnp.float32)).astype(dz_TxF.dtype)


def _prune_tokens(x_TxF: jax.Array, length: int) -> jax.Array:
  """Top 2 of each four tokens of a sequence, in a fixed random order of its positions.

  A feature tends to fire on runs of tokens, so that four neighbours would often hold
  more than two entries. Permuting before the layer and undoing it after, as published,
  prunes the same entries.
  """
  if length % 4:
    raise ValueError(
      f"backward='split' with {length} positions: must be a multiple of 4, since it "
      'prunes groups of four positions'
    )
  order_L = np.random.default_rng(0).permutation(length)
  F = x_TxF.shape[1]
  groups = x_TxF.reshape(-1, length, F)[:, order_L].reshape(-1, 4, F)
  mask = jnp.moveaxis(
    largest_two(jnp.moveaxis(jnp.abs(groups).astype(jnp.float32), 1, -1)), -1, 1
  )
  kept = jnp.where(mask, groups, 0).reshape(-1, length, F)
  return kept[:, np.argsort(order_L)].reshape(x_TxF.shape)


sparse_feed_forward.defvjp(_forward, _backward)


def estimated_scale(
  x_TxD: jax.Array, up: Kernels, projection_FxR: jax.Array | None, rows: int = 100
) -> jax.Array:
  """The scale of a soft rule: <p, q> / <q, q> within 0.5 and 2, without gradient.

  It makes the pruned q nearest to p. For soft_activations p is relu(x U)^2 of up to `rows`
  tokens spread over the batch, and q the same after the threshold; for soft_weights both
  are projected by V's first factor and taken of all tokens (after S-STE, 2409.09099, as
  the authors of ELAS carried it over).
  """
  x_TxD, up, projection_FxR = jax.lax.stop_gradient((x_TxD, up, projection_FxR))
  if projection_FxR is None:
    x_TxD = x_TxD[:: max(x_TxD.shape[0] // rows, 1)][:rows]
  p = jnp.square(jnp.maximum(chain(x_TxD, up).astype(jnp.float32), 0))
  q = expand(compress(p, rule='soft_activations', scale=jnp.float32(1)))
  if projection_FxR is not None:
    p, q = (v @ projection_FxR.astype(jnp.float32) for v in (p, q))
  return jnp.clip((p * q).sum() / jnp.maximum((q * q).sum(), 1e-30), 0.5, 2.0)
