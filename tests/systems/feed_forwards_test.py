"""Feed-forwards against NumPy from their own parameters, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.models.flops import flops
from elas_jax.run.state import abstract_variables
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.feed_forwards.top_k import top_k
from elas_jax.systems.kinds import about, axes, no_decay, room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.sown import collections, gathered
from elas_jax.systems.two_four import RECIPES
from tests.systems.sections import config, decoder, with_data

ALL = [(name, case) for name, kind in FEED_FORWARDS.items() for case in room(kind).CASES]
PRUNED = FEED_FORWARDS['relu2_two_four']
TOP_K, BLOCK = FEED_FORWARDS['top_k'], FEED_FORWARDS['block']


def of(feed_forward, **fields):
  """A config with this feed-forward, its linear maps dense."""
  model = {'linear': LINEARS['dense'](), 'feed_forward': feed_forward, 'init_std': 1.0}
  return config(decoder(**model | fields))


def float64(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def test_truths_are_the_formulas():
  """By hand, of one row of two inputs, so that the truths themselves are not trusted."""
  x, linear = np.array([[[1.0, -2.0]]]), lambda x, p: x @ p
  p = {'gate': np.eye(2), 'up': 3 * np.eye(2), 'down': np.ones((2, 1))}
  silu = lambda v: v / (1 + np.exp(-v))
  truth = lambda kind: room(kind).truth(kind, x, p, linear).item()
  gated = FEED_FORWARDS['glu']
  assert truth(gated()) == pytest.approx(silu(1) * 3 + silu(-2) * -6)
  assert truth(gated(ACTIVATIONS['none']())) == pytest.approx(1 * 3 + -2 * -6)
  assert truth(FEED_FORWARDS['mlp']()) == pytest.approx(9)
  # Of relu(h)^2 = 1, 4, 4, 9 the last and the first of the two equals stay.
  wide = {'up': np.array([[1.0, 2, -2, 3], [0, 0, -2, 0]]), 'down': np.ones((4, 1))}
  assert room(PRUNED).truth(PRUNED(), x, wide, linear).item() == pytest.approx(13)
  # Of relu(h) = 1, 2, 2, 3 the last, and the first of the two equals.
  wide['down'] = np.array([[1000.0], [100], [10], [1]])
  assert room(TOP_K).truth(TOP_K(k=2), x, wide, linear).item() == pytest.approx(203)
  # Two experts of two features: scores relu(1, -1), divided by sqrt(1 / 2) and scaled.
  wide['router'] = {'kernel': np.array([[1.0, -1], [0, 0]])}
  wide['router_norm'] = {'scale': np.array([10.0, 1])}
  block = BLOCK(2, ACTIVATIONS['relu'](), epsilon=1e-9)
  assert room(BLOCK).truth(block, x, wide, linear).item() == pytest.approx(12e3 * 2**0.5)


@pytest.mark.parametrize('name, kind', ALL)
def test_axes_and_decay_cover_what_is_theirs(name, kind):
  parts = of(kind).model.parts
  shapes = jax.eval_shape(
    kind.make(parts, name=None).init, jax.random.key(0), jnp.zeros((1, 8, 8))
  )
  maps, inner = kind.maps(parts), about(kind, 'inner', parts, default={})
  own = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf.ndim
    for part in shapes.values()
    for path, leaf in jax.tree_util.tree_leaves_with_path(part)
    if path[0].key not in maps and path[0].key not in inner
  }
  assert own == {path: len(roles) for path, roles in axes(kind).items()}
  assert set(no_decay(kind)) <= set(own)
  kernels = {path: shapes['params'][path]['kernel'].shape for path in maps}
  assert kernels == {path: (one.inputs, one.outputs) for path, one in maps.items()}


def test_pruning_may_end_before_the_run_does():
  pruned, plain = PRUNED(dense_steps=3, pruned_steps=4), FEED_FORWARDS['mlp']()
  phases = [pruned.at_step(step) is pruned for step in range(1, 11)]
  assert phases == [False] * 3 + [True] * 4 + [False] * 3
  # Of a run that starts anew from a step: what is left, its step 0 that step's model.
  assert pruned.after(0) == pruned
  for step in range(1, 11):
    rest = pruned.after(step)
    now = lambda kind, s: kind if kind == plain else kind.at_step(s)
    assert (now(rest, 0) == plain) == (step < 3 or step >= 7)
    assert [now(rest, s) == plain for s in range(1, 11 - step)] == [
      pruned.at_step(step + s) == plain for s in range(1, 11 - step)
    ]
  config = of(pruned)
  with pytest.raises(UserError, match='pruned_steps=-1: must be at least 0'):
    PRUNED(dense_steps=0, pruned_steps=-1).check('model.feed_forward', config)
  steps = config.train.steps
  PRUNED(dense_steps=2, pruned_steps=steps - 3).check('model.feed_forward', config)
  with pytest.raises(
    UserError, match=f'pruned_steps={steps - 2}: must be below .*; 0 prunes'
  ):
    PRUNED(dense_steps=2, pruned_steps=steps - 2).check('model.feed_forward', config)


def test_dense_warm_up_has_the_same_parameters_and_no_pruning():
  pruned = PRUNED(dense_steps=3)
  assert pruned.at_step(4) is pruned
  plain = pruned.at_step(3)
  assert plain == FEED_FORWARDS['mlp']()
  rest = pruned.after(2)  # a run that starts anew from that step has one more dense one
  assert rest == PRUNED(dense_steps=1) and rest.at_step(0) == plain
  assert pruned.after(5).at_step(0) == pruned.after(5) == PRUNED(dense_steps=0)
  parts = of(pruned).model.parts
  x = jax.random.normal(jax.random.key(1), (1, 8, 8))
  init = lambda kind: kind.make(parts, name=None).init(jax.random.key(0), x)
  one, two = init(pruned), init(plain)
  jax.tree.map(np.testing.assert_array_equal, one, two)
  y = [kind.make(parts, name=None).apply(one, x) for kind in (pruned, plain)]
  assert not np.allclose(*y)


@pytest.mark.parametrize('kind', [PRUNED(), FEED_FORWARDS['mlp']()])
def test_probed_activations_are_unpruned_squared_relus(kind):
  assert kind.probed()
  parts = of(kind).model.parts
  x = jax.random.normal(jax.random.key(1), (2, 8, 8))
  module = kind.make(parts, name=None)
  variables = module.init(jax.random.key(0), x)
  assert 'sown_activation' not in variables
  _, changed = module.apply(variables, x, mutable=collections(['activation']))
  (y,) = gathered(changed, ['activation'])['activation'].values()
  h = float64(x).reshape(16, 8) @ float64(variables['params']['up']['kernel'])
  np.testing.assert_allclose(y, np.maximum(h, 0) ** 2, rtol=1e-4, atol=1e-4)


def test_what_is_above_zero_is_probed():
  for kind in (FEED_FORWARDS['mlp'], lambda activation: TOP_K(4, activation)):
    assert kind(ACTIVATIONS['relu']()).probed()
    assert not kind(ACTIVATIONS['gelu']()).probed()
  assert not hasattr(FEED_FORWARDS['glu'], 'probed') and not hasattr(BLOCK, 'probed')


def test_top_k_of_equals_takes_the_first_and_its_gradient_passes():
  y = jnp.array([[2.0, 0, 3, 2, 2, -1], [0, 0, 0, 0, 0, 0], [-3, -1, -2, -4, -1, -5]])
  weights = 1 + jnp.arange(18.0).reshape(3, 6)
  kept = np.array([[1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0]])
  loss = lambda y: (top_k(y, 3) * weights).sum()
  np.testing.assert_array_equal(top_k(y, 3), y * kept)
  np.testing.assert_array_equal(jax.grad(loss)(y), weights * kept)
  np.testing.assert_array_equal(top_k(y, 6), y)


def test_what_the_experts_of_a_block_give_away():
  kind, x = BLOCK(4), jax.random.normal(jax.random.key(1), (2, 8, 8))
  module = kind.make(of(kind).model.parts, name=None)
  variables = module.init(jax.random.key(0), x)
  assert variables['params']['router']['kernel'].shape == (8, 4)
  names = ['activation', 'router', 'experts']
  y, changed = module.apply(variables, x, mutable=collections(names))
  sown = {name: one for name in names for one in gathered(changed, names)[name].values()}
  p = float64(variables['params'])
  scores = float64(x).reshape(16, 8) @ p['router']['kernel']
  np.testing.assert_allclose(sown['router'], scores, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(sown['experts'], np.maximum(scores, 0), rtol=1e-4, atol=1e-4)
  assert 0.2 < (sown['experts'] == 0).mean() < 0.8
  # Of an expert that is off nothing enters the last map.
  off = np.repeat(sown['experts'] == 0, 4, axis=1)
  assert not sown['activation'][off].any() and np.all(sown['activation'][~off])
  down = p['down']['kernel']
  np.testing.assert_allclose(
    y.reshape(16, 8), float64(sown['activation']) @ down, rtol=1e-4, atol=1e-4
  )


def test_flops_are_those_of_all_entries_and_of_the_router():
  """What the model needs, whatever is zero: the maps of an MLP, and 6 D E a layer."""
  of_all = lambda kind: flops(
    of(kind).model, abstract_variables(of(kind))['params'], of(kind).length
  )
  whole = of_all(FEED_FORWARDS['mlp']())
  assert of_all(TOP_K(4)) == whole
  layers, width = of(BLOCK(4)).model.layers, of(BLOCK(4)).model.width
  assert of_all(BLOCK(4)) == whole + layers * 6 * width * 4


def test_soft_scale_is_estimated_in_training_and_then_read():
  kind = PRUNED(RECIPES['soft_activations'](refresh=2))
  module = kind.make(of(kind).model.parts, name=None)
  x = jax.random.normal(jax.random.key(1), (2, 8, 8))
  variables = module.init(jax.random.key(0), x)
  assert variables['buffers'] == {'scale': 1, 'passes': 0}
  scales = []
  for factor in (1.0, 3.0, 3.0):
    shifted = x + factor * jnp.arange(8)[None, None]
    _, changed = module.apply(variables, shifted, mutable=['buffers'])
    variables |= changed
    scales.append(float(variables['buffers']['scale']))
  assert int(variables['buffers']['passes']) == 3
  assert scales[0] != 1 and scales[0] == scales[1] != scales[2]


@pytest.mark.parametrize(
  'kind, fields, message',
  [
    (
      FEED_FORWARDS['kat'](3),
      {},
      r'model.feed_forward.groups=3: must divide model.width=8',
    ),
    (FEED_FORWARDS['kat'](0), {}, r'model.feed_forward.groups=0: must be at least 1'),
    (TOP_K(0), {}, r'model.feed_forward.k=0: must be at least 1'),
    (
      TOP_K(17),
      {},
      r'forward.k=17: must be at most model.feed_forward_width=16',
    ),
    (BLOCK(0), {}, r'model.feed_forward.experts=0: must be at least 1'),
    (
      BLOCK(3),
      {},
      r'forward.experts=3: must divide model.feed_forward_width=16',
    ),
    (BLOCK(4, epsilon=0.0), {}, r'model.feed_forward.epsilon=0.0: must be above 0'),
    (PRUNED(dense_steps=20), {}, r'dense_steps=20: must be below train.steps=20'),
    (PRUNED(dense_steps=-1), {}, r'dense_steps=-1: must be at least 0'),
    (
      PRUNED(dense_steps=0),
      {'linear': LINEARS['cola'](rank=4)},
      r"model.linear='cola': must be one of 'dense', 'low_rank', 'masked' with a 2:4",
    ),
    (
      PRUNED(dense_steps=0),
      {'feed_forward_width': 18},
      r'model.feed_forward_width=18: must be a multiple of 4',
    ),
    (
      PRUNED(dense_steps=0, implementation='mosaic'),
      {},
      r"implementation='mosaic': needs model.compute_dtype='bfloat16', not 'float32'",
    ),
    (
      PRUNED(RECIPES['mvue'](), dense_steps=0, implementation='mosaic'),
      {'compute_dtype': 'bfloat16'},
      r"implementation='mosaic': pruning by the rule 'mvue' has no kernel; accepted are "
      r"model.feed_forward.recipe='top2' with model.feed_forward.recipe.backward 'exact'",
    ),
    (
      PRUNED(RECIPES['top2']('split'), dense_steps=0, implementation='mosaic'),
      {'compute_dtype': 'bfloat16'},
      r"the backward pass 'split' have no kernels",
    ),
    (
      FEED_FORWARDS['block'](experts=2, activation=ACTIVATIONS['poly_norm']()),
      {},
      "^model.feed_forward.activation='poly_norm': must be another, since it would mix",
    ),
  ],
)
def test_refused(kind, fields, message):
  with pytest.raises(UserError, match=message):
    kind.check('model.feed_forward', of(kind, **fields))


def test_recipes_refuse_what_they_cannot():
  kind = RECIPES['top2']('split')
  short = with_data(of(PRUNED(kind)), sequence_length=10)
  with pytest.raises(UserError, match='data.sequence_length=10: must be a multiple of 4'):
    kind.check('model.feed_forward.recipe', short)
  RECIPES['top2']('exact').check('model.feed_forward.recipe', short)
  with pytest.raises(UserError, match='recipe.refresh=0: must be at least 1'):
    RECIPES['soft_activations'](refresh=0).check('model.feed_forward.recipe', short)
