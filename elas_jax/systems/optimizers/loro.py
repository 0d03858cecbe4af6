"""Adam on factors, now and then a step on the manifold of rank-R maps (LORO, ICLR 2025).

For maps W = A B with the factors A 'a' (..., I, R) and B 'b' (..., R, O). With Adam's
direction d of every parameter p and the learning rate lr = schedule(step, from 0), the
updates are

  p = -lr d                 where p is no factor, at every step
  p = -lr lazy_scale d      where p is A or B, at a lazy step
  A, B: exact_step          at every exact_every-th step

Epsilon comes before Adam's bias correction, as published: ops/early_epsilon_adam.py. After
an exact step Adam starts anew: all moments, those of other parameters too, and its count
are zero. The short warm-up after most resets is the schedule's. There is no weight decay.
From Mo, Huang and Pan, whose public code it follows where that and the text differ.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.linalg import solve_triangular

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above, at_least
from elas_jax.common.limits import shown
from elas_jax.ops.early_epsilon_adam import scale_by_early_epsilon_adam
from elas_jax.ops.factors import FACTORS, map_modules
from elas_jax.systems.kinds import Training, factors, name_of, phase
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.optimizers.adamw import Adamw
from elas_jax.systems.optimizers.common import (
  Common,
  check_averages,
  check_decoder,
)


@dataclasses.dataclass(frozen=True)
class Loro(Common):
  learning_rate: float = 0.01  # the peak; published, but 0.005 at 1B
  b1: float = 0.9  # of the first moment
  b2: float = 0.999  # of the second moment
  epsilon: float = 1e-6  # added before the bias correction
  exact_every: int = phase(500)  # steps between exact steps; published, but 200 at 1B
  lazy_scale: float = 0.25  # of the learning rate in the others: R / D, 1/3 at 130M

  def check(self, where: str, config: Any) -> None:
    super().check(where, config)
    check_averages(where, self, 'b1 b2')
    above(0, where, self, 'epsilon')
    at_least(1, where, self, 'exact_every')
    at_least(0, where, self, 'lazy_scale')
    if self.decay_rules:
      raise UserError(
        f'{where}.decay_rules={shown(self.decay_rules)}: must be (), since LORO has no '
        'weight decay'
      )
    check_decoder(where, config, 'loro')
    linear = config.model.linear
    if not factors(linear):
      raise UserError(
        f"{where}='loro': needs a model.linear of two factors, as 'low_rank' is, not "
        f'{name_of(LINEARS, linear)!r}, since its steps are of pairs of factors'
      )
    name, narrowest = min(config.model.map_widths.items(), key=lambda item: item[1])
    if linear.rank > narrowest:
      raise UserError(
        f'model.linear.rank={linear.rank}: must be at most {narrowest} with '
        f"{where}='loro', the width of the map {name!r}: factors need full rank"
      )

  def on_dense(self) -> Adamw:
    """Adam as it is between exact steps, with what the two share and no weight decay."""
    theirs = {field.name for field in dataclasses.fields(Adamw)}
    own = {field.name for field in dataclasses.fields(self)}
    shared = {name: getattr(self, name) for name in theirs & own}
    return Adamw(**shared | {'weight_decay': 0.0})

  def build(self, training: Training) -> optax.GradientTransformation:
    return loro(
      training.schedule,
      b1=self.b1,
      b2=self.b2,
      epsilon=self.epsilon,
      exact_every=self.exact_every,
      lazy_scale=self.lazy_scale,
    )


class LoroState(NamedTuple):
  count: jax.Array  # steps done; Adam has its own count, since the last reset
  adam: optax.ScaleByAdamState


def loro(
  schedule: optax.Schedule,
  *,
  b1: float,
  b2: float,
  epsilon: float,
  exact_every: int,
  lazy_scale: float,
) -> optax.GradientTransformation:
  """The whole optimiser, learning rate included, as the module says."""
  adam = scale_by_early_epsilon_adam(b1, b2, epsilon)

  def init(params: Any) -> LoroState:
    return LoroState(jnp.zeros((), jnp.int32), adam.init(params))

  def update(grads: Any, state: LoroState, params: Any) -> tuple[Any, LoroState]:
    lr, count = schedule(state.count), state.count + 1
    exact = count % exact_every == 0
    directions, moments = adam.update(grads, state.adam)

    def change(pair, direction):
      lazily = lambda: {name: -lr * lazy_scale * direction[name] for name in FACTORS}

      def exactly():
        a, b = exact_step(pair['a'], pair['b'], direction['a'], direction['b'], lr)
        return {'a': a - pair['a'], 'b': b - pair['b']}

      return jax.lax.cond(exact, exactly, lazily)

    plain = jax.tree.map(lambda d: -lr * d, directions)
    updates = map_modules(
      FACTORS, lambda _, pair, d: change(pair, d), plain, params, directions
    )
    # A select, which fuses with the moments' update; a cond would copy them.
    moments = jax.tree.map(lambda x: jnp.where(exact, jnp.zeros_like(x), x), moments)
    return updates, LoroState(count, moments)

  return optax.GradientTransformation(init, update)


def exact_step(
  a: jax.Array, b: jax.Array, da: jax.Array, db: jax.Array, lr: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """One Riemannian gradient step on the maps of rank R, back as balanced factors.

  For W^T = M N^T with M = B^T (O, R) and N = A (I, R), M = U R_m, N = V R_n (QR) and the
  gradient G of W^T, dM = G N and dN = G^T M give both products with the bases:

    G V = dM R_n^-1,   U^T G = R_m^-T dN^T

  The new W^T is the best rank-R approximation of

    W^T - lr (U (U^T G) + (G V) V^T - U U^T (G V) V^T),

  which is G projected to the tangent space, G - (1 - U U^T) G (1 - V V^T). Adam's
  directions come from no common G, so that U U^T (G V) and (U^T G V) differ; the last term
  is the former, dM's. The published code has it so: its K0 = (U^T G) V is part of the
  first term, and what it takes off the second is U U^T (G V).
  A^T A = B B^T = diag(the R largest singular values).

  Shapes a (..., I, R), b (..., R, O), da and db like them, leading axes independent;
  R <= min(I, O), both factors of full rank; computed in their dtype. From LORO (ICLR 2025).
  """
  step = functools.partial(_exact_step, lr=lr)
  return jnp.vectorize(step, signature='(i,r),(r,o),(i,r),(r,o)->(i,r),(r,o)')(a, b, da, db)


def _exact_step(a_IxR, b_RxO, da_IxR, db_RxO, lr):
  rank = a_IxR.shape[1]
  u_OxR, rm_RxR = jnp.linalg.qr(b_RxO.T)
  v_IxR, rn_RxR = jnp.linalg.qr(a_IxR)
  gv_OxR = solve_triangular(rn_RxR, db_RxO, trans='T').T
  gtu_IxR = solve_triangular(rm_RxR, da_IxR.T, trans='T').T

  # The target is [U, G V] S [V, G^T U]^T, and with QR of both sides a small core between
  # orthonormal bases. One QR over both halves, since the second alone may lack rank (a
  # zero gradient), and its arbitrary basis would not be orthogonal to the first half.
  q_OxS, left_SxS = jnp.linalg.qr(jnp.hstack([u_OxR, gv_OxR]))
  q_IxS, right_SxS = jnp.linalg.qr(jnp.hstack([v_IxR, gtu_IxR]))
  slope = -lr * jnp.eye(rank, dtype=a_IxR.dtype)
  first = rm_RxR @ rn_RxR.T + lr * (u_OxR.T @ gv_OxR)
  middle = jnp.block([[first, slope], [slope, jnp.zeros_like(slope)]])
  p, sigma, zt = jnp.linalg.svd(left_SxS @ middle @ right_SxS.T, full_matrices=False)

  root_R = jnp.sqrt(sigma[:rank])
  scaled = lambda basis_SxS: basis_SxS[:, :rank] * root_R[None, :]
  return q_IxS @ scaled(zt.T), (q_OxS @ scaled(p)).T


CASES = (
  # An epsilon so large that it shows, and exact steps between lazy ones.
  Loro(b1=0.8, b2=0.9, epsilon=0.1, exact_every=3),
  Loro(exact_every=1),
  Loro(exact_every=100, lazy_scale=0.5),
)


def truth(kind: Loro, params: Any, gradients: list, rates: list[float]) -> Any:
  """Factors are right up to common signs of the columns of A and the rows of B."""
  zeros = jax.tree.map(np.zeros_like, params)
  m, v, t = zeros, zeros, 0
  for number, (gradient, rate) in enumerate(zip(gradients, rates), 1):
    g, t = gradient(params), t + 1
    m = jax.tree.map(lambda m, g: kind.b1 * m + (1 - kind.b1) * g, m, g)
    v = jax.tree.map(lambda v, g: kind.b2 * v + (1 - kind.b2) * g**2, v, g)
    scale = np.sqrt(1 - kind.b2**t) / (1 - kind.b1**t)
    adam = lambda m, v, scale=scale: scale * m / (np.sqrt(v) + kind.epsilon)
    exact = number % kind.exact_every == 0
    params = _true_step(kind, params, jax.tree.map(adam, m, v), rate, exact)
    if exact:
      m, v, t = zeros, zeros, 0
  return params


def _true_step(kind: Loro, node: Any, d: Any, rate: float, exact: bool) -> Any:
  if not isinstance(node, dict):
    return node - rate * d
  new = {name: _true_step(kind, node[name], d[name], rate, exact) for name in node}
  if node.keys() >= {'a', 'b'}:
    if exact:
      a, b = _true_exact_step(node['a'], node['b'], d['a'], d['b'], rate)
    else:
      a, b = (node[name] - rate * kind.lazy_scale * d[name] for name in 'ab')
    new |= {'a': a, 'b': b}
  return new


def _true_exact_step(a, b, da, db, rate):
  """As exact_step says, with the whole of W and no bases but U and V."""
  turned = lambda x: np.swapaxes(x, -1, -2)
  (u, rm), (v, rn) = np.linalg.qr(turned(b)), np.linalg.qr(a)
  gv, utg = turned(np.linalg.solve(turned(rn), db)), np.linalg.solve(turned(rm), turned(da))
  tangent = u @ utg + gv @ turned(v) - u @ (turned(u) @ gv) @ turned(v)
  p, sigma, zt = np.linalg.svd(turned(a @ b) - rate * tangent, full_matrices=False)
  root = np.sqrt(sigma[..., None, : a.shape[-1]])
  cut = lambda vectors: vectors[..., : a.shape[-1]] * root
  return cut(turned(zt)), turned(cut(p))
