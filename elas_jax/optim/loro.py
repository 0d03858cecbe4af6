"""LORO: Adam on the factors, and now and then a step on the manifold of rank-R maps."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import solve_triangular

from elas_jax.optim.adam import scale_by_early_epsilon_adam
from elas_jax.optim.factors import FACTORS, map_modules


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
  """LORO, low-rank Riemannian optimisation (Mo, Huang and Pan, ICLR 2025).

  For maps W = A B with the factors A 'a' (..., I, R) and B 'b' (..., R, O). With Adam's
  direction d of every parameter p (adam.py: epsilon comes before the bias correction) and
  the learning rate lr = schedule(step, from 0), the updates are

    p = -lr d                 where p is no factor, at every step
    p = -lr lazy_scale d      where p is A or B, at a lazy step
    A, B: exact_step          at every exact_every-th step

  After an exact step Adam starts anew: all moments, those of other parameters too, and
  its count are zero. Published: b1 0.9, b2 0.999, epsilon 1e-6, exact_every 500 (200 for
  1b), lazy_scale R / width. The short warm-up after most resets is the schedule's.
  """
  adam = scale_by_early_epsilon_adam(b1, b2, epsilon)

  def init(params: Any) -> LoroState:
    return LoroState(jnp.zeros((), jnp.int32), adam.init(params))

  def update(grads: Any, state: LoroState, params: Any) -> tuple[Any, LoroState]:
    lr, count = schedule(state.count), state.count + 1
    exact = count % exact_every == 0
    directions, moments = adam.update(grads, state.adam)

    def factors(pair, direction):
      lazily = lambda: {name: -lr * lazy_scale * direction[name] for name in FACTORS}

      def exactly():
        a, b = exact_step(pair['a'], pair['b'], direction['a'], direction['b'], lr)
        return {'a': a - pair['a'], 'b': b - pair['b']}

      return jax.lax.cond(exact, exactly, lazily)

    plain = jax.tree.map(lambda d: -lr * d, directions)
    updates = map_modules(
      FACTORS, lambda _, pair, d: factors(pair, d), plain, params, directions
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
