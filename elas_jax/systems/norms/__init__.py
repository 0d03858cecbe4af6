"""Normalisations by name: make(parts, name, train=False) -> x (..., D) to the same.

A kind whose result for a row depends on other rows says so: mixes_rows() -> True, or the
name of the field that makes it so. truth(kind, x, p).
"""

from elas_jax.systems.norms.batch import Batch
from elas_jax.systems.norms.evonorm_b0 import EvoNormB0
from elas_jax.systems.norms.evonorm_s0 import EvoNormS0
from elas_jax.systems.norms.layer import Layer
from elas_jax.systems.norms.none import NoNorm
from elas_jax.systems.norms.rms import RMS

NORMS = {
  'rms': RMS,
  'layer': Layer,
  'batch': Batch,
  'none': NoNorm,
  'evonorm_s0': EvoNormS0,
  'evonorm_b0': EvoNormB0,
}
