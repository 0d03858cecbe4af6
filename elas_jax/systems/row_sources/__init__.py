"""Labelled rows: kinds of data.source of classification and regression.

Each has `rows(data)`, data/rows.py:PreparedRows, of the config's section `data`; `label()`,
its name in records and tables; and `shown()`, how messages name it.
"""

from elas_jax.systems.row_sources.digits import Digits
from elas_jax.systems.row_sources.function import Function
from elas_jax.systems.row_sources.mnist1d import Mnist1d
from elas_jax.systems.row_sources.shape import Shape
from elas_jax.systems.row_sources.tfds_images import TfdsImages

ROW_SOURCES = {
  'digits': Digits,
  'function': Function,
  'mnist1d': Mnist1d,
  'shape': Shape,
  'tfds_images': TfdsImages,
}
