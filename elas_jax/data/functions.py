"""Functions to fit and shapes to tell apart, drawn from a seed.

Inputs are uniform in the cube of a function; targets of the train split may have noise,
those of the validation split have none.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import special

from elas_jax.common.errors import UserError
from elas_jax.common.memory import host_memory, shown_bytes

VALIDATION_SEED = 1 << 40  # apart from every seed that a config may have


@dataclasses.dataclass(frozen=True)
class Function:
  """f: (n, inputs) -> (n,), on [low, high]^inputs."""

  inputs: int
  formula: Callable[[np.ndarray], np.ndarray]
  low: float = -1.0
  high: float = 1.0


def _sine_of_squares(x: np.ndarray) -> np.ndarray:
  s = np.sin(np.pi * np.square(x)[:, :2].sum(1)) + np.sin(
    np.pi * np.square(x)[:, 2:].sum(1)
  )
  return np.exp(s / 2)


# The first five are the examples of KAN (arXiv 2404.19756), section 3.1; the others are
# common tests of interpolation.
FUNCTIONS = {
  'bessel': Function(1, lambda x: special.j0(20 * x[:, 0]), low=0.0),
  'exp_sin_square': Function(
    2, lambda x: np.exp(np.sin(np.pi * x[:, 0]) + np.square(x[:, 1]))
  ),
  'product': Function(2, lambda x: x[:, 0] * x[:, 1]),
  'mean_of_sines': Function(
    100, lambda x: np.exp(np.square(np.sin(np.pi * x / 2)).mean(1))
  ),
  'sine_of_squares': Function(4, _sine_of_squares),
  'runge': Function(1, lambda x: 1 / (1 + 25 * np.square(x[:, 0]))),
  'step': Function(1, lambda x: np.sign(x[:, 0])),
}


def _two_spirals(generator: np.random.Generator, count: int):
  """Two spirals of 1.5 turns each, one the other turned by half a turn."""
  label = np.arange(count) % 2
  angle = np.pi * np.sqrt(generator.uniform(0.02, 1, count)) * 3
  radius = angle / (3 * np.pi)
  turned = angle + np.pi * label
  points = np.stack([radius * np.cos(turned), radius * np.sin(turned)], axis=1)
  return points, label


def _rings(generator: np.random.Generator, count: int):
  """A disk in a ring: one quadratic neuron tells them apart, no linear one does."""
  label = np.arange(count) % 2
  radius = np.where(
    label, generator.uniform(0.7, 1, count), generator.uniform(0, 0.5, count)
  )
  angle = generator.uniform(0, 2 * np.pi, count)
  return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), label


SHAPES = {'two_spirals': _two_spirals, 'rings': _rings}


@dataclasses.dataclass(frozen=True)
class Points:
  """What is drawn.

  Attributes:
    name: of FUNCTIONS or SHAPES.
    examples: points of both splits together.
    noise: its standard deviation, of the train split.
    draw_seed: of the points.
    validation_share: of the points.
  """

  name: str
  examples: int
  noise: float
  draw_seed: int
  validation_share: float


def draw(points: Points):
  """(train, validation) of a function, each (inputs (n, I), targets (n, 1)), float32."""
  function, splits = FUNCTIONS[points.name], []
  _check_memory(points.examples, function.inputs)
  for seed, count, noise in _splits(points):
    generator = np.random.default_rng(seed)
    x = generator.uniform(function.low, function.high, (count, function.inputs))
    y = function.formula(x) + noise * generator.normal(size=count)
    splits.append((x.astype(np.float32), y.astype(np.float32)[:, None]))
  return splits


def draw_classes(points: Points):
  """(train, validation) of a shape, each (points (n, 2) float32, classes (n,) int32)."""
  splits = []
  _check_memory(points.examples, 2)
  for seed, count, noise in _splits(points):
    generator = np.random.default_rng(seed)
    x, label = SHAPES[points.name](generator, count)
    x = x + noise * generator.normal(size=x.shape)
    splits.append((x.astype(np.float32), label.astype(np.int32)))
  return splits


def _check_memory(examples: int, inputs: int) -> None:
  # While they are drawn there are inputs and a target in float64 and inputs in float32.
  needed = examples * (12 * inputs + 8)
  if needed > (limit := host_memory()):
    raise UserError(
      f'data.source.examples={examples}: needs at least {shown_bytes(needed)} of memory, '
      f'of {shown_bytes(limit)}'
    )


def _splits(points: Points):
  """Seed, number of points and noise of each split."""
  held_out = round(points.examples * points.validation_share)
  return (
    (points.draw_seed, points.examples - held_out, points.noise),
    (points.draw_seed + VALIDATION_SEED, held_out, 0.0),
  )
