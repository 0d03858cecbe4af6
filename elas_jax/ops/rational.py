"""Rational functions P / Q of groups of channels (KAT, arXiv 2409.10594), and their fits.

P has degree 5 and coefficients a_0..a_5, Q degree 4 and b_1..b_4. Two denominators:

  absolute_terms   Q = 1 + sum_j |b_j| |x|^j    the published kernel and all its training
  absolute_sum     Q = 1 + |sum_j b_j x^j|      the paper's text (safe Pade)

Neither has poles. Letters: G groups of K channels, C = G K; N numerators, 1 or G.
"""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

DENOMINATORS = ('absolute_terms', 'absolute_sum')
NUMERATOR, DENOMINATOR = 6, 4  # coefficients of P and of Q


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def rational(
  x: jax.Array, a_Nx6: jax.Array, b_Gx4: jax.Array, denominator: str = 'absolute_terms'
) -> jax.Array:
  """F(x) = P(x) / Q(x), one F for each of G contiguous groups of the last axis (..., C).

  One numerator is shared by all groups (N = 1, as the released code has it) or each has
  its own (N = G). By Horner's rule in float32, returned in x's dtype.

  Saved for the backward pass: x and the coefficients, no power of x. The gradients of
  the coefficients are sums over all rows and the channels of a group. Atomic additions
  into so few numbers made the published kernel's backward pass slow and inexact
  (FlashKAT, arXiv 2505.13813); here they are trees of float32 sums.

    dF/dx = (P' - F Q') / Q,   dF/da_i = x^i / Q,   dF/db_j = -(F / Q) dQ/db_j

  At b_j = 0 (and where absolute_sum's sum is 0) the modulus counts as growing, derivative
  +1: with 0, as autodiff takes it, a denominator that starts at 0 could never be learnt.
  """
  x_TxGxK = _grouped(x, b_Gx4)
  p, _ = _polynomial(_columns(a_Nx6), x_TxGxK)
  q, _, _, _ = _denominator(x_TxGxK, b_Gx4, denominator)
  return (p / q).astype(x.dtype).reshape(x.shape)


def _forward(x, a_Nx6, b_Gx4, denominator):
  return rational(x, a_Nx6, b_Gx4, denominator), (x, a_Nx6, b_Gx4)


def _backward(denominator: str, saved: tuple, g: jax.Array) -> tuple:
  x, a_Nx6, b_Gx4 = saved
  x_TxGxK = _grouped(x, b_Gx4)
  p, dp = _polynomial(_columns(a_Nx6), x_TxGxK)
  q, dq, base, sign = _denominator(x_TxGxK, b_Gx4, denominator)
  f, weight = p / q, _grouped(g, b_Gx4) / q
  dx = weight * (dp - f * dq)

  of_a = _moments(weight, x_TxGxK, range(NUMERATOR))
  of_b = _moments(-weight * f * sign, base, range(1, DENOMINATOR + 1))
  da_Gx6, db_Gx4 = _group_sums(of_a), _group_sums(of_b)
  if denominator == 'absolute_terms':
    db_Gx4 = db_Gx4 * _sign(b_Gx4)
  if a_Nx6.shape[0] == 1:
    da_Gx6 = da_Gx6.sum(0, keepdims=True)
  return (
    dx.astype(x.dtype).reshape(x.shape),
    da_Gx6.astype(a_Nx6.dtype),
    db_Gx4.astype(b_Gx4.dtype),
  )


rational.defvjp(_forward, _backward)


def _grouped(x: jax.Array, b_Gx4: jax.Array) -> jax.Array:
  groups = b_Gx4.shape[0]
  return x.astype(jnp.float32).reshape(-1, groups, x.shape[-1] // groups)


def _columns(c_GxS: jax.Array) -> list[jax.Array]:
  """The S coefficients, each (1, G, 1)."""
  c_GxS = c_GxS.astype(jnp.float32)
  return [c_GxS[None, :, i, None] for i in range(c_GxS.shape[1])]


def _polynomial(coefficients: list, x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """sum_i c_i x^i and its derivative, by Horner's rule."""
  value, slope = coefficients[-1], jnp.zeros_like(coefficients[-1])
  for c in reversed(coefficients[:-1]):
    value, slope = value * x + c, slope * x + value
  return value, slope


def _denominator(x, b_Gx4, kind):
  """Q, Q', and (base, sign) with dQ/db_j = sign base^j, but for the sign of b_j."""
  if kind == 'absolute_terms':
    size = jnp.abs(x)
    q, dq = _polynomial([jnp.ones((1, 1, 1)), *_columns(jnp.abs(b_Gx4))], size)
    return q, jnp.sign(x) * dq, size, 1.0
  total, slope = _polynomial([jnp.zeros((1, 1, 1)), *_columns(b_Gx4)], x)
  sign = _sign(total)
  return 1 + jnp.abs(total), sign * slope, x, sign


def _sign(x: jax.Array) -> jax.Array:
  return jnp.where(x < 0, -1.0, 1.0)


def _moments(weight: jax.Array, base: jax.Array, powers: range) -> list[jax.Array]:
  """The terms weight base^i, for each power i."""
  terms = [weight]
  while len(terms) < powers.stop:
    terms.append(terms[-1] * base)
  return terms[powers.start :]


def _group_sums(terms: list[jax.Array]) -> jax.Array:
  """(G, S): each of S arrays (T, G, K) summed over T and K.

  A tree: a block of I x J rows by rows and columns, all S in one pass, then the rest. A
  single float32 accumulator would lose what is small beside its sum; the barrier keeps
  XLA from making one reduction of all. No loop over blocks, whose axis may be sharded.
  """
  T, G, K = terms[0].shape
  rows = next((d for d in range(64, math.isqrt(T) + 1) if T % d == 0), T)
  J = next(d for d in range(math.isqrt(rows), 0, -1) if rows % d == 0)
  add = lambda left, right: tuple(x + y for x, y in zip(left, right))
  sums = tuple(x.reshape(-1, rows // J, J, G, K) for x in terms)
  for axis in (2, 1):
    sums = jax.lax.reduce(sums, (jnp.float32(0),) * len(terms), add, (axis,))
  return jnp.stack([x.sum((0, 2)) for x in jax.lax.optimization_barrier(sums)], 1)


# What the coefficients start as. NumPy in float64, on first use.

SPAN = 3.0  # fits are over [-SPAN, SPAN]; outside they drift away from their target
LEAKY_SLOPE = 0.01
_sigmoid = lambda x: 1 / (1 + np.exp(-x))
_gelu = lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

# Preset -> (target, largest error of the fit on [-SPAN, SPAN] with either denominator).
# The published table has GELU twice, 'gelu' and 'gelu_old', since each of its fits is
# good for one denominator only. Here every denominator has its own fit; both names stay.
PRESETS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
  'identity': (lambda x: x, 0.0),
  'swish': (lambda x: x * _sigmoid(x), 2e-6),
  'gelu': (_gelu, 3e-3),
  'gelu_old': (_gelu, 3e-3),
  'tanh': (np.tanh, 5e-6),
  'sigmoid': (_sigmoid, 1e-7),
  'relu': (lambda x: np.maximum(x, 0), 0.035),
  'leaky_relu': (lambda x: np.where(x < 0, LEAKY_SLOPE * x, x), 0.035),
}


def preset(name: str, denominator: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Coefficients ((a_0, ..., a_5), (b_1, ..., b_4)) of a name of PRESETS."""
  if name == 'identity':  # any Q = 1 + c |x| fits it, with P = x Q, but for this one
    return (0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0,) * DENOMINATOR
  return fit(PRESETS[name][0], denominator)


@functools.cache
def fit(
  target: Callable[[np.ndarray], np.ndarray], denominator: str, points: int = 401
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """The least-squares fit of P / Q to `target` at equidistant points of [-SPAN, SPAN].

  The best fit often has some b_j = 0, where |b_j| has a kink and descent stalls: so every
  subset of the j is tried, from several starts, with Q = 1 + |sum_j b_j base^j|, base |x|
  or x. Only what has no negative b_j is taken. With absolute_terms the formula needs it;
  with absolute_sum a sum that turns negative beyond the span makes F useless there.
  """
  t = np.linspace(-1, 1, points)  # x / SPAN, since powers of x would be ill-conditioned
  y, base = target(SPAN * t), np.abs(t) if denominator == 'absolute_terms' else t
  powers = t[:, None] ** np.arange(NUMERATOR)[None, :]
  best = np.inf, None, None
  for count in range(1, DENOMINATOR + 1):
    for chosen in itertools.combinations(range(1, DENOMINATOR + 1), count):
      columns = base[:, None] ** np.array(chosen)[None, :]
      for start in (3.0, 30.0):
        loss, solution = _gauss_newton(y, powers, columns, np.full(count, start))
        a, b = solution[:NUMERATOR], np.zeros(DENOMINATOR)
        b[np.array(chosen) - 1] = solution[NUMERATOR:]
        if (b >= 0).all() and loss < best[0]:
          best = loss, a, b
  _, a, b = best
  a = a / SPAN ** np.arange(NUMERATOR)
  b = b / SPAN ** np.arange(1, DENOMINATOR + 1)
  return tuple(a.tolist()), tuple(b.tolist())


def _gauss_newton(
  y: np.ndarray, powers: np.ndarray, columns: np.ndarray, b: np.ndarray
) -> tuple[float, np.ndarray]:
  """Damped Gauss-Newton (Levenberg-Marquardt): (squared error, a and b in one vector).

  The first a is the linear least-squares solution for the first b.
  """

  def residual(solution):
    a, b = solution[:NUMERATOR], solution[NUMERATOR:]
    total = columns @ b
    q = (1 + np.abs(total))[:, None]
    f = (powers @ a)[:, None] / q
    slopes = -f / q * columns * np.where(total < 0, -1, 1)[:, None]
    return f[:, 0] - y, np.hstack([powers / q, slopes])

  q = 1 + np.abs(columns @ b)[:, None]
  solution = np.concatenate([np.linalg.lstsq(powers / q, y, rcond=None)[0], b])
  (r, jacobian), damping = residual(solution), 1e-3
  for _ in range(200):
    scale = np.sqrt((jacobian**2).sum(0) + 1e-300)
    damped = np.vstack([jacobian / scale[None, :], math.sqrt(damping) * np.eye(len(scale))])
    goal = np.concatenate([-r, np.zeros(len(scale))])
    basis, triangle = np.linalg.qr(damped)
    step = np.linalg.solve(triangle, basis.T @ goal) / scale
    new, new_jacobian = residual(solution + step)
    better, gain = new @ new < r @ r, 1 - new @ new / (r @ r)
    if better:
      solution, r, jacobian = solution + step, new, new_jacobian
    damping = max(damping / 5, 1e-14) if better else damping * 5
    if damping > 1e6 or (better and gain < 1e-9):
      break
  return r @ r, solution


def evaluate(
  x: np.ndarray, a: tuple[float, ...], b: tuple[float, ...], denominator: str
) -> np.ndarray:
  """F(x) in float64, for one group."""
  polynomial = np.polynomial.polynomial.polyval
  if denominator == 'absolute_terms':
    return polynomial(x, a) / (1 + polynomial(np.abs(x), (0, *np.abs(b))))
  return polynomial(x, a) / (1 + np.abs(polynomial(x, (0, *b))))


@functools.cache
def gain(name: str, denominator: str) -> float:
  """Returns alpha = Var[x] / E[F(x)^2], x ~ N(0, 1), by Gauss-Hermite quadrature.

  A linear map of F(x) with weights N(0, alpha / fan-in) keeps the variance (KAT).
  """
  nodes, weights = np.polynomial.hermite_e.hermegauss(96)
  values = evaluate(nodes, *preset(name, denominator), denominator)
  return float(weights.sum() / (weights @ values**2))
