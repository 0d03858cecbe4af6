"""What pruning to 2:4 does, or would do, to squared-ReLU activations (arXiv 2605.03667).

Of each feed-forward's y >= 0 (T, F) before pruning, over the valid tokens:

  zero_fraction               share of entries that are zero
  dropped_mass                sum of what top2 drops over the sum of all
  dropped_mass_transposable   the same of what is 2:4 along tokens as well
  crowded_groups              share of groups of four with more than two entries not zero
  flip_rate                   in the step after an evaluation: share of entries that top2
                              keeps after only one of the two steps, the flip rate of 2:4
                              pre-training (arXiv 2404.01847), of activations
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from elas_jax.ops.activation_statistics import activation_statistics
from elas_jax.systems.kinds import about
from elas_jax.systems.sown import by_depth


@dataclasses.dataclass(frozen=True)
class Activations:
  sown: ClassVar[tuple[str, ...]] = ('activation',)
  title: ClassVar[str] = 'Squared-ReLU activations, mean over layers'
  shown: ClassVar[dict[str, str]] = {
    'zero_fraction': 'zeros {:.1%}',
    'dropped_mass': 'dropped by 2:4 {:.2%}',
    'crowded_groups': 'crowded groups {:.2%}',
    'flip_rate': '2:4 flips {:.2%}',
  }

  def lacking(self, config: Any) -> str:
    stack = config.model.stack
    kinds = [layer.feed_forward for layer in stack.cycle] if stack else []
    if not kinds or not all(about(kind, 'probed', default=False) for kind in kinds):
      return 'not every layer of the model has a feed-forward with a squared ReLU'
    name, width = config.model.hidden
    return f'{name}={width} is no multiple of 4' if width % 4 else ''

  def measure(self, seen: Any) -> dict[str, jax.Array]:
    return self._statistics(seen)[0]

  def kept(self, seen: Any) -> jax.Array:
    """(N, T, F): whether top2 keeps the entry, and it is not zero."""
    return self._statistics(seen)[1]

  def change(self, before: jax.Array, now: jax.Array, seen: Any) -> dict[str, jax.Array]:
    flipped = (before ^ now).sum(axis=(1, 2), dtype=jnp.float32)
    return {'flip_rate': flipped / (seen.count * now.shape[-1])}

  def _statistics(self, seen: Any) -> tuple[dict[str, jax.Array], jax.Array]:
    y_NxTxF = by_depth(seen.sown['activation'])
    valid_T = seen.weights_of(y_NxTxF.shape[1]) > 0
    return activation_statistics(y_NxTxF, valid_T)


CASES = (Activations(),)
