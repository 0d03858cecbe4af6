"""Massive activations, and the curve of their growth in a training (arXiv 2508.03616).

Of x (T, D), what each layer of a transformer gives, after the residual, over all valid
tokens of the batch:

  ratio              max |x| / median |x|
  largest/position   of the largest in its row, from 0
  largest/feature    of D in which it is

by layer. The paper's ratios are of ten sequences; its code, which may take maximum and
median of each sequence instead, was not to be had.

Over the evaluations of a run `fitted` gives, of each layer's ratio, the paper's curve

  ratio(t) = A exp(-lambda x) log(x) + K,   x = gamma t + t0

after t steps, with lambda, gamma and t0 above 0, by least squares: A and K are linear, the
other three are searched for from several starts. Its peak (of A < 0 its trough), at step
peak_step, is where x = exp(W(1 / lambda)), with Lambert's W.
"""

import dataclasses
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.systems.measures.common import Curve

NAMES = 'ratio', 'largest/position', 'largest/feature'


@dataclasses.dataclass(frozen=True)
class Massive:
  sown: ClassVar[tuple[str, ...]] = ('residual',)
  title: ClassVar[str] = 'Massive activations'
  shown: ClassVar[dict[str, str]] = {'ratio': 'massive activations {:.1f}'}
  fits: ClassVar[tuple[str, ...]] = ('ratio',)
  least: ClassVar[int] = 6  # points of a fit: one more than the curve has parameters

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    found_Nx3 = seen.each('residual', lambda x_TxD: _largest(seen, x_TxD))
    return dict(zip(NAMES, found_Nx3.T))

  def fitted(self, steps: np.ndarray, values: np.ndarray) -> Curve:
    """The curve through values (E,) at steps (E,)."""
    return _fitted(steps, values)


def _largest(seen: Any, x_TxD: jax.Array) -> jax.Array:
  (T, D), rows = x_TxD.shape, len(seen.weights)
  valid_T = seen.weights_of(T) > 0
  size_TxD = jnp.where(valid_T[:, None], jnp.abs(x_TxD.astype(jnp.float32)), jnp.nan)
  where = jnp.nanargmax(size_TxD)
  ratio = jnp.nanmax(size_TxD) / jnp.nanmedian(size_TxD)
  return jnp.stack([ratio, where // D % (T // rows), where % D])


def _curve(steps: np.ndarray, gamma: float, t0: float, decay: float) -> np.ndarray:
  """exp(-lambda x) log(x)."""
  x = gamma * steps + t0
  return np.exp(-decay * x) * np.log(x)


def _fitted(steps: np.ndarray, values: np.ndarray) -> Curve:
  from scipy import optimize, special

  t, y = steps / steps.max(), values
  shape = lambda logs: _curve(t, *np.exp(logs))

  def linear(logs: np.ndarray) -> np.ndarray:
    """The best A and K."""
    columns = np.stack([shape(logs), np.ones_like(t)], 1)
    return np.linalg.lstsq(columns, y, rcond=None)[0]

  def error(logs: np.ndarray) -> np.ndarray:
    A, K = linear(logs)
    return (A * shape(logs) + K - y) / (np.ptp(y) or 1.0)

  # Published fits have x of about 0.6 at the start and 17 at the end, and lambda 0.1.
  starts = itertools.product((1.0, 5.0, 20.0), (0.1, 0.6, 1.0), (0.02, 0.1, 0.5))
  bounds = np.log([1e-3, 1e-3, 1e-4]), np.log([1e3, 1e2, 1e2])
  tries = [optimize.least_squares(error, np.log(x), bounds=bounds) for x in starts]
  best = min(tries, key=lambda found: found.cost).x
  exact = dict.fromkeys(('ftol', 'xtol', 'gtol'), 1e-14)
  logs = optimize.least_squares(error, best, bounds=bounds, **exact).x
  (A, K), (gamma, t0, decay) = linear(logs), np.exp(logs)
  peak = (np.exp(special.lambertw(1 / decay).real) - t0) * steps.max() / gamma
  parameters = {'A': A, 'lambda': decay, 'gamma': gamma / steps.max(), 't0': t0, 'K': K}
  return Curve(
    {name: float(x) for name, x in (parameters | {'peak_step': peak}).items()},
    lambda at: A * _curve(at / steps.max(), gamma, t0, decay) + K,
  )


CASES = (Massive(),)


def truth(kind: Massive, seen: Any) -> dict[str, np.ndarray]:
  found, rows = [], len(seen.weights)
  for x_TxD in seen.layers('residual'):
    counts = np.repeat(seen.weights.reshape(-1) > 0, len(x_TxD) // seen.weights.size)
    sizes = sorted(np.abs(x_TxD[counts]).ravel())
    half = len(sizes) // 2
    median = (sizes[half] + sizes[~half]) / 2
    ((token, feature),) = np.argwhere((np.abs(x_TxD) == sizes[-1]) & counts[:, None])
    found.append((sizes[-1] / median, token % (len(x_TxD) // rows), feature))
  return dict(zip(NAMES, np.transpose(found)))
