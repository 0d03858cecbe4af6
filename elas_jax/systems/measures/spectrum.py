"""Stable and effective rank of every linear map, from its singular values s_1 >= s_2 ...

  stable_rank      ||W||_F^2 / ||W||_2^2 = sum s_i^2 / s_1^2 (Rudelson & Vershynin 2007)
  effective_rank   exp(-sum p_i log p_i), p_i = s_i / sum s (Roy & Vetterli 2007)

each the mean over all maps and, by the path of a map, its own, of stacked layers (N,).
Neither is above the rank of W; both are 0 where W is. Of a product A B of factors (I, R)
and (R, O) the singular values are those of the small matrix R_A R_B^T, from A = Q_A R_A and
B^T = Q_B R_B. Of a map that is no product by one matrix each of its parameters counts for
itself: of CoLA A and B, of a KAN its coefficients (I S, O), of a convolution (h w I, O).
"""

import dataclasses
import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Spectrum:
  title: ClassVar[str] = 'Ranks of linear maps'
  shown: ClassVar[dict[str, str]] = {
    'stable_rank': 'stable rank {:.1f}',
    'effective_rank': 'effective rank {:.1f}',
  }

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    found = {path: _singular_values(*x) for path, x in seen.matrices().items()}
    found = _by_depth(found)
    ranks = {'stable_rank': _stable_rank, 'effective_rank': _effective_rank}
    values = {}
    for name, rank in ranks.items():
      of = {f'{name}/{path}': rank(s) for path, s in found.items()}
      values[name] = jnp.concatenate([x.reshape(-1) for x in of.values()]).mean()
      values |= of
    return values


def _by_depth(found: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Maps that all layers of a cycle have as one, (N, R), in the order of the layers.

  Of a map that only some have, (N / cycle, R), the path says which layer of the cycle.
  """
  number = lambda path: int((re.search(r'layers/layer_(\d+)/', path) or [0, 0])[1])
  cycle, groups = 1 + max(map(number, found)), {}
  for path in sorted(found, key=number):
    groups.setdefault(re.sub(r'layers/layer_\d+/', 'layers/', path), []).append(path)
  values = {}
  for name, paths in groups.items():
    of = [found[path] for path in paths]
    if len({x.shape for x in of}) == 1 and len(of) == cycle > 1:
      values[name] = jnp.stack(of, 1).reshape(-1, of[0].shape[-1])
    else:
      values |= zip(paths, of)
  return values


def _singular_values(*factors: jax.Array) -> jax.Array:
  """Those that may be above 0, of a matrix or of the product of two; (..., R)."""
  wide = [x.astype(jnp.float32) for x in factors]
  if len(wide) == 2:
    a, b = wide
    upper = lambda x: jnp.linalg.qr(x, mode='r')
    wide = [upper(a) @ jnp.swapaxes(upper(jnp.swapaxes(b, -1, -2)), -1, -2)]
  return jnp.linalg.svd(wide[0], compute_uv=False)


def _stable_rank(s: jax.Array) -> jax.Array:
  return jnp.square(_ratio(s, s.max(-1, keepdims=True))).sum(-1)


def _effective_rank(s: jax.Array) -> jax.Array:
  p = _ratio(s, s.sum(-1, keepdims=True))
  rank = jnp.exp(-(p * jnp.log(jnp.where(p > 0, p, 1.0))).sum(-1))
  return jnp.where(s.max(-1) > 0, rank, 0.0)


def _ratio(s: jax.Array, whole: jax.Array) -> jax.Array:
  return jnp.where(whole > 0, s / jnp.where(whole > 0, whole, 1.0), 0.0)


CASES = (Spectrum(),)


def truth(kind: Spectrum, seen: Any) -> dict[str, np.ndarray]:
  ranks = {'stable_rank': {}, 'effective_rank': {}}
  for path, factors in seen.matrices().items():
    w = factors[0] if len(factors) == 1 else factors[0] @ factors[1]
    s = np.linalg.svd(w, compute_uv=False)
    p = np.maximum(s / s.sum(-1, keepdims=True), 1e-300)
    norm = np.linalg.norm(w, axis=(-2, -1))
    ranks['stable_rank'][path] = norm**2 / s[..., 0] ** 2
    ranks['effective_rank'][path] = np.exp(-(p * np.log(p)).sum(-1))
  values = {}
  for name, of in ranks.items():
    values[name] = np.concatenate([np.ravel(x) for x in of.values()]).mean()
    values |= {f'{name}/{path}': x for path, x in of.items()}
  return values
