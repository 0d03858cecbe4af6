"""Every kind and case against its formula, and what it says of its parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.common.paths import path_name
from elas_jax.systems.kinds import axes, flops, no_decay, room
from elas_jax.systems.linears import LINEARS
from tests.systems.linears.layers import (
  config_of,
  layer_of,
  normal,
  randomised,
  shapes_of,
  start,
  wide,
)

NAMES = (
  *('dense', 'low_rank', 'cola', 'lora', 'sltrain', 'lost', 'masked', 'quadratic'),
  'rational',
)
CASES = [case for name in NAMES for case in room(LINEARS[name]).CASES]
D, F = 8, 16


@pytest.mark.parametrize('kind', CASES, ids=str)
def test_output_by_formula(kind):
  x = normal(2, 5, D)
  layer = layer_of(kind, F, use_bias=True)
  shapes = shapes_of(layer, x)
  variables = randomised(start(layer, x) if 'buffers' in shapes else shapes)
  p = wide(variables['params'] | variables.get('buffers', {}))
  expected = room(kind).truth(kind, np.float64(x), p)
  both = lambda v, x: (layer.apply(v, x), layer.apply(v, x.astype(jnp.bfloat16)))
  y, small = jax.jit(both)(variables, x)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
  assert small.dtype == jnp.bfloat16
  error = np.linalg.norm(np.float64(small) - expected)
  assert error < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize('use_bias', [False, True])
@pytest.mark.parametrize('kind', CASES, ids=str)
def test_axes_cover_parameters_and_buffers(kind, use_bias):
  shapes = shapes_of(layer_of(kind, F, use_bias=use_bias), normal(2, D))
  flat = jax.tree_util.tree_leaves_with_path(shapes)
  names = {path_name(path[1:]): leaf.shape for path, leaf in flat}
  roles = axes(kind)
  sizes = {'in': D, 'out': F, 'rank': getattr(kind, 'rank', None)}
  for name, shape in names.items():
    assert len(roles[name]) == len(shape), name
    for role, size in zip(roles[name], shape):
      assert role is None or sizes[role] == size, name
  assert set(no_decay(kind)) <= set(roles)
  biases = {name for name in names if 'bias' in name}
  assert biases <= set(no_decay(kind))
  # b_g of quadratic maps is needed in any case.
  needed = {'bias_g'} if 'kernel_g' in names else set()
  assert biases >= needed and (biases > needed) == use_bias


FLOPS = {
  'dense': 6 * D * F,
  'low_rank': 6 * 4 * (D + F),
  'cola': 6 * 4 * (D + F),
  'lora': 4 * D * F + 6 * 4 * (D + F),
  'sltrain': 6 * D * F,
  'lost': 6 * (3 * (D + F) + 2 * F),
  'masked': 6 * D * F,
  'quadratic': 6 * 3 * D * F,
  'rational': 6 * D * F,
}


@pytest.mark.parametrize('name', NAMES)
def test_flops_of_the_first_case(name):
  kind = room(LINEARS[name]).CASES[0]
  shapes = shapes_of(layer_of(kind, F, use_bias=True), normal(2, D))['params']
  flat = jax.tree_util.tree_leaves_with_path(shapes)
  assert flops(kind, {path_name(path): leaf.shape for path, leaf in flat}) == FLOPS[name]


@pytest.mark.parametrize('kind', CASES, ids=str)
def test_cases_pass_their_check(kind):
  widths = {'model.width': D, 'model.feed_forward_width': F}
  # The form 'square' is for classifiers and regressors alone.
  task = 'classification' if getattr(kind, 'form', '') == 'square' else 'language'
  kind.check('model.linear', config_of(task, width=D, hidden=F, **widths))
