"""Opens a corpus: documents with random access, by split, prepared when missing."""

import collections
import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

from elas_jax.config import DataConfig
from elas_jax.data import cache, catalogue, standard_library, text_reader
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.hashing import fingerprint
from elas_jax.errors import UserError
from elas_jax.places import place

FORMAT_VERSION = 2  # raise it when prepared documents change


@dataclasses.dataclass(frozen=True)
class Source:
  """A corpus of documents.

  Attributes:
    name: data.source.
    folder: the TFDS folder of the prepared documents.
    splits: random access to {'text': bytes, ...} for 'train' and 'validation'.
    split_names: what the set itself calls the two splits.
    sizes: bytes of text per split (of stored records for a catalogue set).
    fingerprint: changes whenever the documents do.
    report: records that could not be read.
  """

  name: str
  folder: pathlib.Path
  splits: dict[str, Sequence[dict[str, Any]]]
  split_names: dict[str, str]
  sizes: dict[str, int]
  fingerprint: str
  report: BadRecords


def source_fingerprint(config: DataConfig) -> str:
  """The fingerprint that open_source will give, found without opening anything.

  Raises:
    UserError: the corpus that data.source and data.path name is not there.
  """
  if config.source == 'python_source':
    files = standard_library.library_fingerprint()
    return fingerprint(FORMAT_VERSION, config.source, files, config.validation_share)
  if config.source == 'text_files':
    # The place counts too: two folders may hold files of equal names, sizes and times.
    listed = [
      (os.path.abspath(os.path.expanduser(path)), text_reader.stat_files(files))
      for path, files in (
        (config.path, _text_files(config)),
        (config.validation_path, _validation_files(config)),
      )
    ]
    return fingerprint(FORMAT_VERSION, config.source, listed, config.validation_share)
  folder = catalogue.find_folder(config.source, config.path)
  return fingerprint(config.source, catalogue.folder_fingerprint(folder))


def other_files(config: DataConfig) -> dict[str, int]:
  """How many files of the corpus are of a kind that is not read, by kind."""
  if config.source != 'text_files':
    return {}
  found = collections.Counter()
  for field in ('path', 'validation_path'):
    if pattern := getattr(config, field):
      found.update(text_reader.count_other_files(f'data.{field}', pattern))
  return dict(found.most_common())


def open_source(config: DataConfig) -> Source:
  """Opens the corpus of `config`; own builders prepare their documents when missing.

  Raises:
    UserError: the corpus is missing, unreadable or not prepared, has no field 'text',
      lacks a split, or holds more bad records than data.max_bad_share.
  """
  if config.source in catalogue.OWN_SOURCES:
    source = _open_own(config)
  else:
    source = _open_catalogue(config)
  source.report.check(config.source, config.max_bad_share)
  return source


def open_split(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
  """Random access to the documents of one split of a prepared TFDS folder."""
  return catalogue.open_builder(folder).as_data_source(split)


def _text_files(config: DataConfig):
  return text_reader.list_files('data.path', config.path)


def _validation_files(config: DataConfig):
  if not config.validation_path:
    return []
  return text_reader.list_files('data.validation_path', config.validation_path)


def _open_own(config: DataConfig) -> Source:
  found = source_fingerprint(config)
  root = cache.make_folder(
    place('data.cache_dir', config.cache_dir),
    f'documents/{config.source}-{found}',
    functools.partial(_write_documents, config),
  )
  meta = json.loads((root / cache.META).read_text())
  folder = root / meta['folder']
  names = {split: split for split in meta['text_bytes']}
  return Source(
    name=config.source,
    folder=folder,
    splits={split: open_split(folder, split) for split in names},
    split_names=names,
    sizes=meta['text_bytes'],
    fingerprint=found,
    report=BadRecords(**meta['report']),
  )


def _write_documents(config: DataConfig, folder: pathlib.Path) -> None:
  """Runs the TFDS builder of an own source in `folder` and writes META last."""
  builder = _make_builder(config, folder)
  # TFDS announces downloads on stdout; there are none.
  with contextlib.redirect_stdout(io.StringIO()):
    try:
      builder.download_and_prepare(download_dir=folder / 'downloads')
    except AssertionError as error:  # TFDS: "No examples were yielded."
      _check_splits(config, builder)
      raise error
  _check_splits(config, builder)
  shutil.rmtree(folder / 'downloads', ignore_errors=True)
  meta = {
    'folder': str(pathlib.Path(builder.data_dir).relative_to(folder)),
    'text_bytes': builder.text_bytes,
    'report': dataclasses.asdict(builder.report),
  }
  cache.write_meta(folder, meta)


def _make_builder(config: DataConfig, folder: pathlib.Path):
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  common = {
    'data_dir': folder,
    'file_format': 'array_record',
    'validation_share': config.validation_share,
  }
  if config.source == 'python_source':
    from elas_jax.data.python_source import PythonSource

    return PythonSource(**common)
  from elas_jax.data.text_files import TextFiles

  return TextFiles(
    files=_text_files(config), validation_files=_validation_files(config), **common
  )


def _check_splits(config: DataConfig, builder) -> None:
  """Raises UserError if a split has no text, for the reason that a user can act on."""
  report = builder.report
  for split, size in builder.text_bytes.items():
    if size:
      continue
    good = report.total - report.bad
    if not good and report.bad:
      report.check(config.source, config.max_bad_share)
    where = f'data.source={config.source!r} data.path={config.path!r}'
    if split == 'validation' and config.validation_path:
      where = f'data.validation_path={config.validation_path!r}'
    raise UserError(
      f'{where}: {good} readable documents, and none with text for {split}; give more '
      'documents, a data.validation_path, or another '
      f'data.validation_share than {config.validation_share:g}'
    )


def _open_catalogue(config: DataConfig) -> Source:
  import tensorflow_datasets as tfds

  folder = catalogue.find_folder(config.source, config.path)
  info = catalogue.open_builder(folder).info
  where = f'data.source={config.source!r} ({folder})'
  features = dict(info.features.items())
  if not isinstance(features.get('text'), tfds.features.Text):
    raise UserError(
      f"{where} has no string feature 'text', only {', '.join(sorted(features))}; "
      'accepted are sets of documents'
    )
  present = [name for name, split in info.splits.items() if split.num_examples]
  held_out = next((name for name in ('validation', 'test') if name in present), None)
  if 'train' not in present or held_out is None:
    raise UserError(
      f"{where} has the splits {present}; needed are 'train' and one of 'validation' "
      "and 'test'"
    )
  names = {'train': 'train', 'validation': held_out}
  return Source(
    name=config.source,
    folder=folder,
    splits={split: open_split(folder, name) for split, name in names.items()},
    split_names=names,
    sizes={split: int(info.splits[name].num_bytes) for split, name in names.items()},
    fingerprint=source_fingerprint(config),
    report=BadRecords(),
  )
