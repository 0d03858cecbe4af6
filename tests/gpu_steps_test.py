"""Training steps on a GPU: what is compared, what is refused, what the table says."""

import jax
import jax.numpy as jnp
import pytest

from elas_jax.state import abstract_variables
from elas_jax.tasks import task_of
from experiments import gpu_steps
from pallas_kernels.two_four import dispatch


def test_elas_by_the_kernels_is_what_is_lowered(monkeypatch):
  """The program of each peer has kernels or not, as its name says; nothing is compiled."""
  monkeypatch.setattr(dispatch, '_device', lambda: dispatch.H200)
  monkeypatch.setattr(dispatch, 'TUNED', dispatch.TUNED / 'none')
  kernels = {}
  for name, (method, implementation) in gpu_steps.PEERS.items():
    config = gpu_steps.config_of('60m', method, 2, True)
    kernels[name] = 'copy_gmem_to_smem' in str(
      jax.make_jaxpr(_loss_of(config, implementation))()
    )
  assert [name for name, found in kernels.items() if found] == ['ELAS, kernels']


def _loss_of(config, implementation):
  variables = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), abstract_variables(config)
  )
  batch = gpu_steps.random_batch(config)

  def loss():
    with dispatch.preferring(implementation):
      key = jax.random.key(0)
      return task_of(config).loss_sums(config, variables, batch, key, True)[0]['loss']

  return loss


def test_without_a_gpu_it_says_so(capsys):
  assert gpu_steps.main([]) == 2
  assert 'not available' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('flag', 'accepted'),
  [('--sizes=2b', '60m'), ('--rows=0', 'at least 1'), ('--steps=-1', 'at least 1')],
)
def test_bad_arguments_are_named(flag, accepted, capsys):
  with pytest.raises(SystemExit):
    gpu_steps.main([flag])
  said = capsys.readouterr().err
  assert flag in said and accepted in said


def test_the_table_compares_with_the_control():
  row = lambda ms: {
    'ms': {'median': ms, 'min': ms, 'max': ms},
    'tokens_per_second': 1.0,
    'temporary_bytes': 2e9,
    'kernels': 0,
    'parameters': 3,
  }
  peers = {name: row(ms) for name, ms in zip(gpu_steps.PEERS, (20.0, 10.0, 40.0, 8.0))}
  peers['ELAS, dense XLA'] = {'failed': 'no room'}
  about = dict.fromkeys(('device', 'driver', 'commit', 'source', 'rows', 'repetitions'), 1)
  text = gpu_steps.render(about | {'sizes': {'60m': peers}})
  assert '| 60m | ELAS, kernels | 8.00 | 8.00 | 8.00 | 1.250 |' in text
  assert '| 60m | ELAS, dense XLA | no room |' in text
