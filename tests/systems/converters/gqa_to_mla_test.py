"""Attention made into latent attention: equal outputs, and what it leaves out otherwise."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax import convert, evaluate
from elas_jax.common.errors import UserError
from elas_jax.config.checks import check
from elas_jax.run.conversion import check_variables
from elas_jax.run.state import abstract_variables
from elas_jax.systems.converters import gqa_to_mla
from elas_jax.systems.converters.gqa_to_mla import GQAToMLA
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.positions import POSITIONS
from tests.conformance.hosts import batch, given, language, transformer
from tests.conftest import ROOT, thinned

GQA = MIXERS['gqa'](heads=4, kv_heads=2)
KINDS = [
  MIXERS['mha'](heads=2),
  GQA,
  MIXERS['mqa'](heads=4),
  MIXERS['sqa'](heads=4, query_heads=2, kv_heads=2),
]


def decoder(**fields):
  """Of D 16, so that a head of four has two frequencies."""
  return language(**{'width': 16, 'attention': GQA, 'init_std': 0.4} | fields)


def converted(converter, config):
  """(given, its lines, the new config, the new variables), of drawn variables."""
  random = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(0.4 * random.normal(size=x.shape), x.dtype)
  variables, said = jax.tree.map(draw, abstract_variables(config)), []
  told = given(config, variables, said)
  converter.check('converter', config)
  new_config, new = converter.convert(told)
  check(new_config)
  check_variables(new_config, new, 'gqa_to_mla')
  return told, said, new_config, new


def change(converter, config):
  """By how much the largest logit changes, of all of them."""
  told, _, new_config, new = converted(converter, config)
  before, after = (
    told.outputs(*model, batch(config))[0]
    for model in ((config, told.variables), (new_config, new))
  )
  assert np.abs(before).max() > 1
  return np.abs(after - before).max() / np.abs(before).max()


@pytest.mark.parametrize('position', thinned(POSITIONS, 'rope'))
@pytest.mark.parametrize('kind', KINDS)
def test_outputs_stay(kind, position):
  assert change(GQAToMLA(), decoder(attention=kind, position=POSITIONS[position]())) < 1e-5


@pytest.mark.parametrize('kind', thinned(KINDS, GQA))
def test_keys_turned_among_heads_give_the_same(kind):
  """With all of them still rotated, RoRoPE changes nothing."""
  assert GQAToMLA().equal and not GQAToMLA(rope_heads=1).equal
  assert change(GQAToMLA(rope_heads=kind.groups), decoder(attention=kind)) < 1e-5


def test_the_state_is_what_it_was():
  _, said, config, _ = converted(GQAToMLA(), decoder())
  assert config.model.attention == MIXERS['mla'](
    heads=4,
    kv_rank=8,
    nope_size=0,
    rope_size=4,
    value_size=4,
    rope_heads=2,
    latent_norm=False,
  )
  assert said == ['numbers of a token in the state of a layer: 16 -> 16']
  _, said, config, _ = converted(GQAToMLA(rope_heads=1, kv_rank=3), decoder())
  found = config.model.attention
  assert (found.kv_rank, found.nope_size, found.rope_heads) == (3, 4, 1)
  assert said == ['numbers of a token in the state of a layer: 16 -> 7']


def of_rows(config, variables):
  """Inputs, queries, keys and values of the first layer's attention, in float64."""
  told = given(config, variables, [])
  _, sown = told.outputs(config, variables, batch(config), ('keys_values',))
  (seen,) = sown['keys_values'].values()
  p = jax.tree.map(lambda x: np.float64(x[0]), variables['params']['layers']['attention'])
  x = np.random.default_rng(1).normal(size=(2, 5, 16))
  heads = lambda name: (x @ p[name]['kernel']).reshape(2, 5, -1, 4)
  return np.float64(seen[0]), x, *map(heads, ('query', 'key', 'value')), p


def turned_of_pairs(seen):
  """U (2, J, J) of the two frequencies, by SVD of the real and imaginary parts together."""
  keys = seen[:, :8].reshape(-1, 2, 2, 2)  # rows, J, halves, frequencies
  samples = keys.transpose(3, 0, 2, 1).reshape(2, -1, 2)
  return np.linalg.svd(samples, full_matrices=False)[2].swapaxes(-1, -2)


def test_partial_rotation_equals_numpy():
  """Keys and queries in complex numbers, the first head's rotated by their positions."""
  config = decoder()
  told, _, new_config, new = converted(GQAToMLA(rope_heads=1), config)
  seen, x, q, k, v, p = of_rows(config, told.variables)
  complex_of = lambda z: z[..., :2] + 1j * z[..., 2:]  # (B, L, heads, frequencies)
  u_FxJxC = turned_of_pairs(seen)
  own_FxHxC = u_FxJxC[:, [0, 0, 1, 1]]
  k_c = np.einsum('bljf,fjc->blcf', complex_of(k), u_FxJxC)
  q_c = np.einsum('blhf,fhc->blhcf', complex_of(q), own_FxHxC)
  angles = np.exp(1j * np.outer(np.arange(5), [1.0, 10000**-0.5]))
  rotated = np.stack([angles, np.ones_like(angles)], 1)  # (L, C, F)
  k_c, q_c = k_c * rotated[None], q_c * rotated[None, :, None]
  s = np.einsum('blhcf,bscf->bhls', q_c, k_c.conj()).real / 2
  s = np.where(np.tril(np.ones((5, 5), bool)), s, -np.inf)
  weights = np.exp(s) / np.exp(s).sum(-1, keepdims=True)
  y = np.einsum('bhls,bshk->blhk', weights, v[:, :, [0, 0, 1, 1]]).reshape(2, 5, -1)
  expected = y @ p['output']['kernel']
  model, mixer = new_config.model, new_config.model.attention
  params = jax.tree.map(lambda x: x[0], new['params']['layers']['attention'])
  given_angles = model.position.angles(jnp.arange(5), mixer.head_size(model.parts))
  module = mixer.make(model.parts, name=None)
  found, _ = module.apply({'params': params}, jnp.float32(x), given_angles, None, 0)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('balance', [1.0, 3.0])
def test_the_latent_has_the_principal_components(balance):
  """Of keys that are not rotated, over the ratio, beside values: all by SVD."""
  config = decoder()
  told, _, _, new = converted(GQAToMLA(rope_heads=1, kv_rank=5, balance=balance), config)
  seen, *_, p = of_rows(config, told.variables)
  u_KxJ = np.tile(turned_of_pairs(seen)[:, :, 1], (2, 1))  # of the head that goes in
  nope = np.einsum('tjk,kj->tk', seen[:, :8].reshape(-1, 2, 4), u_KxJ)
  values = seen[:, 8:]
  norms = [np.linalg.norm(z, axis=0).mean() for z in (nope, values)]
  ratio = norms[0] / norms[1] / balance
  samples = np.concatenate([nope / ratio, values], 1)
  basis = np.linalg.svd(samples, full_matrices=False)[2][:5].T
  kernels = [p[name]['kernel'] for name in ('key', 'value')]
  into_nope = np.einsum('djk,kj->dk', kernels[0].reshape(16, 2, 4), u_KxJ) / ratio
  latent = np.concatenate([into_nope, kernels[1]], 1) @ basis
  found = jax.tree.map(lambda x: x[0], new['params']['layers']['attention'])
  alike = lambda a, b: np.testing.assert_allclose(
    np.abs(a), np.abs(b), rtol=1e-3, atol=1e-4
  )
  alike(found['latent']['kernel'], latent)  # but for signs of components
  # What each head of keys and values makes of them: the first group's is that of two heads.
  value = found['value']['kernel'].reshape(5, 4, 4)
  np.testing.assert_array_equal(value[:, 0], value[:, 1])
  projected = latent @ basis.T
  made = np.einsum('dc,chk->dhk', found['latent']['kernel'], value)[:, [0, 2]]
  close = {'rtol': 1e-3, 'atol': 1e-4}
  np.testing.assert_allclose(made.reshape(16, 8), projected[:, 4:], **close)
  key = found['key']['kernel'].reshape(5, 4, 4)
  made = np.einsum('dc,chk->dhk', found['latent']['kernel'], key)[:, [0, 2]]
  own_HxK = np.tile(turned_of_pairs(seen)[:, :, 1], (2, 1)).T
  expected = ratio * projected[:, None, :4] * own_HxK[None]
  np.testing.assert_allclose(made, expected, **close)


def test_all_components_leave_nothing_out():
  few, all_of_them = GQAToMLA(rope_heads=1), GQAToMLA(rope_heads=1, kv_rank=12)
  outputs = []
  for converter in (few, all_of_them):
    told, _, *model = converted(converter, decoder())
    outputs.append(told.outputs(*model, batch(decoder()))[0])
  np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5 * np.abs(outputs[0]).max())


def test_moments_are_of_all_rows(monkeypatch):
  monkeypatch.setattr(gqa_to_mla, 'PASS', 3)  # of four rows
  config = decoder()
  told, *_ = converted(GQAToMLA(), config)
  seen, *_ = of_rows(config, told.variables)
  (found,) = gqa_to_mla.moments(told).values()
  np.testing.assert_allclose(found[0], seen.T @ seen, rtol=1e-4, atol=1e-4)


def test_other_mixers_of_a_pattern_stay():
  mixer = MIXERS['linear_attention'](heads=2)
  config = decoder(mixers=(mixer,), pattern='attention,linear_attention')
  told, _, new_config, new = converted(GQAToMLA(), config)
  before, after = (
    x['layers']['layer_1'] for x in (told.variables['params'], new['params'])
  )
  jax.tree.map(np.testing.assert_array_equal, before, after)
  assert new_config.model.mixers == (mixer,)
  assert new_config.model.pattern == config.model.pattern
  assert change(GQAToMLA(), config) < 1e-5


@pytest.mark.parametrize(
  'converter, config, message',
  [
    (GQAToMLA(), lambda: transformer(), "task='classification': must be 'language'"),
    (
      GQAToMLA(),
      lambda: decoder(attention=MIXERS['linear_attention'](2)),
      "model.attention='linear_attention': must be one of 'mha', 'gqa', 'mqa', 'sqa', ",
    ),
    (
      GQAToMLA(),
      lambda: decoder(attention=MIXERS['mha'](2, qk_norm=True)),
      'model.attention.qk_norm=True: must be False, since mla has none',
    ),
    (
      GQAToMLA(),
      lambda: decoder(linear=LINEARS['low_rank'](rank=3)),
      "model.linear='low_rank': must be 'dense'; --converter=merge makes it so",
    ),
    (GQAToMLA(-1), decoder, 'converter.rope_heads=-1: must be at least 0'),
    (GQAToMLA(3), decoder, 'converter.rope_heads=3: must be at most 2, the key-value'),
    (
      GQAToMLA(1),
      lambda: decoder(position=POSITIONS['none']()),
      'converter.rope_heads=1: must be 0 with a model.position that turns no keys',
    ),
    (GQAToMLA(kv_rank=-1), decoder, 'converter.kv_rank=-1: must be at least 0'),
    (GQAToMLA(kv_rank=9), decoder, 'converter.kv_rank=9: must be at most 8, the entries'),
    (GQAToMLA(1, 13), decoder, 'converter.kv_rank=13: must be at most 12, the entries'),
    (GQAToMLA(balance=0.0), decoder, 'converter.balance=0.0: must be above 0'),
  ],
)
def test_refused(converter, config, message):
  with pytest.raises(UserError, match=message):
    converter.check('converter', config())


@pytest.mark.conformance
def test_a_run_is_evaluated_as_before(tmp_path, monkeypatch):
  for name in ('lora_relora', 'corpus'):
    shutil.copytree(ROOT / 'tests/fixtures/version_0' / name, tmp_path / name)
  monkeypatch.chdir(tmp_path)
  found = []
  for name, source, converter in (
    ('dense', 'lora_relora', 'merge'),
    ('latent', 'dense', 'gqa_to_mla'),
  ):
    places = f'--workdir={source}', f'--output={name}'
    convert.main([*places, f'--converter={converter}'])
    evaluate.main([f'--workdir={name}'])
    found.append(json.loads((tmp_path / name / 'evaluation.json').read_text()))
  assert found[0].keys() == found[1].keys()
  for name, value in found[0].items():
    np.testing.assert_allclose(found[1][name], value, rtol=1e-5, err_msg=name)
