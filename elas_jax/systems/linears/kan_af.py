"""W act of pairs of activations reduced to one value an input (AF-KAN, arXiv 2503.06112).

One branch for each reduction, their outputs combined; the authors combine whole networks of
one reduction each. A branch, without bias and in float32:

  W act(norm(reduce(min_max(f(act(x - low), act(high - x))))))

low and high (S,) are shared by all inputs and start as ReLU-KAN's intervals; W starts
uniform within 1 / sqrt(I). S = grid + order. With function_norm 'batch' the output of a row
depends on the others.
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.ops.kan import af as ops
from elas_jax.ops.kan.base import overlapping_intervals
from elas_jax.ops.linear import dense, kaiming_uniform
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import Parts, section
from elas_jax.systems.linears import kan_common as common


@dataclasses.dataclass(frozen=True)
class AF(common.Family):
  grid: int = 3  # intervals of the range
  order: int = 3  # how many of them each pair reaches beyond its first, at most grid
  grid_min: float = 0.0  # where the range starts
  grid_max: float = 1.0  # where it ends
  activation: Any = section(ACTIVATIONS, 'silu')  # act
  function: Literal[tuple(ops.FUNCTIONS)] = 'quad1'  # f; quad1 is (a b)^2
  reduction: str = 'global_attn'  # or spatial_attn, multistep; several joined by commas
  combine: Literal[tuple(ops.COMBINATIONS)] = 'sum'  # of the branches' outputs
  function_norm: Literal['none', 'example', 'batch'] = 'example'  # published: batch
  data_norm: Literal['layer', 'none'] = 'layer'  # LayerNorm after the reduction
  init_scale: float = 1.0  # factor of the start of W

  def check(self, where: str, config: Any) -> None:
    common.check_family(where, self)
    common.check_order(where, self)
    common.check_names(where, self, 'reduction', ops.REDUCTIONS)

  def bases(self) -> int:
    return self.grid + self.order

  def mixes_rows(self) -> str:
    """The field that makes a row's output depend on others, if it does."""
    return 'function_norm' if self.function_norm == 'batch' else ''


class Module(nn.Module):
  features: int
  kind: AF
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    names = self.kind.reduction.split(',')
    fields = (self.features, self.kind, self.parts)
    ys = [Branch(*fields, name, name=name)(x) for name in names]
    return ops.COMBINATIONS[self.kind.combine](ys).astype(x.dtype)


class Branch(nn.Module):
  features: int
  kind: AF
  parts: Parts
  reduction: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c, dtype, I = self.kind, self.parts.param_dtype, x.shape[-1]
    bounds = overlapping_intervals(c.grid, c.order, c.grid_min, c.grid_max)
    S = c.grid + c.order
    low_S, high_S = (
      self.param(name, common.constant(values), (S,), dtype)
      for name, values in zip(('low', 'high'), bounds)
    )
    act = common.activation(c, self.parts)
    pairs = ops.pair_functions(x, low_S, high_S, act, c.function)
    shares = ops.min_max(pairs, c.function_norm)
    reduced = ops.REDUCTIONS[self.reduction](shares, *self.reduction_weights(I, S))
    hidden = act(common.normalised(reduced, c, self.parts))
    start = common.scaled(c, kaiming_uniform)
    kernel_IxO = self.param('kernel', start, (I, self.features), dtype)
    return dense(hidden.astype(x.dtype), kernel_IxO.astype(x.dtype), jnp.float32)

  def reduction_weights(self, inputs: int, S: int) -> list[jax.Array]:
    """Kernel, bias and, of the attentions, a temperature that starts at sqrt(I)."""
    dtype, spatial = self.parts.param_dtype, self.reduction == 'spatial_attn'
    init = common.uniform(3 if spatial else S)
    kernel = self.param('reduce', init, (3, S) if spatial else (S,), dtype)
    weights = [kernel, self.param('reduce_bias', init, (S,) if spatial else (), dtype)]
    if self.reduction != 'multistep':
      weights.append(self.param('temperature', common.constant(inputs**0.5), (), dtype))
    return weights


def _below(kind: AF, paths: Any) -> tuple[str, ...]:
  return tuple(f'{name}/{path}' for name in kind.reduction.split(',') for path in paths)


def AXES(kind):
  found = {}
  for name in kind.reduction.split(','):
    spatial = name == 'spatial_attn'
    own = {'low': (None,), 'high': (None,), 'kernel': (None, None)}
    own |= {'reduce': (None, None) if spatial else (None,)}
    own |= {'reduce_bias': (None,) if spatial else ()}
    own |= {} if name == 'multistep' else {'temperature': ()}
    own |= common.shared_axes(kind)
    found |= {f'{name}/{path}': roles for path, roles in own.items()}
  return found


NO_DECAY = lambda kind: _below(kind, ('reduce_bias', *common.shared_no_decay(kind)))
MATRICES = lambda kind: _below(kind, ('kernel',))
_two = functools.partial(AF, reduction='spatial_attn,multistep')
CASES = (
  AF(),
  _two(function='quad2', combine='sum'),
  _two(function='sum', combine='product'),
  _two(function='prod', combine='sum_product'),
  _two(function='sum_prod', combine='quadratic'),
  AF(function='cubic1', grid_min=-1.0, function_norm='none', data_norm='none'),
  AF(function='cubic2', activation=ACTIVATIONS['tanh']()),
  AF(function_norm='batch'),  # not in a decoder
)


def truth(kind, x, p):
  ys = [_true_branch(kind, name, x, p[name]) for name in kind.reduction.split(',')]
  total, product, squares = sum(ys), np.prod(ys, 0), sum(y**2 for y in ys)
  return {
    'sum': total,
    'product': product,
    'sum_product': total + product,
    'quadratic': total + product + squares,
  }[kind.combine]


def _true_branch(kind: AF, reduction: str, x: np.ndarray, p: dict) -> np.ndarray:
  """Here the pairs are (..., I, S), as in the paper."""
  act = lambda x: common.true_activation(kind, x, p)
  a = np.stack([act(x - low) for low in p['low']], -1)
  b = np.stack([act(high - x) for high in p['high']], -1)
  y = {
    'quad1': a**2 * b**2,
    'quad2': a * b + a**2 + b**2,
    'sum': a + b,
    'prod': a * b,
    'sum_prod': a + b + a * b,
    'cubic1': a**3 + a * b**2 + b * a**2 + b**3,
    'cubic2': a**3 * b**3,
  }[kind.function]
  over = {'none': (), 'example': (-2, -1), 'batch': tuple(range(y.ndim))}
  if axes := over[kind.function_norm]:
    least, most = y.min(axes, keepdims=True), y.max(axes, keepdims=True)
    y = (y - least) / (most - least)
  hidden = act(common.true_norm(kind, _true_reduction(reduction, y, p), p))
  return hidden @ p['kernel']


def _true_reduction(reduction: str, y: np.ndarray, p: dict) -> np.ndarray:
  if reduction == 'spatial_attn':
    beyond = np.zeros_like(y[..., :1, :])
    before = np.concatenate([beyond, y[..., :-1, :]], -2)
    after = np.concatenate([y[..., 1:, :], beyond], -2)
    w = p['reduce']
    logits = before * w[0] + y * w[1] + after * w[2] + p['reduce_bias']
    return (y * _softmax(logits / max(p['temperature'], 1), -1)).sum(-1)
  steps = y @ p['reduce'] + p['reduce_bias']
  if reduction == 'multistep':
    return steps
  return y.sum(-1) * _softmax(steps / max(p['temperature'], 1), -1)


def _softmax(x: np.ndarray, axis: int) -> np.ndarray:
  e = np.exp(x - x.max(axis, keepdims=True))
  return e / e.sum(axis, keepdims=True)
