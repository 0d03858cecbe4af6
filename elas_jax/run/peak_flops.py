"""Peak rates of devices, which model FLOPs are compared with."""

import jax

# Dense bf16 FLOP/s of one device, by the name that JAX gives it (vendors' data sheets).
PEAK_FLOPS = {
  'NVIDIA A100-SXM4-40GB': 312e12,
  'NVIDIA A100-SXM4-80GB': 312e12,
  'NVIDIA H100 80GB HBM3': 989e12,
  'NVIDIA H200': 989e12,
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
}


def peak_flops() -> float | None:
  """Of all devices of this run together; None where the device is not in the table."""
  peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
  return None if peak is None else peak * len(jax.devices())
