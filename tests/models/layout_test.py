"""Placement, weight decay and FLOPs by exact path: against rules on paths, and by hand."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest

from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.models import layout
from elas_jax.models.classifier import Network
from elas_jax.models.decoder import Decoder
from elas_jax.models.flops import flops
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.architectures import ARCHITECTURES
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import room
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.norms import NORMS
from elas_jax.systems.two_four import RECIPES
from tests.conftest import thinned
from tests.systems.sections import classifier, decoder

# Where every array of a decoder lay before kinds said it themselves: the end of its path,
# and its axes. Runs on several devices go on from such placements.
PLACES = (
  (r'(^|/)embedding$', ('tensor', 'fsdp')),
  (r'(^|/)head$', ('fsdp', 'tensor')),
  (r'norm/(scale|bias)$', (None,)),
  (r'/router/kernel$', (None, None)),
  (r'/(values|support|columns|scale|passes)$', (None,)),
  (r'/(output|down)/sparse$', (None, 'fsdp')),
  (r'/sparse$', (None, 'tensor')),
  (
    r'/(query|key|value|gate|up)/(quadratic|dense)/kernel(_[rgb])?$',
    ('fsdp', 'tensor'),
  ),
  (r'/(output|down)/(quadratic|dense)/kernel(_[rgb])?$', ('tensor', 'fsdp')),
  (r'/(query|key|value|gate|up)/kan/(.*/)?coefficients$', ('fsdp', None, 'tensor')),
  (r'/(output|down)/kan/(.*/)?coefficients$', ('tensor', None, 'fsdp')),
  (r'/(kan|quadratic|rational(_[12])?)/', ()),
  (r'/(query|key|value|gate|up)/(kernel|mask)$', ('fsdp', 'tensor')),
  (r'/(query|key|value|gate|up)/a$', ('fsdp', None)),
  (r'/(query|key|value|gate|up)/b$', ('fsdp', 'tensor')),
  (r'/(output|down)/(kernel|mask)$', ('tensor', 'fsdp')),
  (r'/(output|down)/a$', ('tensor', 'fsdp')),
  (r'/(output|down)/b$', (None, 'fsdp')),
)
# What weight decay left alone.
NO_DECAY = r'(norm[^/]*/(scale|bias)|bias(_[rgb])?|numerator|denominator)$'
NO = ACTIVATIONS['none']()
COLLECTIONS = 'params', 'buffers'
# One of each: the conformance tests go over all cases.
LINEAR_CASES = [room(kind).CASES[0] for kind in LINEARS.values()]
FEED_FORWARD_CASES = [case for kind in FEED_FORWARDS.values() for case in room(kind).CASES]


@functools.cache
def leaves(model):
  """({path: array} of the parameters, the same of the buffers)."""
  if hasattr(model, 'architecture'):
    init, x = Network(model).init, jnp.zeros((1, *model.input_shape))
  else:
    init, x = Decoder(model).init, jnp.zeros((1, 4), jnp.int32)
  tree = jax.eval_shape(init, jax.random.key(0), x)
  flat = [jax.tree_util.tree_leaves_with_path(tree.get(name, {})) for name in COLLECTIONS]
  return [{path_name(path): leaf for path, leaf in part} for part in flat]


def params_of(model):
  return jax.eval_shape(
    Decoder(model).init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32)
  )['params']


def named(model):
  kinds = [model.linear, model.norm, getattr(model, 'architecture', None)]
  kinds.append(getattr(model, 'feed_forward', None))
  return '-'.join(type(kind).__name__ for kind in kinds if kind)


def decoders():
  dense = decoder(LINEARS['dense']())
  yield from (decoder(linear) for linear in LINEAR_CASES)
  yield from (dataclasses.replace(dense, feed_forward=one) for one in FEED_FORWARD_CASES)
  yield dataclasses.replace(dense, norm=NORMS['layer'](), tied_head=True)
  yield dataclasses.replace(dense, attention=MIXERS['gqa'](2, 1))


def representatives(models):
  """One of the KANs, one recipe of pruning, and everything else."""
  pruned, kans = [], []
  for model in models:
    if isinstance(getattr(model, 'feed_forward', None), FEED_FORWARDS['relu2_two_four']):
      pruned.append(model)
    elif type(model.linear) in KANS:
      kans.append(model)
    else:
      yield model
  yield from pruned[:1] + kans[:1]


KANS = [kind for name, kind in LINEARS.items() if name.startswith('kan_')]
DECODERS = list(decoders())


@pytest.mark.parametrize('model', thinned(DECODERS, *representatives(DECODERS)), ids=named)
def test_decoders_are_placed_as_ever_and_decay_as_ever(model):
  params, buffers = leaves(model)

  def padded(axes, leaf):
    """With a None for each dimension that is not split, the layers' own included."""
    return (None,) * (leaf.ndim - len(axes)) + tuple(axes)

  placed = layout.axes(model)
  for path, leaf in (params | buffers).items():
    expected = next(axes for regex, axes in PLACES if re.search(regex, path))
    assert padded(placed[path], leaf) == padded(expected, leaf), path
  assert set(placed) == {*params, *buffers}
  decayed_not = {path for path in params if re.search(NO_DECAY, path)}
  assert layout.no_decay(model) == decayed_not


def networks():
  layer, batch = NORMS['layer'](), NORMS['batch']()
  yield from (classifier(linear=linear, norm=layer, depth=1) for linear in LINEAR_CASES)
  convnet, quadratic = ARCHITECTURES['convnet'](), LINEARS['quadratic']()
  for linear in LINEAR_CASES:
    if hasattr(linear, 'convolve'):
      yield classifier(convnet, linear, norm=batch, depth=1)
  yield classifier(ARCHITECTURES['resnet'](), quadratic, norm=batch, depth=1)
  vit = ARCHITECTURES['vit'](2, linear_in='feed_forward')
  yield classifier(vit, LINEARS['rational'](2), norm=layer, depth=1, activation=NO)
  yield classifier(norm=NORMS['rms'](), activation=ACTIVATIONS['relu'](), use_bias=False)


NETWORKS = list(networks())


@pytest.mark.parametrize('model', thinned(NETWORKS, *representatives(NETWORKS)), ids=named)
def test_networks_are_placed_by_the_same_roles_and_decay_as_ever(model):
  params, buffers = leaves(model)
  placed = layout.axes(model)
  assert set(placed) == {*params, *buffers}
  # But for those of AF-KAN's own attention, which are whole.
  matrix = r'^(?!.*global_attn).*/(kernel(_[rgb])?|a|b)$'
  matrices = [path for path in placed if re.search(matrix, path)]
  for path in matrices:
    # The layers in front of others split their outputs, those behind them their inputs.
    own = [axis for axis in placed[path] if axis]
    assert set(own) <= {'fsdp', 'tensor'} and own, path
    assert len(set(own)) == len(own), path
  decayed_not = {path for path in params if re.search(NO_DECAY, path)}
  assert layout.no_decay(model) == decayed_not


# V=257, D=32, N=2, F=64, R=8, L=32.
HEAD, ATTENTION = 32 * 257, 12 * 2 * 32 * 32
DENSE, RANK = LINEARS['dense'](), 8
SQUARES = 4 * 32 * 32


@pytest.mark.parametrize(
  'fields, matrices',
  [
    # Query, key, value, output and up, down, each D x D or D x F.
    ({'linear': DENSE}, 2 * (SQUARES + 2 * 32 * 64)),
    # SwiGLU has a gate beside up.
    ({'linear': DENSE, 'feed_forward': FEED_FORWARDS['glu']()}, 2 * (SQUARES + 3 * 2048)),
    # Two of the four heads for keys and values.
    (
      {'linear': DENSE, 'attention': MIXERS['gqa'](4, 2)},
      2 * (2 * 32 * 32 + 2 * 32 * 16 + 2 * 32 * 64),
    ),
    # W = B A^T: (inputs + outputs) x R.
    ({'linear': LINEARS['low_rank'](RANK)}, 2 * 8 * (4 * (32 + 32) + 2 * (32 + 64))),
    # The frozen kernels have no gradient: 4 of 6.
    (
      {'linear': LINEARS['lora'](RANK)},
      2 * 8 * (4 * (32 + 32) + 2 * (32 + 64)) + 2 * (SQUARES + 2 * 32 * 64) * 4 / 6,
    ),
    # Multiplies by the whole W.
    ({'linear': LINEARS['sltrain'](RANK)}, 2 * (SQUARES + 2 * 32 * 64)),
    # Three kernels a map, whose biases multiply nothing.
    ({'linear': LINEARS['quadratic']()}, 3 * 2 * (SQUARES + 2 * 32 * 64)),
    # Rationals and pruning count nothing.
    ({'linear': DENSE, 'feed_forward': FEED_FORWARDS['kat'](8)}, 2 * (SQUARES + 4096)),
    (
      {
        'linear': DENSE,
        'feed_forward': FEED_FORWARDS['relu2_two_four'](RECIPES['soft_weights']()),
      },
      2 * (SQUARES + 4096),
    ),
  ],
)
@pytest.mark.parametrize('tied', [False, True])
def test_flops(fields, matrices, tied):
  fields = {'attention': MIXERS['mha'](4)} | fields
  model = decoder(vocab_size=257, width=32, feed_forward_width=64, tied_head=tied, **fields)
  # The embedding looks up a row; its matrix multiplies only where it is the head too.
  expected = 6 * (matrices + HEAD) + ATTENTION
  assert flops(model, params_of(model), 32) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('roles', [('in',), ('in', 'out', None), ('in', 'owt')])
def test_axes_that_are_not_those_of_the_parameter_are_refused(roles, monkeypatch):
  model = decoder(LINEARS['dense'](), init_std=0.5)
  monkeypatch.setattr(room(model.linear), 'AXES', {'kernel': roles})
  with pytest.raises(UserError) as error:
    layout.axes(model)
  assert str(error.value) == (
    f"parameter 'layers/attention/key/kernel': its AXES are {roles}; must say of each of "
    "its 2 dimensions one of 'in', 'out', 'rank', None"
  )


def test_matrices_that_are_no_parameters_are_refused(monkeypatch):
  model = decoder(LINEARS['dense'](), init_std=0.5)
  params = params_of(model)
  monkeypatch.setattr(room(model.linear), 'MATRICES', ('krenel',))
  with pytest.raises(UserError, match=r"dense: MATRICES has 'krenel'; must be .*'kernel'"):
    flops(model, params, 8)


def test_what_nobody_declares_is_refused(monkeypatch):
  model = decoder(LINEARS['dense'](), init_std=0.5)  # of no other test: paths are kept
  params = params_of(model)
  monkeypatch.setattr(room(model.linear), 'AXES', {})
  message = r"parameter 'layers/attention/\w+/kernel': no kind declares it"
  for ask in (layout.axes, layout.no_decay, lambda m: flops(m, params, 8)):
    with pytest.raises(UserError, match=message):
      ask(model)
  monkeypatch.undo()
  rows = classifier(norm=NORMS['layer'](), depth=1)
  monkeypatch.setattr(room(rows.norm), 'AXES', {'scale': (None,)})
  with pytest.raises(UserError, match=r"parameter 'network/norm_0/bias': no kind"):
    layout.axes(rows)
  with pytest.raises(UserError, match=r"parameter 'new': no kind"):
    flops(decoder(), {'new': jax.ShapeDtypeStruct((2,), 'float32')}, 8)
