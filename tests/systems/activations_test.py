"""Every activation against NumPy's formula in float64, and gates."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.kinds import room

X = np.concatenate([np.linspace(-8, 8, 161), [-0.0]]).astype(np.float32)
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
# Written apart from the rooms, with other forms of the formulas where there are some.
EXPECTED = {
  'none': lambda x: x,
  'relu': lambda x: (x + abs(x)) / 2,
  'relu2': lambda x: x * (x + abs(x)) / 2,
  'gelu': lambda x: x * math.erfc(-x / 2**0.5) / 2,
  'silu': lambda x: x * (1 + math.tanh(x / 2)) / 2,
  'softplus': lambda x: math.log1p(math.exp(x)),
  'sigmoid': lambda x: (1 + math.tanh(x / 2)) / 2,
  'leaky_relu': lambda x: max(x, 0.01 * x),
  'elu': lambda x: x if x > 0 else math.exp(x) - 1,
  'selu': lambda x: SCALE * (x if x > 0 else ALPHA * (math.exp(x) - 1)),
  'tanh': lambda x: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1),
}
# Those that are not here are held to the truth of their own rooms, by tests/conformance.
CASES = [(name, case) for name in EXPECTED for case in room(ACTIVATIONS[name]).CASES]


@pytest.mark.parametrize('name, case', CASES)
def test_an_activation_and_its_truth_equal_the_formula(name, case):
  case.check('model.activation', None)
  exact = [EXPECTED[name](x) for x in X.astype(np.float64).tolist()]
  truth = room(case).truth(case, X.astype(np.float64), {})
  # The tanh of an approximate GELU is known to be within 5e-4 of the exact one.
  approximate = getattr(case, 'approximate', False)
  np.testing.assert_allclose(truth, exact, atol=5e-4 if approximate else 1e-14)
  assert not approximate or np.abs(truth - exact).max() > 1e-4
  y = case.make(None, 'activation')(jnp.asarray(X))
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, truth, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('case', [case for _, case in CASES if hasattr(case, 'gate')])
def test_a_gate_multiplies(case):
  gate, up = jnp.asarray(X), jnp.asarray(np.cos(X))
  expected = room(case).truth(case, X.astype(np.float64), {}) * np.cos(X.astype(np.float64))
  np.testing.assert_allclose(case.gate(gate, up), expected, rtol=2e-5, atol=2e-6)


def test_the_gate_of_silu_keeps_two_arrays():
  backward = jax.vjp(ACTIVATIONS['silu']().gate, jnp.asarray(X), jnp.asarray(X))[1]
  assert [leaf.shape for leaf in jax.tree.leaves(backward)] == [X.shape, X.shape]


def test_kinds_can_be_keys():
  """They are static arguments of compiled functions."""
  for _, case in CASES:
    assert hash(case) == hash(dataclasses.replace(case))
