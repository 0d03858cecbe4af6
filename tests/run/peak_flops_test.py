"""Peak rates of devices."""

import jax

from elas_jax.run import peak_flops as rates
from elas_jax.run.peak_flops import peak_flops


def test_peak_is_that_of_all_devices_or_unknown(monkeypatch):
  assert peak_flops() is None
  kind = jax.devices()[0].device_kind
  monkeypatch.setitem(rates.PEAK_FLOPS, kind, 5e12)
  assert peak_flops() == 4 * 5e12
