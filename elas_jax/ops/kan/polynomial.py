"""Orthogonal polynomials as KAN bases, all by one three-term recurrence."""

import math

import jax
import jax.numpy as jnp

# P_(n+1) = (a x + b) P_n - c P_(n-1), as n -> (a, b, c); P_0 = 1 and P_(-1) = 0.
RECURRENCES = {
  'chebyshev': lambda n: (1 if n == 0 else 2, 0, 1),
  'legendre': lambda n: ((2 * n + 1) / (n + 1), 0, n / (n + 1)),
  # Normalised: He_n / sqrt(n!) has variance 1 under a standard normal x, n > 0.
  'hermite': lambda n: (1 / math.sqrt(n + 1), 0, math.sqrt(n / (n + 1))),
  'laguerre': lambda n: (-1 / (n + 1), (2 * n + 1) / (n + 1), n / (n + 1)),
  # Both parameters 1.
  'jacobi': lambda n: (
    (2 * n + 3) * (n + 2) / ((n + 1) * (n + 3)),
    0,
    (n + 2) / (n + 3),
  ),
}

# Each is orthogonal on its own domain, and inputs are brought there.
DOMAINS = {
  'chebyshev': jnp.tanh,
  'legendre': jnp.tanh,
  'hermite': lambda x: x,
  'laguerre': jax.nn.softplus,
  'jacobi': jnp.tanh,
}


def orthogonal_polynomials(x: jax.Array, degree: int, name: str) -> jax.Array:
  """P_0 ... P_degree at x, shapes (...) -> (..., degree + 1), in float32."""
  x = x.astype(jnp.float32)
  before, values = jnp.zeros_like(x), [jnp.ones_like(x)]
  for n in range(degree):
    a, b, c = RECURRENCES[name](n)
    step = (a * x + b) * values[-1] - c * before
    before = values[-1]
    values.append(step)
  return jnp.stack(values, axis=-1)


def polynomial_basis(x: jax.Array, degree: int, name: str) -> jax.Array:
  """P_0 ... P_degree at x brought to their domain: (..., I) -> (..., I, degree + 1).

  'chebyshev' is ChebyKAN, whose cos(n arccos(tanh x)) is T_n(tanh x); the recurrence has
  no derivative that blows up where tanh x rounds to 1.
  """
  return orthogonal_polynomials(DOMAINS[name](x.astype(jnp.float32)), degree, name)
