"""Model FLOPs of a training step, and the peak rates they are compared with."""

import re
from typing import Any

import jax

from elas_jax.common.paths import path_name
from elas_jax.config.config import ModelConfig

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


# Layers of more than matrices, and which of their parameters those are.
VARIANTS = re.compile(r'/(kan|quadratic|rational_[12])/')
KERNELS = re.compile(r'/(coefficients|kernel(_[rgb])?|base|k)$')


def flops_per_token(config: ModelConfig, params: Any, sequence_length: int) -> float:
  """Model FLOPs of forward and backward for one token, in the convention of PaLM.

  6 per entry of every matrix that multiplies activations (low-rank factors count as
  they are, a tied embedding counts once, as the head) plus 12 N H K L for attention,
  which ignores the causal half (arXiv 2204.02311, appendix B). Lora's frozen kernels
  count 4, having no gradient; sltrain multiplies by the whole W that it forms, so its I O
  entries count and not the factors. Recomputation under remat and the forming of that W
  do not count: this is what the model needs, not what the hardware does. Nor does 2:4
  lower it. Of quadratic, Kolmogorov-Arnold and rational layers matrices alone count, of
  inputs times basis where there is one.
  """
  matrices, frozen = 0, config.linear == 'lora'
  flat = jax.tree_util.tree_leaves_with_path(params)
  leaves = {path_name(path): leaf for path, leaf in flat}
  for name, leaf in leaves.items():
    if name.endswith('norm/scale') or (name == 'embedding' and not config.tied_head):
      continue
    if config.linear == 'sltrain' and name.startswith('layers/'):
      if name.endswith('/a'):  # (N, I, R), beside b (N, R, O)
        matrices += leaf.size // leaf.shape[-1] * leaves[name[:-1] + 'b'].shape[-1]
      continue
    if VARIANTS.search(name) and not KERNELS.search(name):
      continue
    share = 2 / 3 if frozen and name.endswith('/kernel') else 1
    matrices += share * leaf.size
  return 6 * matrices + 12 * config.layers * config.width * sequence_length


def peak_flops() -> float | None:
  """Of all devices of this run together; None where the device is not in the table."""
  peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
  return None if peak is None else peak * len(jax.devices())
