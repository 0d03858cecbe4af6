"""Labelled rows in memory: images, tables, points of a function.

Each function here gives two splits of arrays. A row is an input of shape (I,) or (H, W, C)
and a target, a class (int32) or a vector of values (float32).
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import random
import sys
from collections.abc import Sequence

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.places import place
from elas_jax.data import cache, catalogue, duplicates, functions
from elas_jax.data.file_hashes import hash_files
from elas_jax.data.hashing import fingerprint
from elas_jax.data.record import SPLITS, Record, first_name, listed

FORMAT_VERSION = 2  # raise it when the rows of the same set change
DATA_DIR = 'data.source.data_dir'


# (inputs, targets) of the train and the validation split.
Splits = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class RowSet:
  """One split.

  Attributes:
    inputs: float32 (n, ...), or uint8 images, which are read as x / 127.5 - 1.
    targets: int32 (n,) classes, or float32 (n, outputs) values.
    fingerprint: of both.
  """

  inputs: np.ndarray
  targets: np.ndarray
  fingerprint: str

  unit = 'rows'
  lost_share = 0.0  # of a text

  def __len__(self) -> int:
    return len(self.inputs)

  def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """Rows by number: inputs float32 (b, ...), targets, valid int32[b] of ones."""
    inputs = self.inputs[np.asarray(numbers)]
    if inputs.dtype == np.uint8:
      inputs = inputs.astype(np.float32) / 127.5 - 1
    valid = np.ones(len(inputs), np.int32)
    return {'inputs': inputs, 'targets': self.targets[np.asarray(numbers)], 'valid': valid}


@dataclasses.dataclass(frozen=True)
class PreparedRows:
  """What training and evaluation read."""

  train: RowSet
  validation: RowSet
  class_names: tuple[str, ...]  # empty for values
  source: str
  hashes: dict[str, dict[str, str]]  # of the files that they come from

  def describe(self) -> dict:
    """What a model needs of its data wherever it is used, as JSON."""
    return {'class_names': list(self.class_names)}

  def record(self) -> Record:
    """By what a continued run knows its data again."""
    both = (('train', self.train), ('validation', self.validation))
    return {
      'source': self.source,
      'class_names': list(self.class_names),
      'splits': {x: {'fingerprint': s.fingerprint, 'rows': len(s)} for x, s in both},
      'files': listed(self.hashes),
    }


def of_function(points: functions.Points) -> PreparedRows:
  """Points of a function, by its name; UserError if one split has none."""
  return _drawn(points, functions.draw(points), ())


def of_shape(points: functions.Points) -> PreparedRows:
  """Points of a shape, by its name; UserError if one split has none."""
  return _drawn(points, functions.draw_classes(points), ('0', '1'))


def _drawn(
  points: functions.Points, splits: Splits, names: tuple[str, ...]
) -> PreparedRows:
  return _split_rows(points.name, splits, names, points.validation_share)


def _split_rows(
  source: str, splits: Splits, names: tuple[str, ...], share: float
) -> PreparedRows:
  """The rows of both splits, which were divided by data.source.validation_share."""
  for name, (inputs, _) in zip(SPLITS, splits):
    if not len(inputs):
      raise UserError(
        f'data.source.validation_share={share!r}: leaves the {name} split without rows; '
        'both need one'
      )
  sets = [_row_set(*split) for split in splits]
  return PreparedRows(*sets, class_names=names, source=source, hashes={})


def _row_set(inputs: np.ndarray, targets: np.ndarray) -> RowSet:
  return RowSet(inputs, targets, rows_fingerprint(inputs, targets))


def rows_fingerprint(*arrays: np.ndarray) -> str:
  """Of shapes, types and values."""
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(f'{array.dtype.str} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()[:20]


def digits(validation_share: float) -> PreparedRows:
  """The 1797 handwritten digits of 8 x 8 that come with scikit-learn, in [-1, 1].

  A row goes to validation by the hash of its pixels. UserError if one split has none.
  """
  from sklearn import datasets

  found = datasets.load_digits()
  images = (found.images / 8 - 1).astype(np.float32)[..., None]
  hashes = [hashlib.sha256(image.tobytes()).digest()[:8] for image in images]
  order = np.array([int.from_bytes(x, 'big') for x in hashes])
  held_out = order < np.quantile(order, validation_share)
  targets = found.target.astype(np.int32)
  splits = [(images[rows], targets[rows]) for rows in (~held_out, held_out)]
  names = tuple(map(str, found.target_names))
  return _split_rows('digits', splits, names, validation_share)


@functools.cache  # it takes two seconds
def mnist1d() -> PreparedRows:
  """The sequences of the package `mnist1d`, (40, 1, 1), as its authors split them.

  Mean and variance are 0 and 1 over both splits. They are drawn by the legacy generator of
  NumPy, whose stream is fixed, and interpolated and filtered by SciPy, in which float64 may
  round otherwise: then a few of the float32 here would change, and the fingerprints.
  """
  from mnist1d.data import make_dataset  # it imports requests and matplotlib.pyplot

  states = random.getstate(), np.random.get_state()
  try:
    made = make_dataset()  # it seeds both, for all the process
  finally:
    random.setstate(states[0])
    np.random.set_state(states[1])
  sets = [
    _row_set(made[x].astype(np.float32)[..., None, None], made[y].astype(np.int32))
    for x, y in (('x', 'y'), ('x_test', 'y_test'))
  ]
  names = tuple(map(str, made['templates']['y']))
  return PreparedRows(*sets, class_names=names, source='mnist1d', hashes={})


def of_set(source: str, data_dir: str, cache_dir: str) -> PreparedRows:
  """A prepared TFDS set of labelled images, decoded once into the cache.

  Args:
    source: its name.
    data_dir: where TFDS keeps its sets; '' is TFDS's own default.
    cache_dir: data.cache_dir.

  Raises:
    UserError: it is not prepared or has no images with labels.
  """
  own = ('digits', 'function', 'mnist1d', 'shape')  # kinds of data.source, and no sets
  folder = catalogue.find_folder(source, data_dir, own)
  files = catalogue.list_files(folder)
  field = first_name(DATA_DIR)
  found = hash_files(files, cache_dir, f'{source} {field} {folder}')
  name = fingerprint(FORMAT_VERSION, source, {field: found})
  made = cache.make_folder(
    place('data.cache_dir', cache_dir),
    f'rows/{name}',
    functools.partial(_decode, source, folder),
  )
  meta = json.loads((made / cache.META).read_text())
  load = lambda split, kind: np.load(made / f'{split}_{kind}.npy', mmap_mode='r')
  sets = [
    RowSet(load(x, 'inputs'), load(x, 'targets'), meta['fingerprints'][x]) for x in SPLITS
  ]
  for line in duplicates.note(meta['shared_rows'], 'rows', len(sets[1])):
    print(line, file=sys.stderr)
  names = tuple(meta['class_names'])
  return PreparedRows(*sets, class_names=names, source=source, hashes={DATA_DIR: found})


def _decode(source: str, folder: pathlib.Path, out: pathlib.Path) -> None:
  import tensorflow_datasets as tfds

  builder = catalogue.open_builder(folder)
  where = f'data.source.name={source!r} ({folder})'
  features = dict(builder.info.features.items())
  image, label = features.get('image'), features.get('label')
  if not isinstance(image, tfds.features.Image) or not isinstance(
    label, tfds.features.ClassLabel
  ):
    raise UserError(
      f"{where} has no 'image' with a 'label', only {', '.join(sorted(features))}; "
      'accepted are sets of labelled images such as mnist and cifar10'
    )
  held_out = catalogue.held_out_split(builder.info, where)
  fingerprints, seen = {}, {}
  for split, theirs in zip(SPLITS, ('train', held_out)):
    rows = list(builder.as_data_source(theirs))
    shapes = sorted({row['image'].shape for row in rows})
    if len(shapes) > 1:
      raise UserError(
        f'{where} has images of {len(shapes)} shapes, such as {shapes[0]} and '
        f'{shapes[-1]}; accepted are sets whose images have one'
      )
    inputs = np.stack([row['image'] for row in rows])
    np.save(out / f'{split}_inputs.npy', inputs)
    targets = np.array([row['label'] for row in rows], np.int32)
    np.save(out / f'{split}_targets.npy', targets)
    fingerprints[split] = rows_fingerprint(inputs, targets)
    seen[split] = duplicates.document_hashes(image.tobytes() for image in inputs)
  meta = {
    'class_names': label.names or [],
    'validation': held_out,
    'fingerprints': fingerprints,
    'shared_rows': int(np.isin(seen['validation'], seen['train']).sum()),
  }
  cache.write_meta(out, meta)
