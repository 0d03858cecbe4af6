"""y = x W + alpha / R (x A) B, W frozen (LoRA, arXiv 2106.09685; ReLoRA, 2307.05695).

x (..., I), 'kernel' W (I, O), 'a' (I, R), 'b' (R, O), and a 'bias' (O,), trained, only with
parts.use_bias. W is as a dense map starts, A uniform by its fan-in, B zero. With
merge_every, W takes up its factors from time to time, which then start anew: ReLoRA, here
from the first step, without the dense warm start of the paper.
"""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from elas_jax.common.fields import at_least
from elas_jax.ops import linear as ops
from elas_jax.ops.factors import FACTORS, map_modules
from elas_jax.systems.kinds import Parts, phase
from elas_jax.systems.linears.common import bias_of, check_rank, plain_start, plus

FROZEN = 'kernel'
NAMES = (FROZEN, *FACTORS)


@dataclasses.dataclass(frozen=True)
class LoRA:
  rank: int = 128  # R; published, for pre-training: 128 at 60m, 256 to 350m, 512 at 1b
  alpha: float = 32.0  # A B counts alpha / R
  merge_every: int = phase(0)  # ReLoRA: steps between merges, 5000 as published; 0: never

  def check(self, where: str, config: Any) -> None:
    check_rank(where, self, config)
    at_least(0, where, self, 'merge_every')

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    return Module(features, self, parts, name=name)

  def frozen(self) -> tuple[str, ...]:
    """Parameters that are not trained."""
    return (FROZEN,)

  def merged(self, p: dict[str, jax.Array]) -> jax.Array:
    return p['kernel'] + self.alpha / self.rank * (p['a'] @ p['b'])

  def flops(self, shapes: dict[str, tuple[int, ...]]) -> float:
    """W counts 4 an entry, since it has no gradient."""
    entries = {name: math.prod(shapes[name]) for name in NAMES}
    return 4.0 * entries.pop(FROZEN) + 6.0 * sum(entries.values())

  def around_steps(
    self, inner: optax.GradientTransformation, seed: int
  ) -> optax.GradientTransformation:
    if not self.merge_every:
      return train_factors(inner)
    return relora(
      inner,
      every=self.merge_every,
      scale=self.alpha / self.rank,
      seed=seed,
      init=ops.kaiming_uniform,
    )


class Module(nn.Module):
  features: int
  kind: LoRA
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    I, O, R, dtype = x.shape[-1], self.features, self.kind.rank, self.parts.param_dtype
    w_IxO = self.param('kernel', plain_start(self.parts), (I, O), dtype)
    a_IxR = self.param('a', ops.kaiming_uniform, (I, R), dtype)
    b_RxO = self.param('b', nn.initializers.zeros, (R, O), dtype)
    y = ops.low_rank_plus_dense(x, w_IxO, a_IxR, b_RxO, self.kind.alpha / R)
    return plus(y, bias_of(self))


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

      def merge_now():
        a, b = old['a'] + step['a'], old['b'] + step['b']
        new_a = _draw(init, key_of_module, a)
        merged = {'kernel': scale * (a @ b), 'a': new_a - old['a'], 'b': -old['b']}
        return step | merged  # a bias goes on as it would

      still = lambda: step | {'kernel': jnp.zeros_like(old['kernel'])}
      return jax.lax.cond(merge, merge_now, still)

    updates = map_modules(NAMES, change, updates, params)
    return updates, ReloraState(count, _reset_factors(inner_state, merge))

  return optax.GradientTransformation(init_state, update)


def train_factors(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """`inner` on everything but the frozen kernels of LoRA modules, whose gradient is 0."""
  return optax.masked(inner, _all_but_frozen)


def _all_but_frozen(tree: Any) -> Any:
  everything = jax.tree.map(lambda _: True, tree)
  return map_modules(NAMES, lambda _: {'kernel': False}, everything)


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
    mu, nu = (map_modules(NAMES, kept, moments) for moments in (node.mu, node.nu))
    return node._replace(mu=mu, nu=nu)

  return jax.tree.map(reset, state, is_leaf=is_adam)


AXES = {'kernel': ('in', 'out'), 'a': ('in', 'rank'), 'b': ('rank', 'out'), 'bias': (None,)}
NO_DECAY = ('bias',)
CASES = (LoRA(rank=4, alpha=8.0), LoRA(rank=2, alpha=3.0, merge_every=2))


def truth(kind: LoRA, x: np.ndarray, p: dict) -> np.ndarray:
  scale = kind.alpha / kind.rank
  return x @ p['kernel'] + scale * (x @ p['a'] @ p['b']) + p.get('bias', 0)
