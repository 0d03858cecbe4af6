"""Latent attention: against PyTorch, its state, and decoding that forms no keys."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from elas_jax.common.errors import UserError
from elas_jax.common.memory import tree_bytes
from elas_jax.models.decoder import empty_cache
from elas_jax.systems.linears import LINEARS
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.mixers.mla import CASES, MLA
from elas_jax.systems.positions import POSITIONS
from tests.conftest import thinned
from tests.systems.mixers.recorded import assert_as_recorded
from tests.systems.mixers_test import applied, of

RECORDED = MLA(4, kv_rank=6, nope_size=4, rope_size=6, value_size=3)
DENSE, LOW_RANK = LINEARS['dense'](), LINEARS['low_rank'](rank=3)


@pytest.mark.parametrize('name, rank', [('mla', 0), ('mla_query_rank', 5)])
def test_outputs_equal_recorded_pytorch(name, rank):
  assert_as_recorded(name, dataclasses.replace(RECORDED, query_rank=rank))


def test_a_state_of_plm_has_576_numbers_a_token_and_layer():
  """The sizes of PLM-1.8B (arXiv 2503.12167): 7.1 times fewer than 16 heads of 128."""
  kinds = MLA(), MIXERS['mha'](16)
  model = of(MLA(), width=2048, layers=32).model
  tokens = lambda kind: sum(
    x.size for x in jax.eval_shape(lambda: kind.empty_state(model.parts, 3, 7)).values()
  )
  assert [tokens(kind) / (3 * 7) for kind in kinds] == [576, 4096]


def test_bytes_of_a_state():
  model = of(RECORDED, width=16, layers=2).model
  cache = empty_cache(model, 3, 10)
  assert tree_bytes(cache) == 4 * 2 * 3 * 10 * (6 + 6)
  half = dataclasses.replace(model, compute_dtype='bfloat16')
  assert tree_bytes(empty_cache(half, 3, 10)) == tree_bytes(cache) // 2


def decoded(kind, model, x, variables, absorbs, monkeypatch):
  """Outputs of pieces of a row, keys and values formed or not."""
  monkeypatch.setattr(MLA, 'absorbs', lambda self, parts, queries: absorbs)
  state, start, parts = kind.empty_state(model.parts, len(x), x.shape[1] + 2), 0, []
  for length in (x.shape[1] - 1, 1):
    piece, positions = x[:, start : start + length], start + jnp.arange(length)
    given = piece, positions, state, start, variables
    _, (y, state) = applied(kind, model, *given)
    parts.append(y)
    start += length
  return jnp.concatenate(parts, 1)


@pytest.mark.parametrize(
  'kind, linear, position',
  thinned(
    [
      (kind, linear, position)
      for kind in CASES
      for linear, position in ((DENSE, 'rope'), (LOW_RANK, 'rope'), (LOW_RANK, 'none'))
    ],
    *((CASES[0], LOW_RANK, 'rope'), (CASES[2], DENSE, 'rope')),
  ),
)
def test_absorbed_decoding_equals_that_by_keys_of_heads(
  kind, linear, position, monkeypatch
):
  model = of(kind, linear=linear, position=POSITIONS[position]()).model
  x = jax.random.normal(jax.random.key(1), (2, 5, 8))
  variables, (whole, _) = applied(kind, model, x)
  for absorbs in (True, False):
    y = decoded(kind, model, x, variables, absorbs, monkeypatch)
    close = {'rtol': 1e-4, 'atol': 1e-5 * np.abs(whole).max()}
    np.testing.assert_allclose(y, whole, **close)


def test_in_bfloat16_the_two_are_as_close_as_it_is(monkeypatch):
  kind = CASES[0]
  model = dataclasses.replace(of(kind).model, compute_dtype='bfloat16')
  x = jax.random.normal(jax.random.key(1), (2, 5, 8), jnp.bfloat16)
  variables, _ = applied(kind, model, x)
  ways = [decoded(kind, model, x, variables, way, monkeypatch) for way in (True, False)]
  assert ways[0].dtype == jnp.bfloat16
  absorbed, formed = (np.float32(y) for y in ways)
  assert np.abs(absorbed - formed).max() < 0.03 * np.abs(formed).max()


def largest(kind, linear, queries, cached=1024):
  """Numbers of the largest array that so many queries at once make of a cache."""
  model = of(kind, linear=linear).model
  x = jnp.zeros((1, queries, 8))
  angles = model.position.angles(jnp.arange(queries), kind.head_size(model.parts))
  state = kind.empty_state(model.parts, 1, cached)
  module = kind.make(model.parts, name=None)
  variables = module.init(jax.random.key(0), x, angles, None, 0)
  program = jax.make_jaxpr(module.apply)(variables, x, angles, state, 0)

  def sizes(jaxpr):
    for equation in jaxpr.eqns:
      inner = jaxprs_in_params(equation.params)
      yield from (size for one in inner for size in sizes(one))
      yield from (x.aval.size for x in equation.outvars)

  return max(sizes(program.jaxpr))


@pytest.mark.parametrize('linear', [DENSE, LOW_RANK], ids=str)
def test_one_query_forms_no_keys_of_the_cache(linear):
  kind = MLA(8, kv_rank=6, nope_size=4, rope_size=2, value_size=4)
  # The latents of the cache, and scores of 8 heads.
  assert largest(kind, linear, 1) == 1024 * 8
  # Keys of 8 heads, of 4 + 2 entries, which a map that is no product needs for one query.
  assert largest(kind, LINEARS['cola'](rank=3), 1) == 1024 * 8 * (4 + 2)
  # And of which a prompt makes fewer FLOPs.
  many = 6 * 8 // (2 * 6 - 8)
  assert kind.absorbs(of(kind).model.parts, many)
  assert not kind.absorbs(of(kind).model.parts, many + 1)
  assert largest(kind, linear, many + 1) > 1024 * 8 * (4 + 2)


def test_plm_absorbs_up_to_170_queries_at_once():
  # 512 x 256 products form a key and value; a query saves 2 x 512 - 256 with them.
  parts = of(MLA()).model.parts
  assert MLA().absorbs(parts, 170) and not MLA().absorbs(parts, 171)
  for fields in ({'use_bias': True}, {'linear': LINEARS['lora'](rank=3)}):
    assert not MLA().absorbs(dataclasses.replace(parts, **fields), 1)


def test_flops_are_those_of_both_products_forward_and_backward():
  kind = dataclasses.replace(RECORDED, rope_heads=2)
  # 4 heads, 2 FLOPs for each of 100 keys of 4 + 2 x 6 entries and values of 3, thrice.
  assert kind.flops(of(kind).model.parts, 100) == 4 * 2 * 100 * (16 + 3) * 3


@pytest.mark.parametrize(
  'fields, message',
  thinned(
    [
      *(
        ({name: 0}, f'model.attention.{name}=0: must be at least 1')
        for name in ('heads', 'kv_rank', 'rope_size', 'value_size', 'rope_heads')
      ),
      *(
        ({name: -1}, f'model.attention.{name}=-1: must be at least 0')
        for name in ('query_rank', 'nope_size')
      ),
      ({'rope_size': 3}, 'model.attention.rope_size=3: must be even, since rotary'),
      ({'kv_rank': 2**60}, f'its outputs={2**60}: an array of the layers x inputs of '),
    ],
    ({'rope_size': 3}, 'model.attention.rope_size=3: must be even, since rotary'),
  ),
)
def test_refused(fields, message):
  kind = dataclasses.replace(CASES[0], **fields)
  with pytest.raises(UserError, match=message):
    kind.check('model.attention', of(kind))


def test_odd_sizes_are_refused_by_rotation_only():
  kind = dataclasses.replace(CASES[0], rope_size=3)
  kind.check('model.attention', of(kind, position=POSITIONS['none']()))
