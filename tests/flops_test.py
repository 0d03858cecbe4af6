"""Model FLOPs against numbers worked out by hand."""

import jax
import pytest

from elas_jax.run import flops
from elas_jax.run.flops import flops_per_token, peak_flops
from elas_jax.run.state import abstract_variables

# V=257, D=32, N=2, F=64, R=8, L=32.
ATTENTION = 12 * 2 * 32 * 32
HEAD = 32 * 257


@pytest.mark.parametrize(
  'overrides, matrices',
  [
    # Query, key, value, output and up, down, each D x D or D x F.
    ({'model.linear': 'dense'}, 2 * (4 * 32 * 32 + 2 * 32 * 64)),
    # SwiGLU has a gate beside up.
    (
      {'model.linear': 'dense', 'model.feed_forward': 'swiglu'},
      2 * (4 * 32 * 32 + 3 * 32 * 64),
    ),
    # Two of the four heads for keys and values.
    (
      {'model.linear': 'dense', 'model.kv_heads': 2},
      2 * (2 * 32 * 32 + 2 * 32 * 16 + 2 * 32 * 64),
    ),
    # W = B A^T: (inputs + outputs) x R.
    ({'model.linear': 'low_rank'}, 2 * 8 * (4 * (32 + 32) + 2 * (32 + 64))),
    # The frozen kernels have no gradient: 4 of 6.
    (
      {'model.linear': 'lora'},
      2 * 8 * (4 * (32 + 32) + 2 * (32 + 64)) + 2 * (4 * 32 * 32 + 2 * 32 * 64) * 4 / 6,
    ),
    # Multiplies by the whole W.
    ({'model.linear': 'sltrain'}, 2 * (4 * 32 * 32 + 2 * 32 * 64)),
  ],
)
@pytest.mark.parametrize('tied', [False, True])
def test_flops_per_token(make_config, overrides, matrices, tied):
  config = make_config(
    **{'model.feed_forward': 'relu2', 'model.tied_head': tied} | overrides
  )
  params = abstract_variables(config)['params']
  # The embedding looks up a row; its matrix multiplies only where it is the head too.
  expected = 6 * (matrices + HEAD) + ATTENTION
  actual = flops_per_token(config.model, params, sequence_length=32)
  assert actual == pytest.approx(expected, rel=1e-9)


def test_peak_is_that_of_all_devices_or_unknown(monkeypatch):
  assert peak_flops() is None
  kind = jax.devices()[0].device_kind
  monkeypatch.setitem(flops.PEAK_FLOPS, kind, 5e12)
  assert peak_flops() == 4 * 5e12
