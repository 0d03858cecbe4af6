"""Small config sections for tests of kinds: a decoder, a classifier, and a config."""

import dataclasses
from typing import Any

from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import Parts
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.positions import POSITIONS


@dataclasses.dataclass(frozen=True)
class Model:
  """A decoder of the letters V = 61, D = 8, F = 16, N = 2."""

  linear: Any = LINEARS['low_rank'](rank=4)
  feed_forward: Any = FEED_FORWARDS['mlp']()
  attention: Any = MIXERS['mha'](heads=2)
  norm: Any = NORMS['rms']()
  position: Any = POSITIONS['rope']()
  vocab_size: int = 61
  width: int = 8
  layers: int = 2
  feed_forward_width: int = 16
  init_std: float = 0.02
  tied_head: bool = False
  unroll: int = 1
  remat: str = 'none'
  param_dtype: str = 'float32'
  compute_dtype: str = 'float32'

  @property
  def parts(self) -> Parts:
    return Parts(
      self.width,
      self.feed_forward_width,
      self.linear,
      self.norm,
      self.position,
      init_std=self.init_std,
      param_dtype=self.param_dtype,
      compute_dtype=self.compute_dtype,
      nested=True,
    )

  @property
  def widths(self) -> dict[str, int]:
    return {'model.width': self.width, 'model.feed_forward_width': self.feed_forward_width}

  input_widths = widths


@dataclasses.dataclass(frozen=True)
class Rows:
  """A classifier or regressor: images of 8 x 8 with one channel, three outputs."""

  architecture: Any = ARCHITECTURES['stack']()
  linear: Any = LINEARS['dense']()
  activation: Any = ACTIVATIONS['silu']()
  norm: Any = NORMS['none']()
  input_shape: tuple[int, ...] = (8, 8, 1)
  outputs: int = 3
  width: int = 8
  depth: int = 2
  use_bias: bool = True
  init: str = 'lecun'

  @property
  def parts(self) -> Parts:
    return Parts(
      self.width,
      4 * self.width,
      self.linear,
      self.norm,
      init=self.init,
      use_bias=self.use_bias,
    )

  @property
  def widths(self) -> dict[str, int]:
    return self.architecture.widths(self)

  @property
  def input_widths(self) -> dict[str, int]:
    return self.architecture.input_widths(self)


@dataclasses.dataclass(frozen=True)
class Data:
  sequence_length: int = 8
  batch_size: int = 4


@dataclasses.dataclass(frozen=True)
class Train:
  steps: int = 20
  accumulation: int = 1


@dataclasses.dataclass(frozen=True)
class Optimizer:
  learning_rate: float = 1e-3


@dataclasses.dataclass(frozen=True)
class Config:
  model: Any = Model()
  data: Data = Data()
  train: Train = Train()
  optimizer: Optimizer = Optimizer()
  task: str = 'language'
