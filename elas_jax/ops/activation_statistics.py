"""What pruning to 2:4 does to activations: shares, dropped mass, kept entries."""

import jax
import jax.numpy as jnp

from pallas_kernels.two_four.rules import largest_two


def activation_statistics(y_NxTxF: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
  """Of each layer's activations before pruning, and which entries top2 keeps.

  Returns (statistics, kept (N, T, F)), the statistics being
    zero_fraction: share of entries that are zero before pruning,
    dropped_mass: sum of what top2 drops over the sum of all, of magnitudes,
    crowded_groups: share of groups of four with more than two entries not zero.
  `kept` holds the entries that are kept and not zero.
  """
  y = jnp.abs(y_NxTxF.astype(jnp.float32))
  groups = y.reshape(*y.shape[:-1], -1, 4)
  kept = jnp.where(largest_two(groups), groups, 0)
  total = groups.sum(axis=(1, 2, 3))
  values = {
    'zero_fraction': (y == 0).mean(axis=(1, 2)),
    'dropped_mass': 1 - kept.sum(axis=(1, 2, 3)) / jnp.where(total > 0, total, 1),
    'crowded_groups': ((groups > 0).sum(axis=-1) > 2).mean(axis=(1, 2)),
  }
  values['dropped_mass'] = jnp.where(total > 0, values['dropped_mass'], 0.0)
  return values, (kept > 0).reshape(y.shape)
