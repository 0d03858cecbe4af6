"""What all systems share: sections that name their kind, and what surrounds a part.

A section of a config is one of several kinds, frozen dataclasses of a dict:
`model.linear` is a value of LINEARS, stored as {'kind': 'lora', 'rank': 8, ...}. Everything
else about a kind stands in its own file, as attributes of that module (`room`).
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from elas_jax.common.errors import UserError

# Nothing of JAX here: the processes that prepare data import this.

Kinds = Mapping[str, type]
# Parameter path below its module -> what each of its dimensions is: 'in' and 'out', the
# inputs and outputs of a linear map, 'rank', the side between two factors, or None.
Axes = dict[str, tuple[str | None, ...]]


def section(kinds: Kinds, default: str, **fields: Any) -> Any:
  """A config field whose value is one of `kinds`, by default of that name and fields."""
  return dataclasses.field(
    default_factory=lambda: kinds[default](**fields), metadata={'kinds': kinds}
  )


def several(kinds: Kinds, *default: str) -> Any:
  """A config field whose value are some of `kinds`, each at most once, in their order.

  In a tree {name: fields}; on a command line their names, joined by commas.
  """
  return dataclasses.field(
    default_factory=lambda: tuple(kinds[name]() for name in kinds if name in default),
    metadata={'several': kinds},
  )


def phase(default: int | float) -> Any:
  """A config field of so many steps, or, between 0 and 1, of that share of train.steps.

  A run that is continued with more steps may have another value in it.
  """
  return dataclasses.field(default=default, metadata={'phase': True})


def starts(resolve: Callable[..., str], default: str = '') -> Any:
  """A config field of text in which numbers of steps stand, as in those of `phase`.

  `resolve` (text, where, steps_of, steps) -> the text with steps instead of shares:
  steps_of(number) is what a field of `phase` has for it, of `steps` in all.
  """
  metadata = {'phase': True, 'resolve': resolve}
  return dataclasses.field(default=default, metadata=metadata)


def place(default: str = '') -> Any:
  """A config field that names a file or a folder, of which the content counts."""
  return dataclasses.field(default=default, metadata={'place': True})


def free(default: Any) -> Any:
  """A config field on which no number depends beyond rounding: it may always change."""
  return dataclasses.field(default=default, metadata={'free': True})


def kinds_of(field: dataclasses.Field) -> Kinds | None:
  """Of a field made by `section`, else None."""
  return field.metadata.get('kinds')


def several_of(field: dataclasses.Field) -> Kinds | None:
  """Of a field made by `several`, else None."""
  return field.metadata.get('several')


def is_phase(field: dataclasses.Field) -> bool:
  return field.metadata.get('phase', False)


def resolve_of(field: dataclasses.Field) -> Callable[..., str] | None:
  """Of a field made by `starts`, else None."""
  return field.metadata.get('resolve')


def is_place(field: dataclasses.Field) -> bool:
  return field.metadata.get('place', False)


def is_free(field: dataclasses.Field) -> bool:
  return field.metadata.get('free', False)


def name_of(kinds: Kinds, value: Any) -> str:
  """The name by which a config asks for a value's kind."""
  return next(name for name, kind in kinds.items() if type(value) is kind)


@dataclasses.dataclass(frozen=True)
class Instead:
  """Of a field made by `several`: a kind that stands for one of another name."""

  of: Any
  now: Any


def instead(one: Any, now: Any) -> Any:
  """`now` under the name of `one`, which may stand for another itself."""
  of = one.of if isinstance(one, Instead) else one
  return now if type(of) is type(now) else Instead(of, now)


def by_name(kinds: Kinds, values: Any) -> dict[str, Any]:
  """Name -> kind, of the value of a field made by `several`."""
  found = {}
  for value in values:
    named, now = (value.of, value.now) if isinstance(value, Instead) else (value, value)
    found[name_of(kinds, named)] = now
  return found


def room(kind: Any) -> Any:
  """The module with everything about a kind: AXES, CASES, truth, ..."""
  return sys.modules[(kind if isinstance(kind, type) else type(kind)).__module__]


def about(kind: Any, name: str, *arguments: Any, default: Any = None) -> Any:
  """What a kind answers to the question `name`, or `default` if it does not know it."""
  answer = getattr(kind, name, None)
  return default if answer is None else answer(*arguments)


def kernels(linear: Any) -> int:
  """How many kernels a linear map is the plain product of; 0 if it is none."""
  return about(linear, 'kernels', default=0)


def factors(linear: Any) -> bool:
  """Whether a linear map is W = A B, with the trained factors 'a' and 'b' and no more."""
  return about(linear, 'factors', default=False)


def axes(kind: Any) -> Axes:
  """Dimensions of every parameter and buffer of a kind's module, by path below it."""
  return _declared(kind, 'AXES', {})


def no_decay(kind: Any) -> tuple[str, ...]:
  """The paths of those parameters that weight decay leaves alone."""
  return _declared(kind, 'NO_DECAY', ())


def matrices(kind: Any) -> tuple[str, ...]:
  """The paths of those parameters that multiply activations."""
  return _declared(kind, 'MATRICES', ())


def _declared(kind: Any, name: str, default: Any) -> Any:
  """What a kind's room has under a name, which may be a function of the kind."""
  found = getattr(room(kind), name, default)
  return found(kind) if callable(found) else found


def flops(kind: Any, shapes: dict[str, tuple[int, ...]]) -> float:
  """FLOPs of forward and backward for one row, from the parameters' shapes by path.

  6 for every entry of the parameters that the module names as MATRICES, since each
  multiplies and adds once forward and twice backward; or what the kind itself says.
  """
  if hasattr(kind, 'flops'):
    return kind.flops(shapes)
  names = matrices(kind)
  if absent := [name for name in names if name not in shapes]:
    raise UserError(
      f'{room(kind).__name__}: MATRICES has {absent[0]!r}; must be of its parameters, '
      f'{", ".join(map(repr, shapes))}'
    )
  return 6.0 * sum(math.prod(shapes[name]) for name in names)


@dataclasses.dataclass(frozen=True)
class Parts:
  """What the parts of a network share.

  Attributes:
    width: D.
    hidden: F, the width of feed-forwards.
    linear, norm, position: kinds of LINEARS, NORMS and POSITIONS.
    init_std: of a plain kernel's start; None: by its fan-in, as `init` says.
    init: 'lecun', uniform within 1 / sqrt(I), 'lecun_normal', truncated normal of variance
      1 / I, or 'he', normal of variance 2 / I.
    use_bias: whether linear maps have a bias.
    param_dtype, compute_dtype: 'float32' or 'bfloat16'.
    causal: whether a position sees only itself and those before it.
    length: positions of a row, 0 where any number may be.
    opening: whether the linear map is the first of a feed-forward's two.
    nested: whether KANs and quadratic maps are modules inside of the linear map's own, as
      the paths of a decoder's parameters have it.
    skip_zeros: whether the last map of a feed-forward reads only the rows whose activation
      is not zero: in decoding, of one token.
    train: whether the pass trains, so that dropout draws.
  """

  width: int
  hidden: int
  linear: Any
  norm: Any
  position: Any = None
  init_std: float | None = None
  init: str = 'lecun'
  use_bias: bool = False
  param_dtype: str = 'float32'
  compute_dtype: str = 'float32'
  causal: bool = True
  length: int = 0
  opening: bool = False
  nested: bool = False
  skip_zeros: bool = False
  train: bool = False


@dataclasses.dataclass(frozen=True)
class Map:
  """A linear map inside of a mixer or a feed-forward.

  Attributes:
    inputs, outputs: I, O.
    split: the side that the mesh axis `tensor` splits, 'in' or 'out'; fsdp the other.
    times: rows that pass it for one token, or one example: positions of an image.
  """

  inputs: int
  outputs: int
  split: str
  times: int = 1


@dataclasses.dataclass(frozen=True)
class Training:
  """What an optimiser is built from.

  Attributes:
    schedule: step from 0 -> learning rate.
    params: the parameters, abstract.
    decay: weight decay -> its transformations, one for each factor of the parameters.
    extra: the transformations that the linear maps put between the directions and the
      learning rate.
  """

  schedule: Callable[[Any], Any]
  params: Any
  decay: Callable[[float], list[Any]]
  extra: tuple[Any, ...] = ()

  def descend(self, directions: Any, weight_decay: float, decay_first: bool = False) -> Any:
    """directions, weight decay (or the reverse), extra, times -learning rate."""
    import optax

    steps = [directions, *self.decay(weight_decay)]
    if decay_first:
      steps.reverse()
    return optax.chain(*steps, *self.extra, optax.scale_by_learning_rate(self.schedule))
