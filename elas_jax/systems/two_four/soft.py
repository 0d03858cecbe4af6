"""What both soft rules share: the scale, a buffer of the feed-forward, and the cut."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Buffers of the feed-forward.
AXES = {'scale': (), 'passes': ()}


def scale(module: Any, every: int, estimate: Callable[[], jax.Array]) -> jax.Array:
  """The scale, estimated in training every so many micro-batches and then only read."""
  scale = module.variable('buffers', 'scale', jnp.ones, ())
  passes = module.variable('buffers', 'passes', jnp.zeros, (), jnp.int32)
  if module.is_mutable_collection('buffers') and not module.is_initializing():
    due = passes.value % every == 0
    scale.value = jax.lax.cond(due, estimate, lambda: scale.value)
    passes.value = passes.value + 1
  return scale.value


def prune(y: np.ndarray, p: dict) -> np.ndarray:
  """Scale sign(y) max(|y| - the second smallest of its four, 0)."""
  groups = np.abs(y).reshape(-1, 4)
  threshold = np.sort(groups, -1)[:, 1:2]
  return p['scale'] * np.sign(y) * np.maximum(groups - threshold, 0).reshape(y.shape)
