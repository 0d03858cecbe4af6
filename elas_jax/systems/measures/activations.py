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
import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.activation_statistics import activation_statistics
from elas_jax.systems.kinds import about


@dataclasses.dataclass(frozen=True)
class Activations:
  sown: ClassVar[tuple[str, ...]] = ('activation',)
  title: ClassVar[str] = 'Squared-ReLU activations'
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
    y_NxTxF = seen.layers('activation')
    valid_T = seen.weights_of(y_NxTxF.shape[1]) > 0
    return activation_statistics(y_NxTxF, valid_T)


CASES = (Activations(),)
NAMES = 'zero_fraction', 'dropped_mass', 'dropped_mass_transposable', 'crowded_groups'


def truth(kind: Activations, seen: Any) -> dict[str, np.ndarray]:
  pairs = [np.isin(range(4), pair) for pair in itertools.combinations(range(4), 2)]
  tiles = [np.array(rows) for rows in itertools.product(pairs, repeat=4)]
  tiles = np.array([tile for tile in tiles if (tile.sum(0) == 2).all()])  # 90 patterns
  values = {name: [] for name in NAMES}
  valid = seen.weights.reshape(-1) > 0
  for y_TxF in seen.layers('activation') * valid[None, :, None]:
    groups = y_TxF.reshape(len(valid), -1, 4)
    least = np.argsort(np.argsort(-groups, axis=-1, kind='stable'), axis=-1) > 1
    kept = np.pad(np.where(least, 0, groups), ((0, -len(valid) % 4), (0, 0), (0, 0)))
    sums = np.einsum('prc,trgc->tgp', tiles, kept.reshape(-1, 4, *kept.shape[1:]))
    entries = valid.sum() * y_TxF.shape[1]
    values['zero_fraction'].append(1 - (y_TxF > 0).sum() / entries)
    values['dropped_mass'].append(1 - kept.sum() / groups.sum())
    values['dropped_mass_transposable'].append(1 - sums.max(-1).sum() / groups.sum())
    values['crowded_groups'].append(4 * ((groups > 0).sum(-1) > 2).sum() / entries)
  return {name: np.array(x) for name, x in values.items()}
