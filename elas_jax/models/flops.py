"""Model FLOPs, the only place where they are counted.

In the convention of PaLM (arXiv 2204.02311, appendix B): forward and backward take 6 for
every entry of a matrix that multiplies activations, each time that it does, and what mixers
and other kinds say of themselves. Recomputation under remat does not count, nor does 2:4
lower it: this is what the model needs, not what the hardware does.
"""

import math
from typing import Any

from elas_jax.models import layout
from elas_jax.systems import kinds
from elas_jax.systems.kinds import Map


def flops(model: Any, params: Any, length: int) -> float:
  """Of forward and backward for one token of a decoder, or one row of another network.

  Args:
    params: the parameters, of which the shapes count.
    length: L, the positions that a mixer looks at.
  """
  shapes: dict[str, dict[str, tuple[int, ...]]] = {}
  table = layout.owners(model)
  for path, leaf in layout.leaves(params).items():
    prefix, _, below, _ = layout.owned(table, path)
    shape = leaf.shape[1:] if layout.stacked(prefix) else leaf.shape
    shapes.setdefault(prefix, {})[below] = shape
  total = _of_mixers(model, length)
  mixers = [layer.attention for layer in model.stack.cycle] if model.stack else []
  for prefix, found in shapes.items():
    owner, linear_map = table[prefix]
    if any(owner is mixer for mixer in mixers):
      continue  # its own are in what it says of itself
    repeats = model.stack.repeats if layout.stacked(prefix) else 1
    total += repeats * _of_one(owner, linear_map, found)
  return total


def _of_one(
  owner: Any, linear_map: Map | None, shapes: dict[str, tuple[int, ...]]
) -> float:
  """Of a module: those of its kind, or of a plain layer, as often as rows pass it."""
  times = linear_map.times if linear_map else 1
  if isinstance(owner, dict):
    matrices = [shape for shape in shapes.values() if len(shape) > 1] if linear_map else []
    return times * 6.0 * sum(map(math.prod, matrices))
  return times * kinds.flops(owner, shapes)


def _of_mixers(model: Any, length: int) -> float:
  if not model.stack:
    return 0.0
  stack, parts = model.stack, model.stack.attention_parts
  rows = max(parts.length, 1)  # of an image; a decoder's are counted one by one
  cycle = sum(layer.attention.flops(parts, length) for layer in stack.cycle)
  return stack.repeats * rows * cycle
