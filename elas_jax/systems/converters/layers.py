"""Whole layers out of a residual network, by SNIP or GraSP at its start (2301.10835).

The importance of a layer is a sum over its parameters w, with the gradient g of the loss on
rows of the train split and its Hessian H,

  snip    |w g|      (arXiv 1810.02340)
  grasp   w (H g)    (arXiv 2002.07376): to first order, without the layer |g|^2, from which
                     training lives, falls by twice this sum

and the `remove` layers of least importance go, the paper's density p. The others keep their
order. With `rewind` importances are those of the parameters that the run began with, and
what is left is set to these, to be trained anew: a ticket at initialisation, which needs no
more of the run than its first step. Without it both are those of the run.

Layers are those of a decoder, or in a pattern its cycles, those of a vit, or the blocks of
a resnet. A resnet has the same number in each of its stages, so there `remove` go in each;
the blocks that halve the image have no shortcut of their own width, and stay. The paper
compares blocks of all stages with each other. How it makes one number of the weights of a
layer it does not say, and its code is announced only: the sum, and over biases and norms as
well, is ours.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.architectures.resnet import STAGES, ResNet
from elas_jax.systems.converters.common import Given, with_model
from elas_jax.systems.kinds import name_of


@dataclasses.dataclass(frozen=True)
class Layers:
  remove: int = 1  # layers; published: 1 to 5 blocks of ResNet32, to 12 of ResNet56
  criterion: Literal['grasp', 'snip'] = 'grasp'  # of importance
  rewind: bool = True  # look at the parameters of the start, and set what is left to them
  units: int = 4096  # tokens or examples of the train split, about; ours

  equal: ClassVar[bool] = False

  def check(self, where: str, config: Any) -> None:
    at_least(1, where, self, 'remove units')
    model = config.model
    if not model.stack and not isinstance(model.architecture, ResNet):
      name = name_of(ARCHITECTURES, model.architecture)
      raise UserError(
        f"model.architecture={name!r}: must be 'resnet' or 'vit', whose layers have "
        'shortcuts'
      )
    field, count = _depth(config)
    cycle = len(model.stack.cycle) if model.stack else 1
    if self.remove % cycle:
      raise UserError(
        f'{where}.remove={self.remove}: must be a multiple of {cycle}, the layers of '
        'model.pattern'
      )
    if self.remove >= count:
      raise UserError(f'{where}.remove={self.remove}: must be below model.{field}={count}')

  def convert(self, given: Given) -> tuple[Any, dict[str, Any]]:
    variables = _begun(given) if self.rewind else given.variables
    importance = self._importance(given, variables)
    field, count = _depth(given.config)
    config = with_model(given.config, **{field: count - self.remove})
    change = _of_stack if given.config.model.stack else _of_blocks
    flat = {part: flatten_dict(x, sep='/') for part, x in variables.items()}
    new = change(given, importance, flat, self.remove)
    return config, {part: unflatten_dict(x, sep='/') for part, x in new.items()}

  def _importance(self, given: Given, variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """Of every parameter, by path."""
    rows, params = given.rows(self.units), variables['params']
    slopes = given.slopes(given.config, variables, rows)
    if self.criterion == 'grasp':
      slopes = given.slopes(given.config, variables, rows, slopes)
    of = np.abs if self.criterion == 'snip' else np.asarray
    product = lambda w, slope: of(np.float64(w) * np.float64(slope))
    return flatten_dict(jax.tree.map(product, params, slopes), sep='/')


def _depth(config: Any) -> tuple[str, int]:
  """The field of the model with the number of its layers, and that."""
  field = 'layers' if hasattr(config.model, 'layers') else 'depth'
  return field, getattr(config.model, field)


def _begun(given: Given) -> dict[str, Any]:
  """What the run began with; the masks of masked maps stay."""
  start = given.start()
  fresh, now = (flatten_dict(x['buffers'], sep='/') for x in (start, given.variables))
  masks = {path: x for path, x in now.items() if path.endswith('/mask')}
  return start | {'buffers': unflatten_dict(fresh | masks, sep='/')}


def _kept(
  given: Given, names: list[str], importance: np.ndarray, remove: int
) -> np.ndarray:
  """The indices that stay, in their order; says which do."""
  gone = set(np.argsort(importance, kind='stable')[:remove])
  marks = [
    f'{name} {x:.3g}{" goes" if n in gone else ""}'
    for n, (name, x) in enumerate(zip(names, importance))
  ]
  given.say(f'importance: {", ".join(marks)}')
  return np.array([n for n in range(len(importance)) if n not in gone])


def _of_stack(given: Given, importance: dict, flat: dict, remove: int) -> dict:
  """Of stacked layers, or cycles of them: rows of the first axis."""
  stack = given.config.model.stack
  inside = lambda path: path.removeprefix('network/').startswith('layers/')
  each = [x.reshape(len(x), -1).sum(1) for path, x in importance.items() if inside(path)]
  cycle = len(stack.cycle)
  names = [
    f'layers {n * cycle} to {n * cycle + cycle - 1}' if cycle > 1 else f'layer {n}'
    for n in range(stack.repeats)
  ]
  kept = _kept(given, names, np.sum(each, 0), remove // cycle)
  return {
    part: {path: x[kept] if inside(path) else x for path, x in arrays.items()}
    for part, arrays in flat.items()
  }


def _of_blocks(given: Given, importance: dict, flat: dict, remove: int) -> dict:
  """Of a resnet: blocks of each stage, which then are numbered anew."""
  now = {}  # (stage, block) -> the new number of the block
  for stage in range(STAGES):
    first = min(stage, 1)
    blocks = list(range(first, given.config.model.depth))
    sums = [
      sum(x.sum() for path, x in importance.items() if _block(path) == (stage, block))
      for block in blocks
    ]
    names = [f'block {block} of stage {stage}' for block in blocks]
    kept = [
      *range(first),
      *(blocks[n] for n in _kept(given, names, np.array(sums), remove)),
    ]
    now |= {(stage, block): number for number, block in enumerate(kept)}
  new = {part: {} for part in flat}
  for part, arrays in flat.items():
    for path, x in arrays.items():
      if (found := _block(path)) is None:
        new[part][path] = x
      elif found in now:
        network, name, below = path.split('/', 2)
        name = f'{name.rpartition("_")[0]}_{now[found]}'
        new[part][f'{network}/{name}/{below}'] = x
  return new


def _block(path: str) -> tuple[int, int] | None:
  """(stage, block) of 'network/norm_first_0_1/scale'; None of what is in none."""
  parts = path.split('/')[1].split('_')
  return (int(parts[-2]), int(parts[-1])) if parts[-1].isdigit() else None


CASES = (Layers(criterion='snip', rewind=False), Layers())
# No truth: importances and what is left are NumPy's in tests/systems/converters.
