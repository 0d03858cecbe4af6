"""Systems from elsewhere: each is one file in a folder of its own, and one dict line."""

import importlib.util
import pathlib
import re
import sys
import textwrap

import pytest

from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.converters import CONVERTERS
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.objectives import OBJECTIVES
from elas_jax.systems.optimizers import OPTIMIZERS
from tests.conftest import ROOT

LINEAR = '''
"""y = x (W + s 1 1^T), a dense map with one number for all of its entries (a toy)."""
import dataclasses
import flax.linen as nn
import numpy as np
from elas_jax.common.fields import fraction
from elas_jax.ops.linear import dense

@dataclasses.dataclass(frozen=True)
class Shared:
  share: float = 0.1  # of the common number

  def check(self, where, config):
    fraction(where, self, 'share')

  def make(self, features, parts, name):
    return Module(features, self, parts, name=name)

class Module(nn.Module):
  features: int
  kind: Shared
  parts: object

  @nn.compact
  def __call__(self, x):
    shape = (x.shape[-1], self.features)
    start = nn.initializers.normal(0.1)
    kernel = self.param('kernel', start, shape, self.parts.param_dtype)
    common = self.param('common', nn.initializers.zeros, (), self.parts.param_dtype)
    kernel = kernel + self.kind.share * common
    return dense(x, kernel.astype(x.dtype))

AXES = {'kernel': ('in', 'out'), 'common': ()}
MATRICES = ('kernel',)
CASES = (Shared(), Shared(share=0.5))
truth = lambda kind, x, p: x @ (p['kernel'] + kind.share * p['common'])
'''
MIXER = '''
"""y_t = mean of value(x_s) over s <= t, a causal mean (a toy)."""
import dataclasses
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from elas_jax.systems.kinds import Map

@dataclasses.dataclass(frozen=True)
class Mean:
  def make(self, parts, name):
    return Module(self, parts, name=name)

  def head_size(self, parts):
    return parts.width

  def maps(self, parts):
    D = parts.width
    return {'value': Map(D, D, 'out'), 'output': Map(D, D, 'in')}

  def empty_state(self, parts, batch, length):
    return {'sum': jnp.zeros((batch, parts.width))}

  def flops(self, parts, length):
    return 2.0 * parts.width

class Module(nn.Module):
  kind: Mean
  parts: object

  @nn.compact
  def __call__(self, x, angles, state, start):
    D = self.parts.width
    value = self.parts.linear.make(D, self.parts, name='value')(x)
    before = 0 if state is None else state['sum'][:, None]
    total = before + jnp.cumsum(value, 1)
    counts = start + 1 + jnp.arange(x.shape[1])
    y = (total / counts[None, :, None]).astype(x.dtype)
    state = state and {'sum': total[:, -1].astype(state['sum'].dtype)}
    return self.parts.linear.make(D, self.parts, name='output')(y), state

CASES = (Mean(),)

def truth(kind, x, p, linear, position):
  value = linear(x, p['value'])
  means = [value[:, : t + 1].mean(1) for t in range(x.shape[1])]
  return linear(np.stack(means, 1), p['output'])
'''
NORM = '''
"""x / mean |x| * scale, a norm of magnitudes (a toy)."""
import dataclasses
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

@dataclasses.dataclass(frozen=True)
class Magnitude:
  epsilon: float = 1e-3  # added to the mean

  def make(self, parts, name, train=False):
    return Module(self, parts, name=name)

class Module(nn.Module):
  kind: Magnitude
  parts: object

  @nn.compact
  def __call__(self, x):
    shape, dtype = (x.shape[-1],), self.parts.param_dtype
    scale = self.param('scale', nn.initializers.ones, shape, dtype)
    mean = jnp.abs(x).mean(-1, keepdims=True)
    scaled = x / (mean + self.kind.epsilon) * jnp.broadcast_to(scale, x.shape)
    return scaled.astype(x.dtype)

AXES, NO_DECAY = {'scale': (None,)}, ('scale',)
CASES = (Magnitude(),)
truth = lambda kind, x, p: x / (abs(x).mean(-1, keepdims=True) + kind.epsilon) * p['scale']
'''
OPTIMIZER = '''
"""p -= lr sign(m), m = b m + (1 - b) g, the sign of a mean (a toy)."""
import dataclasses
import jax
import numpy as np
import optax
from elas_jax.systems.optimizers.common import Common

@dataclasses.dataclass(frozen=True)
class Sign(Common):
  b: float = 0.9  # of the mean

  def build(self, training):
    signs = optax.chain(optax.ema(self.b, debias=False), optax.scale_by_sign())
    return training.descend(signs, 0.0)

CASES = (Sign(learning_rate=0.01),)

def truth(kind, params, gradients, rates):
  mean = jax.tree.map(np.zeros_like, params)
  for gradient, rate in zip(gradients, rates):
    move = lambda m, g: kind.b * m + (1 - kind.b) * g
    mean = jax.tree.map(move, mean, gradient(params))
    params = jax.tree.map(lambda p, m, rate=rate: p - rate * np.sign(m), params, mean)
  return params
'''
OBJECTIVE = '''
"""mean p(y)^2 + share * mean of squared activations, sure of little (a toy)."""
import dataclasses
from typing import ClassVar
import jax
import jax.numpy as jnp
import numpy as np
from elas_jax.common.fields import fraction
from elas_jax.systems.objectives.common import Objective

@dataclasses.dataclass(frozen=True)
class Unsure(Objective):
  coefficient: float = 0.5
  share: float = 0.25  # of the activations

  sown: ClassVar[tuple[str, ...]] = ('activation',)

  def check(self, where, config):
    super().check(where, config)
    fraction(where, self, 'share')

  def loss(self, seen):
    squares = jnp.square(jax.nn.softmax(seen.outputs)).sum(-1) * seen.weights
    y = seen.layers('activation')
    of_rows = jnp.square(y).mean((0, 2)) * seen.weights_of(y.shape[1])
    return (squares.sum() + self.share * of_rows.sum()) / seen.count

CASES = (Unsure(), Unsure(share=1.0))
# No truth: nobody would believe in it.
'''
MEASURE = '''
"""Share of parameters below `size`, and norms of matrices, small ones (a toy)."""
import dataclasses
import jax
import jax.numpy as jnp
import numpy as np

@dataclasses.dataclass(frozen=True)
class Small:
  size: float = 0.01  # what is small

  def measure(self, seen):
    flat = jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(seen.params)])
    first, *_ = seen.matrices()['layers/feed_forward/up']
    norm = jnp.linalg.norm(first, axis=(1, 2))
    return {'share': (abs(flat) < self.size).mean(), 'norm': norm}

CASES = (Small(), Small(0.1))
# No truth: nobody would believe in it.
'''


def shown(path: str) -> str:
  """A file that README or docs/systems.md shows, as it is pasted."""
  text = ''.join((ROOT / name).read_text() for name in ('README.md', 'docs/systems.md'))
  block = rf'(?m)^    # elas_jax/systems/{re.escape(path)}\n((?:    .*\n|\n)+)'
  (found,) = re.findall(block, text)
  return textwrap.dedent(found)


# Name: its section, the dict, the file, the class.
TOYS = {
  'soft_sign': (
    'model.activation',
    ACTIVATIONS,
    shown('activations/soft_sign.py'),
    'SoftSign',
  ),
  'toy_linear': ('model.linear', LINEARS, LINEAR, 'Shared'),
  'toy_mixer': ('model.attention', MIXERS, MIXER, 'Mean'),
  'toy_norm': ('model.norm', NORMS, NORM, 'Magnitude'),
  'toy_optimizer': ('optimizer', OPTIMIZERS, OPTIMIZER, 'Sign'),
  'toy_objective': ('train.objectives', OBJECTIVES, OBJECTIVE, 'Unsure'),
  'toy_measure': ('eval.measures', MEASURES, MEASURE, 'Small'),
  'confidence': (
    'train.objectives',
    OBJECTIVES,
    shown('objectives/confidence.py'),
    'Confidence',
  ),
  'halve': ('converter', CONVERTERS, shown('converters/halve.py'), 'Halve'),
}


def install(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
  """Writes each toy as a file in the folder, imports it and adds its line to the dict."""
  for name, (_, kinds, text, class_name) in TOYS.items():
    path = folder / f'{name}.py'
    path.write_text(text.lstrip())
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    patch.setitem(kinds, name, getattr(module, class_name))
