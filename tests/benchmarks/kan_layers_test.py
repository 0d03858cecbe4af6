"""Benchmarks of single layers: their memory by hand, and what they write."""

import json

import jax
import pytest

from benchmarks import kan_layers, microbenchmark, rational_backward
from elas_jax.common.errors import UserError
from tests.conftest import thinned

# Functions of an input, by hand, of the grids and orders of configs/rows.py.
BASES = {
  'gr_kan': 1,
  'bspline': 5 + 3,
  'chebyshev': 3 + 1,
  'polynomial': 3 + 1,
  'fourier': 2 * 5,
  'wavelet': 4,
  'fast': 8,
  'faster': 8,
  'bsrbf': 5 + 3,
  'relu': 3 + 3,
  'af': 3 + 3,
  'skan': 1,
  'selectable': (5 + 3) + (3 + 1) + 5 + 5,
}


@pytest.fixture
def optimised():
  """The other tests do without XLA's optimisations; what it fuses is what memory is."""
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


@pytest.mark.parametrize('family', thinned(kan_layers.models(), 'af'))
def test_a_layer_holds_one_basis_of_a_row_and_little_beside(family, optimised):
  """And nothing of inputs x bases x outputs, 64 times as much here."""
  model, O = kan_layers.models()[family], 64
  temporary = [
    microbenchmark.temporary_bytes(microbenchmark.compiled(function, *inputs))
    for function, inputs in (
      kan_layers.forward(model, (rows, 256, O)) for rows in (128, 256)
    )
  ]
  bases = BASES[family]
  assert kan_layers.bases(model.linear) == bases
  basis = 4 * 256 * bases
  slope = (temporary[1] - temporary[0]) / (128 * basis)
  case = {'slope': slope, 'basis': bases}
  # af holds two more values of an input, which count beside its small basis.
  assert slope < (1.4 if family == 'af' else 1.25)
  assert kan_layers.beside(case) <= kan_layers.BESIDE


@pytest.mark.parametrize('module', thinned([kan_layers, rational_backward], kan_layers))
def test_benchmarks_of_layers_write_their_table(module, tmp_path, monkeypatch):
  one = {'fast': kan_layers.models()['fast']}
  monkeypatch.setattr(kan_layers, 'models', lambda: one)
  module.main(['--smoke', '--repetitions=1', f'--output={tmp_path}'])
  (path,) = tmp_path.glob('*.json')
  cases = json.loads(path.read_text())['cases']
  text = path.with_suffix('.md').read_text()
  assert 'A smoke run' in text and all(case['name'] in text for case in cases)
  with pytest.raises(UserError, match="--repetitions: '0': must be an integer from 1"):
    module.main(['--repetitions=0'])
