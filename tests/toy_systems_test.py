"""A system is a file and a dict line: five from elsewhere train, resume and evaluate."""

import importlib.util
import json
import shutil
import sys

import jax
import numpy as np
import pytest

from elas_jax import evaluate, generate, train
from elas_jax.catalogue import rows
from elas_jax.config.help import help_on
from elas_jax.run.workdir import open_run
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.optimizers import OPTIMIZERS
from tests.conformance import conformance_test as conformance
from tests.conformance.hosts import hosts

ACTIVATION = '''
"""a x / (1 + |x|), softsign with a trained height (a toy)."""
import dataclasses
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

@dataclasses.dataclass(frozen=True)
class SoftSign:
  start: float = 1.0  # of the height

  def make(self, parts, name):
    return Module(self, parts, name=name)

class Module(nn.Module):
  kind: SoftSign
  parts: object

  @nn.compact
  def __call__(self, x):
    start = nn.initializers.constant(self.kind.start)
    height = self.param('height', start, (), self.parts.param_dtype)
    return (height * x / (1 + jnp.abs(x))).astype(x.dtype)

AXES = {'height': ()}
NO_DECAY = ('height',)
CASES = (SoftSign(), SoftSign(start=0.5))
truth = lambda kind, x, p: p['height'] * x / (1 + np.abs(x))
'''
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
TOYS = {
  'toy_activation': ('model.activation', ACTIVATIONS, ACTIVATION, 'SoftSign'),
  'toy_linear': ('model.linear', LINEARS, LINEAR, 'Shared'),
  'toy_mixer': ('model.attention', MIXERS, MIXER, 'Mean'),
  'toy_norm': ('model.norm', NORMS, NORM, 'Magnitude'),
  'toy_optimizer': ('optimizer', OPTIMIZERS, OPTIMIZER, 'Sign'),
}


@pytest.fixture(scope='module', autouse=True)
def toys(tmp_path_factory):
  """Each toy is one file in a folder of its own, and one line in a dict."""
  folder = tmp_path_factory.mktemp('toys')
  with pytest.MonkeyPatch.context() as patch:
    for name, (_, kinds, text, class_name) in TOYS.items():
      (folder / f'{name}.py').write_text(text.lstrip())
      spec = importlib.util.spec_from_file_location(name, folder / f'{name}.py')
      module = importlib.util.module_from_spec(spec)
      patch.setitem(sys.modules, name, module)
      spec.loader.exec_module(module)
      patch.setitem(kinds, name, getattr(module, class_name))
    yield


COMMAND = [
  '--config.model.linear.share=0.2',  # before the kind that has it
  '--config.model.linear=toy_linear',
  '--config.model.feed_forward.activation=toy_activation',
  '--config.model.attention=toy_mixer',
  '--config.model.norm=toy_norm',
  '--config.optimizer=toy_optimizer',
  '--config.optimizer.learning_rate=0.003',
  '--config.model.width=16',
  '--config.model.layers=2',
  '--config.model.unroll=1',
  '--config.model.feed_forward_width=32',
  '--config.data.source=text_files',
  '--config.data.sequence_length=16',
  '--config.data.batch_size=4',
  '--config.data.processes=1',
  '--config.train.steps=8',
  '--config.train.log_every=1',
  '--config.train.compilation_cache=',
  '--config.checkpoint.every=4',
  '--config.eval.every=8',
  '--config.eval.units=256',
  '--config.eval.sample_tokens=0',
]


def test_toys_train_resume_evaluate_and_generate(corpus, tmp_path, capsys):
  data = [
    f'--config.data.source.path={corpus}',
    f'--config.data.cache_dir={tmp_path}/cache',
  ]
  whole, half = tmp_path / 'whole', tmp_path / 'half'
  train.main([*COMMAND, *data, f'--workdir={whole}'])
  shutil.copytree(whole, half)
  shutil.rmtree(half / 'checkpoints/8')
  train.main([*COMMAND, *data, f'--workdir={half}'])
  assert 'continuing after step 4' in capsys.readouterr().out
  one, two = (open_run(folder, 8, {}) for folder in (whole, half))
  jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)
  assert one.config.model.linear == LINEARS['toy_linear'](share=0.2)
  tree = json.loads((whole / 'config.json').read_text())
  assert tree['model']['attention'] == {'kind': 'toy_mixer'}
  evaluate.main([f'--workdir={half}'])
  losses = [
    json.loads(line)['train/loss']
    for line in (whole / 'metrics.jsonl').read_text().splitlines()
    if 'train/loss' in line
  ]
  assert losses[-1] < losses[0]
  generate.main([f'--workdir={half}', '--prompt=alpha', '--tokens=4'])
  assert capsys.readouterr().out.count('alpha') >= 1


@pytest.mark.parametrize('name', TOYS)
def test_toys_conform(name):
  section, kinds, *_ = TOYS[name]
  conformance.test_a_kind_has_a_room(section, name)
  for kind in conformance.room(kinds[name]).CASES:
    case = section, name, kind
    assert hosts(section, kind)
    conformance.test_round_trip_through_json(case)
    conformance.test_truth(case)
    conformance.test_every_parameter_has_a_place(case)
  if section == 'model.attention':
    conformance.test_mixers_are_causal(case)


def test_toys_are_listed():
  listed = {name: line for _, name, _, line in rows()}
  for name, (section, *_) in TOYS.items():
    assert listed[name].endswith('(a toy).')
    if section != 'model.activation':  # help knows it inside of a feed-forward too
      assert name in help_on(section)
  assert 'share' in help_on('model.linear.toy_linear')
  assert 'of the common number' in help_on('model.linear.toy_linear')
