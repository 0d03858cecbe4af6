"""What pruning to 2:4 does to activations: shares, dropped mass, kept entries."""

import functools

import jax
import jax.numpy as jnp

from pallas_kernels.two_four import largest_two, transposable_mask


def activation_statistics(
  y_NxTxF: jax.Array, valid_T: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
  """Of each layer's activations before pruning, and which entries top2 keeps.

  Only tokens where `valid_T` holds count.

  Returns (statistics, kept (N, T, F)), the statistics being
    zero_fraction: share of entries that are zero before pruning,
    dropped_mass: sum of what top2 drops over the sum of all, of magnitudes,
    dropped_mass_transposable: the same of what is 2:4 along tokens as well,
    crowded_groups: share of groups of four with more than two entries not zero.
  `kept` holds the entries that are kept and not zero.
  """
  statistics_of_layer = functools.partial(_layer, valid_T)
  return jax.lax.map(statistics_of_layer, y_NxTxF)  # one by one, for their memory


def _layer(valid_T, y_TxF):
  T, F = y_TxF.shape
  y_TxF = jnp.where(valid_T[:, None], jnp.abs(y_TxF.astype(jnp.float32)), 0)
  entries = jnp.maximum(valid_T.sum() * F, 1).astype(jnp.float32)
  groups = y_TxF.reshape(T, F // 4, 4)
  kept = jnp.where(largest_two(groups), groups, 0)
  padded = jnp.pad(kept.reshape(T, F), ((0, -T % 4), (0, 0)))
  both = jnp.where(transposable_mask(padded), padded, 0)
  total = y_TxF.sum()
  dropped = lambda rest: jnp.where(total > 0, 1 - rest.sum() / total, 0.0)
  values = {
    'zero_fraction': 1 - (y_TxF > 0).sum(dtype=jnp.float32) / entries,
    'dropped_mass': dropped(kept),
    'dropped_mass_transposable': dropped(both),
    'crowded_groups': 4 * ((groups > 0).sum(axis=-1) > 2).sum(dtype=jnp.float32) / entries,
  }
  return values, (kept > 0).reshape(T, F)
