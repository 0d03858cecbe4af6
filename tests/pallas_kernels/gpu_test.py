"""The kernels on a Hopper GPU, against the reference in XLA and against themselves.

python -m pytest --confcutdir=tests/pallas_kernels -m gpu tests/pallas_kernels/gpu_test.py
"""

import pytest

from pallas_kernels.bench import checks, tasks
from pallas_kernels.two_four.cases import published

pytestmark = pytest.mark.gpu
SEED = 7
# One of each operation, of a width that no tile divides; and one layer of whole tiles.
PUBLISHED = {
  **{case.op: case for case in published() if case.shape.get('F') == 4112},
  **{case.op: case for case in published() if case.shape.get('K') == 4112},
  'wide matmul': next(case for case in published() if case.shape.get('N') == 2048),
}


@pytest.fixture(autouse=True)
def on_hopper():
  if why := tasks.unavailable():
    pytest.skip(why)


@pytest.mark.parametrize('name', checks.contact(SEED))
def test_small(name):
  """Every small case, one-hot products, both axes at once, and all gradients; 20 runs."""
  result = checks.run_contact(name, SEED)
  assert result['passed'], result


@pytest.mark.parametrize('name', PUBLISHED)
def test_published(name):
  result = checks.check_case(PUBLISHED[name], SEED, runs=5)
  assert result['passed'], result
