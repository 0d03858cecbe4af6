"""A set of labelled images of TensorFlow Datasets, such as mnist or cifar10, on the disk.

It needs features `image`, of one shape, and `label`, a split `train`, and `validation` or,
without that, `test`. Decoded once into data.cache_dir; pixels are in [-1, 1].
"""

import dataclasses
import pathlib
from typing import Any

from elas_jax.common.places import check_place
from elas_jax.data import rows
from elas_jax.data.catalogue import check_name
from elas_jax.data.tiny_set import write_set
from elas_jax.systems.kinds import place


@dataclasses.dataclass(frozen=True)
class TfdsImages:
  """A prepared set of the catalogue."""

  name: str = 'mnist'  # SET or SET/CONFIG (the default is ours)
  data_dir: str = place()  # where TFDS keeps its sets, '' = its own default

  def check(self, where: str, config: Any) -> None:
    check_name(f'{where}.name', self.name)
    check_place(f'{where}.data_dir', self.data_dir)

  def rows(self, data: Any) -> rows.PreparedRows:
    return rows.of_set(self.name, self.data_dir, data.cache_dir)

  def label(self) -> str:
    return self.name

  def shown(self) -> str:
    return f'data.source.name={self.name!r}'


def CASES(folder: pathlib.Path) -> tuple[TfdsImages, ...]:
  """Of a set that is prepared in `folder`."""
  import io

  import numpy as np
  import PIL.Image
  from tensorflow_datasets import features

  def example(number: int) -> dict[str, Any]:
    file = io.BytesIO()  # TFDS would encode arrays with TensorFlow
    PIL.Image.fromarray(np.full((8, 8), number, np.uint8)).save(file, 'PNG')
    return {'image': file.getvalue(), 'label': number % 2}

  kinds = {
    'image': features.Image(shape=(8, 8, 1)),
    'label': features.ClassLabel(names=['even', 'odd']),
  }
  examples = [example(number) for number in range(12)]
  splits = {'train': examples[:8], 'test': examples[8:]}
  write_set(folder, 'tiny_images', kinds, splits)
  return (TfdsImages('tiny_images', str(folder)),)


# No truth: these are measurements. tests/data/rows_test.py compares them with the set's.
