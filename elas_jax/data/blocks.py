"""Documents to token blocks, once: fingerprinted, in parallel, all or nothing."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from elas_jax.common.errors import UserError
from elas_jax.common.places import place
from elas_jax.data import block_writer, cache, duplicates
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.block_set import BlockSet, Shard, dtype_of
from elas_jax.data.corpus import Corpus, Mixed, by_name
from elas_jax.data.hashing import fingerprint
from elas_jax.data.mixed import MixedData
from elas_jax.data.record import Record, listed
from elas_jax.data.sources import (
  Listing,
  changed_meanwhile,
  check_unchanged,
  list_source,
  other_files,
)
from elas_jax.data.tokenizers import Tokenizer, load_tokenizer, parse_tokenizer

FORMAT_VERSION = 2  # raise it when the blocks of the same documents change
MAX_KINDS = 8  # of files that are not read, in messages


@dataclasses.dataclass(frozen=True)
class Prepared:
  """Everything that training and evaluation read.

  Attributes:
    train, validation: the token blocks.
    tokenizer: made them.
    report: records of the source that could not be read.
    other_files: files of the source that are not read, by kind.
    folder: where the blocks are.
    source: of the corpus.
    hashes: of the files that it is made of.
    source_notes: lines that a user must see: files left out, documents in both splits.
  """

  train: BlockSet
  validation: BlockSet
  tokenizer: Tokenizer
  report: BadRecords
  other_files: dict[str, int]
  folder: pathlib.Path
  source: str
  hashes: dict[str, dict[str, str]]
  source_notes: tuple[str, ...]

  def notes(self) -> list[str]:
    """What a user should know of the text that is not there, for the terminal."""
    notes = [*self.tokenizer.notes, *self.report.lines(), *self.source_notes]
    if self.other_files:
      notes.append(f'files that are not read: {self.count_other_files()}')
    for split, blocks in (('train', self.train), ('validation', self.validation)):
      if blocks.lost_bytes:
        notes.append(
          f'{split}: {blocks.lost_share:.2%} of the text ({blocks.lost_bytes} bytes) is '
          'unknown to the tokenizer, so that bits per byte are not comparable'
        )
    return notes + self._cut_notes()

  def _cut_notes(self) -> list[str]:
    """Of conversations that are too long for a row."""
    notes = []
    for split, blocks in (('train', self.train), ('validation', self.validation)):
      rows = f'data.sequence_length={blocks.sequence_length}'
      if blocks.left_out:
        notes.append(
          f'{split}: {blocks.left_out} of {blocks.documents} conversations are left out: '
          f'no answer in them ends within {rows}'
        )
      if blocks.shortened:
        notes.append(
          f'{split}: {blocks.shortened} of {blocks.documents} conversations are cut behind '
          f'an answer that ends within {rows}'
        )
    return notes

  def count_other_files(self) -> str:
    """The files that are not read, as '3 .parquet, 1 .txt.gz'."""
    counts = [f'{n} {kind or "without suffix"}' for kind, n in self.other_files.items()]
    more = [f'{len(counts) - MAX_KINDS} kinds more'] if len(counts) > MAX_KINDS else []
    return ', '.join(counts[:MAX_KINDS] + more) or 'none'

  def with_segments(self) -> 'Prepared':
    """The same, whose packed rows say where in them documents begin."""
    told = lambda blocks: blocks.with_segments(self.tokenizer.eos_id)
    return dataclasses.replace(
      self, train=told(self.train), validation=told(self.validation)
    )

  def describe(self) -> dict:
    """What a model needs of its data wherever it is used, as JSON: the tokenizer."""
    return json.loads(self.tokenizer.to_json())

  def record(self) -> Record:
    """By what a continued run knows its data again."""
    found = {
      'source': self.source,
      'splits': {
        split: {
          'fingerprint': blocks.fingerprint,
          'documents': blocks.documents,
          'blocks': blocks.blocks,
          'tokens': blocks.tokens,
        }
        for split, blocks in (('train', self.train), ('validation', self.validation))
      },
      'files': listed(self.hashes),
    }
    if self.source == 'python_source':
      found['python'] = platform.python_version()
    return found


def prepare(
  corpus: Corpus | Mixed, tokenizer: Tokenizer | None = None
) -> Prepared | MixedData:
  """Opens the blocks of `corpus`, making them first if they are missing.

  `tokenizer` is taken instead of that of the corpus. Making them runs in a process of
  its own: its workers are started afresh and would otherwise import the caller's main
  module, and JAX with it, once each.

  Raises:
    UserError: the corpus, the tokenizer or the cache folder is not usable.
  """
  tokenizer = tokenizer or load_tokenizer(corpus.tokenizer)
  if isinstance(corpus, Mixed):
    prepared = _prepare_mixed(corpus, tokenizer)
  else:
    prepared = _prepare(corpus, tokenizer)
  for line in prepared.notes():
    print(line, file=sys.stderr)
  return prepared


def _prepare_mixed(corpus: Mixed, tokenizer: Tokenizer) -> MixedData:
  parts = {}
  for name, one in corpus.corpora.items():
    with _of_source(name):
      parts[name] = _prepare(one, tokenizer)
  return MixedData(parts, tokenizer, corpus.phases)


@contextlib.contextmanager
def _of_source(name: str) -> Iterator[None]:
  """Says in errors which source of a mixture they are of; '' is none of one."""
  try:
    yield
  except UserError as error:
    if not name:
      raise
    raise UserError(f'data.source.sources: {name}: {error}') from error


def _prepare(corpus: Corpus, tokenizer: Tokenizer) -> Prepared:
  listing = list_source(corpus)
  folder = _cache_dir(corpus) / _folder_name(corpus, listing, tokenizer)
  if not cache.is_complete(folder):
    _write_in_subprocess(corpus, tokenizer)
    if not cache.is_complete(folder):  # it found other files, and prepared those
      raise changed_meanwhile(corpus, list_source(corpus), listing)
  prepared = _open(corpus, folder, listing, tokenizer)
  prepared.report.check(corpus.named, corpus.max_bad_share)
  return prepared


def write(corpus: Corpus | Mixed, tokenizer: Tokenizer | None = None) -> None:
  """Makes the blocks of `corpus` if they are missing, in this process.

  For light main modules only; others call `prepare`.

  Raises:
    UserError: as `prepare`.
  """
  tokenizer = tokenizer or load_tokenizer(corpus.tokenizer)
  for name, one in by_name(corpus).items():
    with _of_source(name):
      _write(one, tokenizer)


def _write(corpus: Corpus, tokenizer: Tokenizer) -> None:
  listing = list_source(corpus)

  def write_folder(folder: pathlib.Path) -> None:
    block_writer.write_blocks(corpus, tokenizer, folder)
    check_unchanged(corpus, listing)

  name = _folder_name(corpus, listing, tokenizer)
  cache.make_folder(_cache_dir(corpus), name, write_folder)


def write_from_stdin() -> None:
  """The subprocess of `prepare`: a line of JSON on stdin, a UserError on stdout.

  It ends when stdin does, which the parent holds open as long as it lives and waits.
  """
  given = json.loads(sys.stdin.readline())
  threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
  try:
    tokenizer = parse_tokenizer(given['tokenizer'], given['corpus']['tokenizer'])
    write(Corpus(**given['corpus']), tokenizer)
  except UserError as error:
    print(error)
    sys.exit(2)


def _stop_at_end_of_stdin() -> None:
  sys.stdin.read()
  # It cleans up (cache.make_folder), also out of a system call that waits.
  signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


def _cache_dir(corpus: Corpus) -> pathlib.Path:
  return place('data.cache_dir', corpus.cache_dir)


def _folder_name(corpus: Corpus, listing: Listing, tokenizer: Tokenizer) -> str:
  parts = [
    FORMAT_VERSION,
    listing.fingerprint,
    tokenizer.fingerprint,
    corpus.protocol,
    corpus.sequence_length,
  ]
  if corpus.counted:
    parts += [corpus.counted, tokenizer.chat_template]
  return f'blocks/{fingerprint(*parts)}'


def _write_in_subprocess(corpus: Corpus, tokenizer: Tokenizer) -> None:
  # With -c there is no main module that the workers could import again, and with -P the
  # current folder is no place for modules. Control-C goes to the parent, which says so.
  command = (
    'import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); '
    'from elas_jax.data import blocks; blocks.write_from_stdin()'
  )
  root = str(pathlib.Path(__file__).parents[2])
  paths = [root, os.environ['PYTHONPATH']] if 'PYTHONPATH' in os.environ else [root]
  with subprocess.Popen(
    [sys.executable, '-P', '-c', command],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
  ) as process:
    with contextlib.suppress(BrokenPipeError):  # it has ended; its code says how
      given = {'corpus': dataclasses.asdict(corpus), 'tokenizer': tokenizer.to_json()}
      process.stdin.write(json.dumps(given) + '\n')
      process.stdin.flush()
    printed = process.stdout.read()
    code = process.wait()
    with contextlib.suppress(BrokenPipeError):
      process.stdin.close()
  if code == 2 and printed:
    raise UserError(printed.splitlines()[-1])
  if code:
    raise RuntimeError(f'the preparation of the data ended with {code}; its error is above')


def _open(
  corpus: Corpus, folder: pathlib.Path, listing: Listing, tokenizer: Tokenizer
) -> Prepared:
  meta = json.loads((folder / cache.META).read_text())
  dtype = dtype_of(meta['sequence_length'], meta['vocab_size'], corpus.counted)
  sets = {
    split: BlockSet(folder, [Shard(**shard) for shard in shards], dtype)
    for split, shards in meta['shards'].items()
  }
  return Prepared(
    train=sets['train'],
    validation=sets['validation'],
    tokenizer=tokenizer,
    report=BadRecords(**meta['report']),
    other_files=other_files(corpus),
    folder=folder,
    source=corpus.source,
    hashes=listing.hashes,
    source_notes=(
      *listing.notes,
      *duplicates.note(meta['shared_documents'], 'documents', sets['validation'].documents),
    ),
  )
