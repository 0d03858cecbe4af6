"""Activations that layers give away for measurements, where somebody asks for them."""

from collections.abc import Callable

import flax.linen as nn
import jax

SOWN = 'activations'  # a collection that is kept only where somebody asks for it


def sow_activation(module: nn.Module, y: jax.Array | Callable[[], jax.Array]) -> None:
  """Keeps the activation that is, or would be, pruned, if somebody asked for it.

  `y` may be a function that computes it, where the layer itself does not hold it.
  """
  if module.is_mutable_collection(SOWN) and not module.is_initializing():
    y = y() if callable(y) else y
    module.sow(SOWN, 'y', y.reshape(-1, y.shape[-1]), lambda _, new: new, lambda: None)
