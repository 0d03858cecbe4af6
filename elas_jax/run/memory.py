"""What a run surely needs of a device's memory, against what there is, before compiling.

Lower bounds: what is refused cannot run, what is not may still not fit.
"""

import functools
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from elas_jax.common.memory import tree_bytes
from elas_jax.config.config import Config
from elas_jax.models import layout
from elas_jax.systems.kinds import about


def output_bytes(config: Config, mesh: Mesh, rows: int) -> int:
  """The float32 logits, or values, of so many rows of all devices on one of them."""
  positions, outputs = config.model.row_outputs(config)
  entries = -(-outputs // mesh.shape['tensor'])
  return 4 * rows_of_device(mesh, rows) * positions * entries


def kept_bytes(config: Config, mesh: Mesh, rows: int) -> int:
  """What the backward pass of so many rows surely needs of the forward pass.

  The row itself, if it is one of numbers, and the inputs of all layers, whatever
  model.remat is.
  """
  row, layers = config.model.row_kept(config)
  size = jnp.dtype(config.model.parts.compute_dtype).itemsize
  kept = 4 * row + size * -(-layers // mesh.shape['tensor'])
  return rows_of_device(mesh, rows) * kept


def rows_of_device(mesh: Mesh, rows: int) -> int:
  return -(-rows // (mesh.shape['data'] * mesh.shape['fsdp']))


def training_bytes(config: Config, mesh: Mesh, state: Any) -> dict[str, int]:
  """What training holds at once on one device, at least, by what it is for.

  `state` is the abstract one. Beside it there are, one after the other: what is kept of the
  forward pass with the outputs; the same with the gradients of the scanned layers; and,
  where their norm is needed first, all gradients. Those of micro-batches are summed in
  float32 all the while.
  """
  rows = config.data.batch_size // config.train.accumulation
  kept, outputs = kept_bytes(config, mesh, rows), output_bytes(config, mesh, rows)
  table, trained = layout.owners(config.model), []
  for name, leaf in layout.leaves(state.params).items():
    _, owner, below, _ = layout.owned(table, name)
    if below not in about(owner, 'frozen', default=()):
      trained.append((name, leaf))
  layers = [leaf for name, leaf in trained if layout.stacked(name)]
  moments = [kept + outputs, kept + tree_bytes(layers)]
  summed = 0
  if config.train.accumulation > 1:
    size = jnp.dtype(jnp.float32).itemsize
    summed = sum(tree_bytes(leaf) // leaf.dtype.itemsize * size for _, leaf in trained)
  elif config.optimizer.clip_norm:
    moments.append(tree_bytes([leaf for _, leaf in trained]))
  return {
    'parameters': tree_bytes((state.params, state.buffers)),
    'optimiser': tree_bytes(state.opt_state),
    'gradients and activations': summed + max(moments),
  }


def sizes(config: Config) -> str:
  """The fields that memory depends on most, with their values."""
  fields = ('model.width', 'data.batch_size', 'train.accumulation', *config.model.sizes)
  value = lambda field: functools.reduce(getattr, field.split('.'), config)
  return ', '.join(f'{field}={value(field)}' for field in fields)
