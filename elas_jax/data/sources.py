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
import sys
from collections.abc import Sequence
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.places import place
from elas_jax.data import cache, catalogue, chat_rows, standard_library, text_reader
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.corpus import OF_FILES, OWN_SOURCES, Corpus
from elas_jax.data.file_hashes import Files, hash_files
from elas_jax.data.hashing import fingerprint
from elas_jax.data.record import first_name, named

FORMAT_VERSION = 2  # raise it when prepared documents change
# Fields of text_files and chat.
PATH, VALIDATION_PATH = 'data.source.path', 'data.source.validation_path'
# What a run writes into its workdir, of which some looks like text.
WRITTEN_BY_RUNS = frozenset(
  {'metrics.jsonl', 'checkpoints', 'plots', 'profile', 'tensorboard'}
)


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of a corpus.

  Attributes:
    files: (name, path) of each, by the field of the config that names them.
    hashes: by field and name, what the file holds.
    notes: lines that say which files are left out.
    fingerprint: of names and contents, and of how they are split.
  """

  files: dict[str, Files]
  hashes: dict[str, dict[str, str]]
  notes: tuple[str, ...]
  fingerprint: str


@dataclasses.dataclass(frozen=True)
class Source:
  """A corpus of documents.

  Attributes:
    name: of the corpus.
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


def list_source(corpus: Corpus) -> Listing:
  """The files of the corpus, without opening it.

  Raises:
    UserError: it is not there.
  """
  notes, where = (), os.path.abspath(os.path.expanduser(corpus.path))
  if corpus.source == 'python_source':
    files, where = {'data.source': standard_library.list_files()}, sys.prefix
  elif corpus.source in OF_FILES:
    files, notes = _text_files(corpus)
  else:
    folder = catalogue.find_folder(corpus.source, corpus.path)
    files, where = {'data.source.data_dir': catalogue.list_files(folder)}, str(folder)
  of_cache = lambda field: f'{corpus.source} {first_name(field)} {where}'
  hashes = {
    field: hash_files(of_field, corpus.cache_dir, of_cache(field))
    for field, of_field in files.items()
  }
  found = [corpus.source, {first_name(field): of for field, of in hashes.items()}]
  if corpus.source in OWN_SOURCES:
    found += [FORMAT_VERSION, corpus.validation_share]
  return Listing(files, hashes, notes, fingerprint(*found))


def other_files(corpus: Corpus) -> dict[str, int]:
  """How many files of the corpus are of a kind that is not read, by kind."""
  if corpus.source not in OF_FILES:
    return {}
  found = collections.Counter()
  for field in ('path', 'validation_path'):
    if pattern := getattr(corpus, field):
      count = text_reader.count_other_files
      found.update(count(f'data.source.{field}', pattern, _is_of_a_run, _kinds(corpus)))
  return dict(found.most_common())


def open_source(corpus: Corpus) -> Source:
  """Opens the corpus; own builders prepare their documents when missing.

  Raises:
    UserError: the corpus is missing, unreadable or not prepared, has no field 'text',
      lacks a split, or holds more bad records than data.max_bad_share.
  """
  if corpus.source in OWN_SOURCES:
    source = _open_own(corpus)
  else:
    source = _open_catalogue(corpus)
  source.report.check(corpus.named, corpus.max_bad_share)
  return source


def open_split(folder: pathlib.Path, split: str) -> Sequence[dict[str, Any]]:
  """Random access to the documents of one split of a prepared TFDS folder."""
  return catalogue.open_builder(folder).as_data_source(split)


def _text_files(corpus: Corpus) -> tuple[dict[str, Files], tuple[str, ...]]:
  """Both fields' files, and a line for each kind of them that is left out."""
  listed, notes = {}, []
  for field in (PATH, VALIDATION_PATH):
    value = getattr(corpus, field.removeprefix('data.source.'))
    files = text_reader.list_files(field, value, _kinds(corpus)) if value else []
    # A workdir in a corpus would change it with every line that the run writes.
    listed[field] = [file for file in files if not _is_of_a_run(file[1])]
    notes += _left_out(f'{field}: left out, as written by a run', files, listed[field])
  held_out = {_identity(path) for _, path in listed[VALIDATION_PATH]}
  files = listed[PATH]
  if held_out:
    listed[PATH] = [file for file in files if _identity(file[1]) not in held_out]
  what = f'{PATH}: left out of training, as {VALIDATION_PATH} has it too'
  notes += _left_out(what, files, listed[PATH])
  for field, of_field in listed.items():
    value = getattr(corpus, field.removeprefix('data.source.'))
    if value and not of_field:
      raise UserError(f'{field}={value!r}: nothing remains of it; {"; ".join(notes)}')
  return listed, tuple(notes)


def _kinds(corpus: Corpus) -> tuple[str, ...]:
  """How the names of the files end that are read."""
  return text_reader.JSON_LINES if corpus.source == 'chat' else text_reader.KINDS


def _is_of_a_run(path: pathlib.Path) -> bool:
  parts = path.absolute().parts
  return any(
    part in WRITTEN_BY_RUNS and _is_workdir(pathlib.Path(*parts[:i]))
    for i, part in enumerate(parts)
  )


def _is_workdir(folder: pathlib.Path) -> bool:
  marks = (folder / 'config.json', folder / '.lock')
  return (folder / 'checkpoints').is_dir() and any(mark.is_file() for mark in marks)


def _identity(path: pathlib.Path) -> tuple[int, int] | str:
  """Equal for one file by two names, links among them."""
  try:
    found = path.stat()
  except OSError:
    return str(path)
  return found.st_dev, found.st_ino


def _left_out(what: str, before: Files, after: Files) -> list[str]:
  gone = sorted({name for name, _ in before} - {name for name, _ in after})
  return [f'{what}: {named(gone)}'] if gone else []


def _open_own(corpus: Corpus) -> Source:
  listing = list_source(corpus)
  root = cache.make_folder(
    place('data.cache_dir', corpus.cache_dir),
    f'documents/{corpus.source}-{listing.fingerprint}',
    functools.partial(_write_documents, corpus, listing),
  )
  meta = json.loads((root / cache.META).read_text())
  folder = root / meta['folder']
  names = {split: split for split in meta['text_bytes']}
  return Source(
    name=corpus.source,
    folder=folder,
    splits={split: open_split(folder, split) for split in names},
    split_names=names,
    sizes=meta['text_bytes'],
    fingerprint=listing.fingerprint,
    report=BadRecords(**meta['report']),
  )


def _write_documents(corpus: Corpus, listing: Listing, folder: pathlib.Path) -> None:
  """Runs the TFDS builder of an own source in `folder` and writes META last.

  Raises:
    UserError: a file changed meanwhile, so that `listing` may not be what was read; or
      a split has no text.
  """
  builder = _make_builder(corpus, listing, folder)
  # TFDS announces downloads on stdout; there are none.
  with contextlib.redirect_stdout(io.StringIO()):
    try:
      builder.download_and_prepare(download_dir=folder / 'downloads')
    except AssertionError as error:  # TFDS: "No examples were yielded."
      _check_splits(corpus, builder)
      raise error
  _check_splits(corpus, builder)
  check_unchanged(corpus, listing)
  shutil.rmtree(folder / 'downloads', ignore_errors=True)
  meta = {
    'folder': str(pathlib.Path(builder.data_dir).relative_to(folder)),
    'text_bytes': builder.text_bytes,
    'report': dataclasses.asdict(builder.report),
  }
  cache.write_meta(folder, meta)


def check_unchanged(corpus: Corpus, listing: Listing) -> None:
  """Refuses a corpus whose files changed since they were listed."""
  now = list_source(corpus)
  if now.hashes != listing.hashes:
    raise changed_meanwhile(corpus, now, listing)


def changed_meanwhile(corpus: Corpus, now: Listing, before: Listing) -> UserError:
  """The error that names the files."""
  changed = {
    name
    for field, hashes in now.hashes.items()
    for name, _ in hashes.items() ^ before.hashes[field].items()
  }
  return UserError(
    f'{corpus.where}: {named(sorted(changed))} changed while the data were prepared; start '
    'again when nothing writes there'
  )


def _make_builder(corpus: Corpus, listing: Listing, folder: pathlib.Path):
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  common = {
    'data_dir': folder,
    'file_format': 'array_record',
    'validation_share': corpus.validation_share,
  }
  if corpus.source == 'python_source':
    from elas_jax.data.python_source import PythonSource

    return PythonSource(**common)
  from elas_jax.data.text_files import TextFiles

  return TextFiles(
    files=listing.files[PATH],
    validation_files=listing.files[VALIDATION_PATH],
    of_line=chat_rows.text_of if corpus.source == 'chat' else text_reader.text_of,
    **common,
  )


def _check_splits(corpus: Corpus, builder) -> None:
  """Raises UserError if a split has no text, for the reason that a user can act on."""
  report = builder.report
  for split, size in builder.text_bytes.items():
    if size:
      continue
    good = report.total - report.bad
    if not good and report.bad:
      report.check(corpus.named, corpus.max_bad_share)
    where = corpus.where
    if split == 'validation' and corpus.validation_path:
      where = f'{VALIDATION_PATH}={corpus.validation_path!r}'
    held_out = f'a {VALIDATION_PATH}, ' if corpus.source in OF_FILES else ''
    raise UserError(
      f'{where}: {good} readable documents, and none with text for {split}; give more '
      f'documents, {held_out}or another data.source.validation_share than '
      f'{corpus.validation_share:g}'
    )


def _open_catalogue(corpus: Corpus) -> Source:
  import tensorflow_datasets as tfds

  folder = catalogue.find_folder(corpus.source, corpus.path)
  info = catalogue.open_builder(folder).info
  where = f'{corpus.named} ({folder})'
  features = dict(info.features.items())
  if not isinstance(features.get('text'), tfds.features.Text):
    raise UserError(
      f"{where} has no string feature 'text', only {', '.join(sorted(features))}; "
      'accepted are sets of documents'
    )
  held_out = catalogue.held_out_split(info, where)
  names = {'train': 'train', 'validation': held_out}
  return Source(
    name=corpus.source,
    folder=folder,
    splits={split: open_split(folder, name) for split, name in names.items()},
    split_names=names,
    sizes={split: int(info.splits[name].num_bytes) for split, name in names.items()},
    fingerprint=list_source(corpus).fingerprint,
    report=BadRecords(),
  )
