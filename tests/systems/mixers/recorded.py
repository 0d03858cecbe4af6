"""tests/golden/attention.npz: what attention modules of PyTorch give."""

import numpy as np
from flax.traverse_util import unflatten_dict

from elas_jax.systems.norms import NORMS
from tests.conftest import ROOT
from tests.systems.mixers_test import applied, of


def recorded(name: str) -> tuple:
  """(x, parameters, {module: y}) of a case."""
  with np.load(ROOT / 'tests/golden/attention.npz') as arrays:
    below = lambda part: {
      x.removeprefix(f'{name}/{part}/'): arrays[x]
      for x in arrays.files
      if x.startswith(f'{name}/{part}/')
    }
    return arrays['x'], unflatten_dict(below('weights'), sep='/'), below('y')


def assert_as_recorded(name: str, kind) -> None:
  """The output of a mixer with the recorded weights, within rounding of float32."""
  x, params, outputs = recorded(name)
  assert NORMS['rms']().epsilon == 1e-6  # of the recorded modules
  _, (y, _) = applied(kind, of(kind, width=16).model, x, variables={'params': params})
  assert outputs
  for expected in outputs.values():
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=1e-5 * np.abs(expected).max())
