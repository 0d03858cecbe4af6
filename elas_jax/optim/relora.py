"""ReLoRA: LoRA factors that are merged into the frozen kernel and started anew."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from elas_jax.optim.factors import FACTORS, map_modules

LORA = ('kernel', *FACTORS)


class ReloraState(NamedTuple):
  count: jax.Array
  inner: Any


def relora(
  inner: optax.GradientTransformation,
  *,
  every: int,
  scale: float,
  seed: int,
  init: jax.nn.initializers.Initializer,
) -> optax.GradientTransformation:
  """Merges and restarts the LoRA factors (ReLoRA, arXiv 2307.05695).

  A LoRA module holds W0 'kernel' (..., I, O), A 'a' (..., I, R) and B 'b' (..., R, O):
  y = x W0 + scale (x A) B. `inner` trains all but W0, which it never sees: W0 has no
  moments, and no weight decay. After every `every`-th step, with the A and B of that step,

    W0 += scale A B;   A ~ init;   B = 0

  so y stays as it was. Adam's moments of A and B in the state of `inner` become zero
  there; other moments and the count of the bias correction stay. The key of a new A
  comes from `seed`, the step and the module's number; each matrix of a stack has its own.
  """
  trained = train_factors(inner)

  def init_state(params: Any) -> ReloraState:
    return ReloraState(jnp.zeros((), jnp.int32), trained.init(params))

  def update(grads: Any, state: ReloraState, params: Any) -> tuple[Any, ReloraState]:
    count = state.count + 1
    merge = count % every == 0
    updates, inner_state = trained.update(grads, state.inner, params)
    key, numbers = jax.random.fold_in(jax.random.key(seed), count), itertools.count()

    def change(step, old):
      key_of_module = jax.random.fold_in(key, next(numbers))

      def merged():
        a, b = old['a'] + step['a'], old['b'] + step['b']
        new_a = _draw(init, key_of_module, a)
        return {'kernel': scale * (a @ b), 'a': new_a - old['a'], 'b': -old['b']}

      still = lambda: step | {'kernel': jnp.zeros_like(old['kernel'])}
      return jax.lax.cond(merge, merged, still)

    updates = map_modules(LORA, change, updates, params)
    return updates, ReloraState(count, _reset_factors(inner_state, merge))

  return optax.GradientTransformation(init_state, update)


def train_factors(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """`inner` on everything but the frozen kernels of LoRA modules, whose gradient is 0."""
  return optax.masked(inner, _all_but_frozen)


def _all_but_frozen(tree: Any) -> Any:
  everything = jax.tree.map(lambda _: True, tree)
  return map_modules(LORA, lambda _: {'kernel': False}, everything)


def _draw(init: jax.nn.initializers.Initializer, key: jax.Array, like: jax.Array):
  """One matrix for each of the leading axes: an initializer would count them as fan."""
  keys = jax.random.split(key, math.prod(like.shape[:-2]))
  draw = lambda key: init(key, like.shape[-2:], like.dtype)
  return jax.vmap(draw)(keys).reshape(like.shape)


def _reset_factors(state: Any, merge: jax.Array) -> Any:
  """The state of an optimiser with zero moments of A and B in every Adam, if `merge`."""
  is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)

  def kept(module):
    return {name: jnp.where(merge, 0.0, module[name]) for name in FACTORS}

  def reset(node):
    if not is_adam(node):
      return node
    mu, nu = (map_modules(LORA, kept, moments) for moments in (node.mu, node.nu))
    return node._replace(mu=mu, nu=nu)

  return jax.tree.map(reset, state, is_leaf=is_adam)
