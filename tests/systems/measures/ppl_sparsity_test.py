"""PPL-p% sparsity, by its definition, on a language model in NumPy float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.run.measures import why_lacking
from elas_jax.run.state import init_variables
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.measures import MEASURES
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.sown import asked
from elas_jax.tasks import task_of
from tests.conformance.hosts import hybrid, language, network, preference, transformer
from tests.conformance.truths import rows_of

KIND = MEASURES['ppl_sparsity']
B, L, V, F = 64, 32, 1000, 32


class InNumPy:
  """Of two layers whose attention gives nothing, and tokens that the model drew itself.

  Args:
    truth: (x, p) -> the activations of a feed-forward.
  """

  def __init__(self, config, activation):
    random = np.random.default_rng(0)
    self._activation = activation
    module = task_of(config).module(config)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, L), jnp.int32))
    draw = lambda x: random.normal(size=x.shape) / np.sqrt(x.shape[-2])
    self.p = jax.tree.map(
      lambda x: draw(x) if x.ndim > 1 else np.ones(x.shape), shapes['params']
    )
    layers = self.p['layers']
    for norm in ('attention_norm', 'feed_forward_norm'):
      layers[norm]['scale'] = np.ones_like(layers[norm]['scale'])
    for x in layers['attention']['output'].values():
      x *= 0
    self.p['embedding'] = random.normal(size=(V, 8))
    self.tokens = random.integers(0, V, (B, L + 1))
    for t in range(L):
      logits, _ = self.forward(self.tokens[:, t : t + 1])
      p = np.exp(logits[:, 0] - np.logaddexp.reduce(logits[:, 0], -1, keepdims=True))
      self.tokens[:, t + 1] = [random.choice(V, p=row / row.sum()) for row in p]
    self.valid = np.full(B, L)
    self.valid[-1] = 20
    self.counts = np.arange(L) < self.valid[:, None]

  def down(self, layer):
    w = {name: x[layer] for name, x in self.p['layers']['feed_forward']['down'].items()}
    return w['kernel'] if 'kernel' in w else w['a'] @ w['b']

  def forward(self, tokens, thresholds=None):
    """(logits, the activations of each layer before they are cut)."""
    norm = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    x, found = self.p['embedding'][tokens], []
    for layer in range(2):
      own = jax.tree.map(lambda x: x[layer], self.p['layers']['feed_forward'])  # noqa: B023
      a, w = self._activation(norm(x), own), self.down(layer)
      found.append(a)
      if thresholds is not None:
        a = np.where(np.abs(a) * np.linalg.norm(w, axis=1) > thresholds[layer], a, 0)
      x = x + a @ w
    return norm(x) @ self.p['head'], found

  def loss(self, thresholds=None):
    logits, _ = self.forward(self.tokens[:, :-1], thresholds)
    log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    taken = np.take_along_axis(log_p, self.tokens[:, 1:, None], -1)[..., 0]
    return -taken[self.counts].mean()

  def seen(self, config, kind):
    tokens = jnp.asarray(self.tokens, jnp.int32)
    batch = {'tokens': tokens, 'valid': jnp.asarray(self.valid), 'bytes': jnp.ones(B)}
    variables = {'params': jax.tree.map(jnp.float32, self.p), 'buffers': {}}
    key = jax.random.key(0)
    return task_of(config).forward(config, variables, batch, key, False, asked([kind]))


def relu2(x, p):
  w = p['up'].get('kernel')
  return np.maximum(x @ (p['up']['a'] @ p['up']['b'] if w is None else w), 0) ** 2


def silu_glu(x, p):
  gate, up = x @ p['gate']['kernel'], x @ p['up']['kernel']
  return gate / (1 + np.exp(-gate)) * up


LATER = pytest.mark.conformance
CONFIG = {'vocab_size': V, 'feed_forward_width': F}


@pytest.mark.parametrize(
  'activation, fields, p',
  [
    (relu2, {}, 1.0),
    pytest.param(relu2, {'linear': LINEARS['low_rank'](rank=6)}, 1.0, marks=LATER),
    pytest.param(silu_glu, {'feed_forward': FEED_FORWARDS['glu']()}, 5.0, marks=LATER),
  ],
  ids=['relu2', 'low_rank', 'glu'],
)
def test_loss_rises_as_said(activation, fields, p):
  config, kind = language(**CONFIG | fields), KIND(p=p)
  model = InNumPy(config, activation)
  found = jax.jit(lambda: kind.measure(model.seen(config, kind)))()
  found = {name: np.float64(x) for name, x in found.items()}
  wanted, thresholds = np.log1p(p / 100), found['threshold']
  assert found['loss_rise'] == pytest.approx(wanted, rel=0.02)
  rise = model.loss(thresholds) - model.loss()
  assert rise == pytest.approx(wanted, rel=0.02)

  _, dense = model.forward(model.tokens[:, :-1])
  _, now = model.forward(model.tokens[:, :-1], thresholds)
  for layer, (a, later) in enumerate(zip(dense, now)):
    w, threshold = model.down(layer), thresholds[layer]
    norm = np.linalg.norm(w, axis=1)
    active = np.abs(later[model.counts]) * norm > threshold
    assert found['activation_ratio'][layer] == pytest.approx(active.mean(), abs=2e-4)

    # The threshold is within the CETT, and the next of the candidates is not.
    a = a[model.counts]
    most = np.quantile(np.abs(a) * norm, 0.99)
    least = (np.abs(a) * norm).min()
    step = (most - least) / 65535
    number = (threshold - least) / step
    assert abs(number - round(number)) < 0.2

    def cett(t):
      tail = np.where(np.abs(a) * norm <= t, a, 0) @ w  # noqa: B023
      return (np.linalg.norm(tail, axis=1) / np.linalg.norm(a @ w, axis=1)).mean()  # noqa: B023

    assert 0 < threshold < most
    assert cett(threshold - step / 9) <= found['cett'] < cett(threshold + 1.1 * step)


def test_what_is_left_out_is_what_the_last_map_does_not_get():
  """Of every feed-forward, from what it gives away: for W a plain matrix."""
  x = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
  parts = language().model.parts
  checked = set()
  for name, case in FEED_FORWARDS.items():
    kind = room(case).CASES[0]
    module, names = kind.make(parts, name=None), ['sown_activation', 'sown_thresholds']
    variables = jax.jit(module.init)(jax.random.key(0), x)
    variables |= {'params': jax.tree.map(lambda p: 9 * p, variables['params'])}
    run = jax.jit(lambda given: module.apply(given, x, mutable=names))  # noqa: B023
    whole, sown = run(variables)
    if 'sown_thresholds' not in sown:
      continue
    checked.add(name)
    y = np.float64(sown['sown_activation']['x'])
    limits = np.quantile(np.abs(y), 0.6, axis=0)
    cut = {'thresholds': {'x': jnp.float32(limits)}}
    less, _ = run(variables | cut)
    kept = np.where(np.abs(y) > np.float32(limits), y, 0)
    if hasattr(kind, 'recipe'):
      kept = room(kind.recipe).prune(kind.recipe, kept, variables.get('buffers', {}))
    expected = kept @ np.float64(variables['params']['down']['kernel'])
    np.testing.assert_allclose(less.reshape(16, 8), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(less - whole).max() > 1e-3
  assert checked >= {'mlp', 'glu', 'kat', 'relu2_two_four'}


@LATER
@pytest.mark.parametrize(
  'config',
  [
    transformer(feed_forward=FEED_FORWARDS['mlp'](ACTIVATIONS['relu']())),
    transformer(feed_forward=FEED_FORWARDS['glu']()),
    language(feed_forward=FEED_FORWARDS['relu2_two_four'](dense_steps=0)),
    hybrid(MIXERS['linear_attention'](heads=2)),
  ],
  ids=['vit', 'vit_glu', 'two_four', 'cycle'],
)
def test_in_other_models(config):
  """By its own thresholds, given to a pass by hand, the loss rises as it says."""
  kind, variables, rows = KIND(p=0.02), init_variables(config), rows_of(config)

  @jax.jit
  def look():
    key = jax.random.key(0)
    seen = task_of(config).forward(config, variables, rows, key, False, asked([kind]))
    found, limits = kind.measure(seen), {}
    for number, path in enumerate(seen.sown['activation']):
      w = seen.matrices()[f'{path}/down'][0]
      own = found['threshold'][number :: len(seen.sown['activation'])]
      limits[path] = own[:, None] / jnp.linalg.norm(w, axis=-1)
    now = seen.again(limits)
    return found, (now.sums['loss'] - seen.sums['loss']) / seen.count

  found, rise = look()
  np.testing.assert_allclose(found['loss_rise'], rise, rtol=1e-3, atol=1e-6)
  assert found['activation_ratio'].shape == found['threshold'].shape
  assert (found['activation_ratio'] > 0).all() and (found['activation_ratio'] < 1).all()


@pytest.mark.parametrize(
  'config, said',
  [
    (network(), 'the model has no feed-forwards'),
    (
      language(linear=LINEARS['cola'](rank=4)),
      "model.linear='cola': must be one of 'dense', 'low_rank', 'lora'",
    ),
    (
      dataclasses.replace(network(), task='regression'),
      'squared errors have no perplexity',
    ),
    (preference(), 'a loss of preferences has no perplexity'),
  ],
)
def test_what_it_lacks(config, said):
  why = why_lacking(config, KIND())
  assert why.startswith(said) and '\n' not in why
