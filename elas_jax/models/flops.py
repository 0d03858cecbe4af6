"""FLOPs of models: the only place where they are counted.

In the convention of PaLM (arXiv 2204.02311, appendix B): forward and backward take 6 for
every entry of a matrix that multiplies activations, each time that it does, and what mixers
and other kinds say of themselves. Recomputation under remat does not count, nor does 2:4
lower it: this is what the model needs, not what the hardware does.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

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
    each = _of_one(owner, linear_map, found)
    total += each * (model.stack.repeats * _rows(model) if layout.stacked(prefix) else 1)
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
  cycle = sum(layer.attention.flops(parts, length) for layer in stack.cycle)
  return stack.repeats * _rows(model) * cycle


def _rows(model: Any) -> int:
  """Positions of an image that pass the layers; a decoder's are counted one by one."""
  return max(model.stack.parts.length, 1)


@functools.cache
def compiled_flops(module: Any, inputs: tuple[int, ...]) -> float:
  """What the compiler counts of one forward pass: bases of KANs and norms as well.

  It counts tanh and the like as none. `inputs` is the shape of the module's input.
  """
  x = jnp.zeros(inputs)
  variables = jax.eval_shape(module.init, jax.random.key(0), x)
  return jax.jit(module.apply).lower(variables, x).cost_analysis()['flops']
