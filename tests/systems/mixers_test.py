"""Attention and rotary embeddings against NumPy, causality, state, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.kinds import about, room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.positions import POSITIONS
from tests.conftest import thinned
from tests.systems.sections import config, decoder, with_data

MIXER_CASES = [case for kind in MIXERS.values() for case in room(kind).CASES]
POSITION_CASES = [case for kind in POSITIONS.values() for case in room(kind).CASES]
FIRST_MIXERS = [room(kind).CASES[0] for kind in MIXERS.values()]
FIRST_POSITIONS = [room(kind).CASES[0] for kind in POSITIONS.values()]
MHA, GQA, SQA = (MIXERS[name] for name in ('mha', 'gqa', 'sqa'))


def of(kind, **fields):
  fields = {'linear': LINEARS['dense'](), 'attention': kind, 'init_std': 1.0} | fields
  return config(decoder(**fields))


def applied(kind, model, x, positions=None, state=None, start=0, variables=None):
  positions = jnp.arange(x.shape[1]) if positions is None else positions
  angles = model.position.angles(positions, kind.head_size(model.parts))
  module = kind.make(model.parts, name=None)
  if variables is None:
    variables = module.init(jax.random.key(0), x, angles, None, 0)
  apply = jax.jit(lambda v, state: module.apply(v, x, angles, state, start))
  return variables, apply(variables, state)


@pytest.mark.parametrize('position', thinned(POSITION_CASES, *FIRST_POSITIONS))
@pytest.mark.parametrize('kind', thinned(MIXER_CASES, *FIRST_MIXERS))
def test_output_is_that_of_numpy(kind, position):
  config = of(kind, position=position)
  kind.check('model.attention', config)
  if hasattr(position, 'check'):
    position.check('model.position', config)
  x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
  variables, (y, state) = applied(kind, config.model, x)
  assert state is None
  p = jax.tree.map(lambda v: np.asarray(v, np.float64), variables['params'])
  turn = lambda x: room(position).truth(position, x)
  linear = lambda x, p: x @ p['kernel']
  expected = room(kind).truth(kind, np.float64(x), p, linear, turn)
  np.testing.assert_allclose(y, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize('kind', thinned(MIXER_CASES, *FIRST_MIXERS))
def test_pieces_with_a_state_equal_the_whole(kind):
  model = of(kind).model
  x = jax.random.normal(jax.random.key(1), (2, 7, 8))
  variables, (whole, _) = applied(kind, model, x)
  state, start, parts = kind.empty_state(model.parts, 2, 9), 0, []
  for length in (4, 1, 2):
    positions = start + jnp.arange(length)
    piece = x[:, start : start + length]
    _, (y, state) = applied(kind, model, piece, positions, state, start, variables)
    parts.append(y)
    start += length
  np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-4, atol=1e-4)


def test_maps_are_those_that_are_made():
  for kind in MIXER_CASES:
    parts = of(kind).model.parts
    variables, _ = applied(kind, of(kind).model, jnp.zeros((1, 3, 8)))
    params, inner = variables['params'], about(kind, 'inner', parts, default={})
    shapes = {name: params[name]['kernel'].shape for name in set(params) - set(inner)}
    maps = kind.maps(parts)
    assert shapes == {name: (one.inputs, one.outputs) for name, one in maps.items()}
    splits = {name: one.split for name, one in maps.items()}
    assert splits.pop('output') == 'in' and set(splits.values()) == {'out'}


def test_rotation_keeps_lengths_and_sees_distances_only():
  rope = POSITIONS['rope']()
  x = np.random.default_rng(1).normal(size=(1, 1, 1, 8)).astype(np.float32)
  turned = lambda position: np.asarray(
    rope.rotate(jnp.asarray(x), rope.angles(jnp.array([position]), 8))
  )
  np.testing.assert_allclose((turned(5) ** 2).sum(), (x**2).sum(), rtol=1e-5)
  products = [(turned(a) * turned(b)).sum() for a, b in ((3, 1), (10, 8))]
  np.testing.assert_allclose(*products, rtol=1e-5)
  # The truth, of the first pair at position 1: by the angle 1.
  y = room(rope).truth(rope, np.concatenate([np.zeros_like(x), np.float64(x)], 1))
  first, second = x[0, 0, 0, 0], x[0, 0, 0, 4]
  assert y[0, 1, 0, 0] == pytest.approx(first * np.cos(1) - second * np.sin(1))


def test_flops_are_those_of_both_products_forward_and_backward():
  # Scores and values: 2 products of 2 FLOPs for L keys of all heads, three times.
  model = of(MHA(2)).model
  assert MHA(2).flops(model.parts, 100) == 3 * 2 * 2 * 100 * model.width


@pytest.mark.parametrize(
  'kind, fields, message',
  [
    (MHA(3), {}, r'model.attention.heads=3: must divide model.width=8; accepted: 1, 2'),
    (MHA(0), {}, r'model.attention.heads=0: must be at least 1'),
    (GQA(2, 0), {}, r'model.attention.kv_heads=0: must be at least 1'),
    (GQA(4, 3), {}, r'model.attention.kv_heads=3: must divide model.attention.heads=4'),
    (SQA(4, 0, 1), {}, r'model.attention.query_heads=0: must be at least 1'),
    (SQA(4, 4, 1), {}, r"query_heads=4: must be below model.attention.heads=4; 'mha' and"),
    (SQA(4, 3, 2), {}, r'kv_heads=2: must divide model.attention.query_heads=3'),
    (MIXERS['ssqa'](1), {}, r'model.attention.heads=1: must be a multiple of 2'),
    (MIXERS['xsqa'](2), {}, r'model.attention.heads=2: must be a multiple of 4'),
    (MIXERS['xsmqa'](2), {}, r'model.attention.heads=2: must be a multiple of 4'),
    (MHA(8), {}, r'model.width / model.attention.heads = 1 must be even'),
  ],
)
def test_refused(kind, fields, message):
  with pytest.raises(UserError, match=message):
    kind.check('model.attention', of(kind, **fields))


def test_odd_heads_are_refused_by_rotation_only():
  MHA(8).check('model.attention', of(MHA(8), position=POSITIONS['none']()))
  with pytest.raises(UserError, match=r'model.position.base=0.0: must be above 0'):
    POSITIONS['rope'](0.0).check('model.position', of(MHA(2)))


def test_scores_that_no_machine_holds_are_refused():
  long = with_data(of(MHA(2)), sequence_length=2**26)
  with pytest.raises(UserError, match=r'data.sequence_length=67108864: an array of'):
    MHA(2).check('model.attention', long)
