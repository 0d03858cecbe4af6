"""Checksums of what a checkpoint holds: made from memory when it is saved, compared with
what is in memory again when it is restored.

TensorStore's zstd frames carry none, so most flipped bits in array data load silently.
CRC-32C finds every single flipped bit, and every change within 32 bits. google-crc32c
uses the instruction that processors have for it, four times as fast as zlib's CRC-32, which
takes up to a tenth of the time of a restore.

An array is summed in the pieces that its sharding gives to different devices, so that no
process needs more than it holds: {'params/head': {'0:32,0:257': 3632233996}, ...}. The
pieces do not tie it to those devices: under another sharding they are cut out anew.
"""

import concurrent.futures
import json
import os
from typing import Any

import google_crc32c
import jax
import numpy as np
from jax.experimental import multihost_utils

from elas_jax.common.paths import path_name

Sums = dict[str, dict[str, int]]


def of_json(value: Any) -> int:
  """The checksum of a JSON value, however it is laid out in a file."""
  text = json.dumps(value, sort_keys=True, allow_nan=False)
  return google_crc32c.value(text.encode())


def of_arrays(tree: Any) -> Sums:
  """The checksums of a tree of arrays, the same on every process; all must call it."""
  arrays = _named(tree)
  own = {
    (name, _piece(array, shard.index)): shard.data
    for name, array in arrays.items()
    for shard in array.addressable_shards
    if shard.replica_id == 0
  }
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    sums = dict(zip(own, threads.map(_of_array, own.values())))
  pieces = [(name, piece) for name, array in arrays.items() for piece in _pieces(array)]
  if jax.process_count() > 1:  # each piece has its sum on one process, 0 on the others
    ours = np.array([sums.get(piece, 0) for piece in pieces], np.uint32)
    gathered = multihost_utils.process_allgather(ours)
    sums = dict(zip(pieces, gathered.sum(axis=0, dtype=np.uint64).tolist()))
  found = {name: {} for name in arrays}
  for name, piece in pieces:
    found[name][piece] = sums[name, piece]
  return found


def differing(tree: Any, sums: Sums) -> list[str]:
  """The names of arrays of `tree` that are not those of `sums`; all processes call it.

  The tree may be a part of what was summed, and on other devices.
  """
  arrays = _named(tree)
  known = {name: array for name, array in arrays.items() if name in sums}
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    # One thread where processes exchange arrays: they must do it in the same order.
    several = jax.process_count() > 1
    apply = map if several else threads.map
    equal = list(apply(_is_equal, known.values(), (sums[name] for name in known)))
  if several:
    equal = multihost_utils.process_allgather(np.array(equal)).all(axis=0).tolist()
  bad = {name for name, good in zip(known, equal) if not good}
  return [name for name in arrays if name in bad or name not in known]


def _is_equal(array: jax.Array, sums: dict[str, int]) -> bool:
  """Whether the pieces that this process can see are those that were summed."""
  own = {_piece(array, shard.index): shard.data for shard in array.addressable_shards}
  if sums.keys() == _pieces(array).keys():
    return all(_of_array(own[piece]) == sums[piece] for piece in own)
  if array.is_fully_addressable:
    whole = np.asarray(array)
  else:
    whole = multihost_utils.process_allgather(array, tiled=True)
  try:
    return all(_of_array(whole[_index(piece)]) == sums[piece] for piece in sums)
  except (ValueError, IndexError):  # no piece of this array
    return False


def _of_array(array: Any) -> int:
  return google_crc32c.value(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _named(tree: Any) -> dict[str, jax.Array]:
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _pieces(array: jax.Array) -> dict[str, None]:
  """The different pieces of an array over all devices, in an order that all agree on."""
  indices = array.sharding.devices_indices_map(array.shape).values()
  return dict.fromkeys(sorted(_piece(array, index) for index in indices))


def _piece(array: jax.Array, index: tuple[slice, ...]) -> str:
  """'0:16,0:257' for rows 0 to 16 of all columns; '' for a scalar."""
  bounds = (axis.indices(size)[:2] for axis, size in zip(index, array.shape))
  return ','.join(f'{start}:{stop}' for start, stop in bounds)


def _index(piece: str) -> tuple[slice, ...]:
  return tuple(slice(*map(int, axis.split(':'))) for axis in piece.split(',') if axis)
