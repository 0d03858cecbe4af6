"""What 2:4 does to the activations of a running training, measured at its evaluations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from elas_jax.config.config import Config, ModelConfig
from elas_jax.data.blocks import BlockSet
from elas_jax.data.pipeline import eval_batches
from elas_jax.models.decoder import Decoder
from elas_jax.ops.activation_statistics import activation_statistics
from elas_jax.run.evaluation import put_batch
from elas_jax.systems.feed_forwards.sown import SOWN
from elas_jax.systems.kinds import about

TOKENS = 2048  # of the probe batch, about


class ActivationProbe:
  """Statistics of one fixed validation batch, for layers with a squared ReLU.

  `measure` gives, for every layer and as their mean, activation_statistics of the
  activations before pruning. `flips` gives, after the step that follows, the share of
  entries that top2 keeps after only one of the two steps: the flip rate of 2:4
  pre-training (arXiv 2404.01847), of activations instead of weights.
  """

  def __init__(self, config: Config, validation: BlockSet, mesh: Mesh):
    self._config, self._validation, self._mesh = config, validation, mesh
    self._kept = self._step = None

  def measure(self, config: Config, step: int, variables: Any) -> dict[str, float]:
    model = config.model
    feed_forward = getattr(model, 'feed_forward', None)
    if not about(feed_forward, 'probed', default=False) or model.feed_forward_width % 4:
      return {}
    values, self._kept = _statistics(model, variables, self._batch)
    self._step = step
    return _by_layer(values)

  def due(self, step: int) -> bool:
    """Whether `measure` has looked at the step before."""
    return self._step is not None and step == self._step + 1

  def flips(self, config: Config, variables: Any) -> dict[str, float]:
    _, kept = _statistics(config.model, variables, self._batch)
    flipped = (kept ^ self._kept).sum(axis=(1, 2), dtype=jnp.float32)
    entries = self._batch['valid'].sum() * kept.shape[-1]
    self._kept = self._step = None
    return _by_layer({'flip_rate': flipped / jnp.maximum(entries, 1)})

  @functools.cached_property
  def _batch(self) -> dict[str, jax.Array]:
    ways = self._mesh.shape['data'] * self._mesh.shape['fsdp']
    rows = -(-TOKENS // self._config.data.sequence_length // ways) * ways
    batches = eval_batches(
      self._validation,
      batch_size=rows,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      max_tokens=TOKENS,
    )
    return put_batch(next(iter(batches)), self._mesh)


@functools.partial(jax.jit, static_argnames='model')
def _statistics(model: ModelConfig, variables: Any, batch: Any) -> tuple[dict, jax.Array]:
  _, kept = Decoder(model).apply(
    variables,
    batch['tokens'][:, :-1],
    rngs={'two_four': jax.random.key(0)},
    mutable=[SOWN],
  )
  (y_NxTxF,) = jax.tree.leaves(kept)
  L = batch['tokens'].shape[1] - 1
  valid_T = (jnp.arange(L)[None, :] < batch['valid'][:, None]).reshape(-1)
  return activation_statistics(y_NxTxF, valid_T)


def _by_layer(values: dict[str, jax.Array]) -> dict[str, float]:
  result = {}
  for name, value in jax.device_get(values).items():
    result[f'activations/{name}'] = float(jnp.mean(value))
    result |= {f'activations/{name}/{i}': float(x) for i, x in enumerate(value)}
  return result
