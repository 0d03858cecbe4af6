"""The section `model` of a config: a decoder, or a classifier, made of kinds of systems."""

import dataclasses
import functools
import math
from typing import Any, ClassVar, Literal

from elas_jax.ops.remat import REMAT_POLICIES
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import Map, Parts, about, by_name, section, several
from elas_jax.systems.layers import Layer, Stack
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.positions import POSITIONS

Dtype = Literal['float32', 'bfloat16']


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The decoder. Letters as in the README: V, D, N, F."""

  vocab_size: int = 257  # V, at least as large as the tokenizer's
  width: int = 192  # D
  layers: int = 4  # N
  feed_forward_width: int = 768  # F
  linear: Any = section(LINEARS, 'low_rank', rank=48)  # maps of the layers
  feed_forward: Any = section(FEED_FORWARDS, 'mlp')  # of each layer
  attention: Any = section(MIXERS, 'mha')  # what mixes positions in each layer
  # Layers that differ by depth: a cycle of names joined by commas, of `attention` or of one
  # of `mixers`, with '+' and one of `feed_forwards` where it is not `feed_forward`.
  # 'linear,linear,attention' comes again and again; '': all layers alike.
  pattern: str = ''
  mixers: Any = several(MIXERS)  # of the pattern, beside `attention`
  feed_forwards: Any = several(FEED_FORWARDS)  # of the pattern, beside `feed_forward`
  norm: Any = section(NORMS, 'rms')  # before both, and before the head
  position: Any = section(POSITIONS, 'rope')  # how attention is told positions
  init_std: float = 0.02  # of dense weights, and of head and embedding
  embedding_std: float = 0.0  # of the embedding's start, 0 = init_std
  tied_head: bool = False  # the head reuses the embedding
  unroll: int = 4  # layers the scan unrolls: 1 compiles one layer, N is fastest on a CPU
  remat: Literal[tuple(REMAT_POLICIES)] = 'none'  # what the backward pass keeps of a layer
  param_dtype: Dtype = 'float32'  # of what is trained; moments are float32
  compute_dtype: Dtype = 'float32'  # of activations and products

  sizes: ClassVar = (  # the fields that memory depends on most, beside the width
    *('model.layers', 'model.feed_forward_width', 'model.vocab_size'),
    'data.sequence_length',
  )

  def row_outputs(self, config: Any) -> tuple[int, int]:
    """(positions of a row, numbers of each that come out)."""
    return config.traits.sequences * config.length, self.vocab_size

  def row_kept(self, config: Any) -> tuple[int, int]:
    """(numbers of a row, those that layers surely keep of it for the backward pass)."""
    return 0, config.traits.sequences * config.length * self.layers * self.width

  @functools.cached_property
  def parts(self) -> Parts:
    return Parts(
      width=self.width,
      hidden=self.feed_forward_width,
      linear=self.linear,
      norm=self.norm,
      position=self.position,
      init_std=self.init_std,
      param_dtype=self.param_dtype,
      compute_dtype=self.compute_dtype,
      nested=True,
    )

  @property
  def plain_maps(self) -> bool:
    """That the linear maps are those of a decoder: no biases, no convolutions."""
    return True

  @functools.cached_property
  def cycle(self) -> tuple[Layer, ...]:
    """The layers of the pattern."""
    mixers = {'attention': self.attention, **by_name(MIXERS, self.mixers)}
    feed_forwards = {'': self.feed_forward, **by_name(FEED_FORWARDS, self.feed_forwards)}
    found = []
    for name in self.pattern.split(',') if self.pattern else ['attention']:
      mixer, _, feed_forward = name.partition('+')
      found.append(Layer(mixers[mixer], feed_forwards[feed_forward]))
    return tuple(found)

  @functools.cached_property
  def stack(self) -> Stack:
    return Stack(self.cycle, self.layers, self.parts, remat=self.remat, unroll=self.unroll)

  @property
  def maps(self) -> dict[str, Map]:
    """The linear maps of one cycle of layers."""
    return self.stack.maps()

  @property
  def hidden(self) -> tuple[str, int]:
    """The name and the size of the width between the maps of a feed-forward."""
    return 'model.feed_forward_width', self.feed_forward_width

  @property
  def widths(self) -> dict[str, int]:
    """What the rank of a map may not exceed."""
    names = ('width', 'feed_forward_width')
    return {f'model.{name}': getattr(self, name) for name in names}

  @property
  def input_widths(self) -> dict[str, int]:
    """What linear maps read."""
    return self.widths

  @property
  def map_widths(self) -> dict[str, int]:
    """The smaller side of each linear map of a layer."""
    return {name: min(one.inputs, one.outputs) for name, one in self.maps.items()}


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """A classifier, or a network of values (models/classifier.py). Letters: D, C."""

  architecture: Any = section(ARCHITECTURES, 'stack')  # how layers follow one another
  input_shape: tuple[int, ...] = (8, 8, 1)  # of a row: (I,), or (H, W, C) of images
  outputs: int = 10  # classes C, or values
  width: int = 64  # D
  depth: int = 1  # hidden layers; blocks of a vit; blocks in each of a resnet's stages
  linear: Any = section(LINEARS, 'dense')  # the layers
  # Between layers; KANs need none, and feed-forwards have their own.
  activation: Any = section(ACTIVATIONS, 'none')
  norm: Any = section(NORMS, 'none')  # of each layer
  use_bias: bool = False  # of linear maps
  # Of dense kernels: uniform within 1 / sqrt(I), or normal of variance 1 / I (SELU's), or
  # 2 / I; attention of a vit starts with variance 1 / I.
  init: Literal['lecun', 'lecun_normal', 'he'] = 'lecun'
  label_smoothing: float = 0.0  # share of a class that goes to all
  param_dtype: Dtype = 'float32'  # of layers; plain first and last ones are float32

  sizes: ClassVar = ('model.depth', 'model.input_shape', 'model.outputs')

  def row_outputs(self, config: Any) -> tuple[int, int]:
    """(positions of a row, numbers of each that come out)."""
    return 1, self.outputs

  def row_kept(self, config: Any) -> tuple[int, int]:
    """(numbers of a row, those that layers surely keep of it for the backward pass)."""
    kept = about(self.architecture, 'kept', self, default=0)
    return math.prod(self.input_shape), kept

  @functools.cached_property
  def stack(self) -> Stack | None:
    """Of a transformer."""
    return about(self.architecture, 'stack', self)

  @property
  def hidden(self) -> tuple[str, int]:
    """The name and the size of the width between the maps of a feed-forward."""
    return self.architecture.hidden(self)

  @functools.cached_property
  def parts(self) -> Parts:
    return Parts(
      width=self.width,
      hidden=self.width,
      linear=self.linear,
      norm=self.norm,
      init=self.init,
      use_bias=self.use_bias,
      param_dtype=self.param_dtype,
      causal=False,
    )

  @property
  def widths(self) -> dict[str, int]:
    """What the rank of a map may not exceed."""
    return self.architecture.widths(self)

  @property
  def input_widths(self) -> dict[str, int]:
    """What linear maps read."""
    return self.architecture.input_widths(self)
