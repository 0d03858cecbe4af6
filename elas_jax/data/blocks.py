"""Documents to token blocks, once: fingerprinted, in parallel, all or nothing."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

from elas_jax.config import DataConfig
from elas_jax.data import block_writer, cache
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.block_set import BlockSet, Shard
from elas_jax.data.hashing import fingerprint
from elas_jax.data.packing import row_dtype
from elas_jax.data.sources import source_fingerprint
from elas_jax.data.tokenizers import Tokenizer, load_tokenizer
from elas_jax.errors import UserError

FORMAT_VERSION = 1  # raise it when the blocks of the same documents change


@dataclasses.dataclass(frozen=True)
class Prepared:
  """Everything that training and evaluation read.

  Attributes:
    train, validation: the token blocks.
    tokenizer: made them.
    report: records of the source that could not be read.
    folder: where the blocks are.
  """

  train: BlockSet
  validation: BlockSet
  tokenizer: Tokenizer
  report: BadRecords
  folder: pathlib.Path

  def describe(self) -> dict:
    """What a checkpoint keeps of the data, as JSON: the tokenizer."""
    return json.loads(self.tokenizer.to_json())


def prepare(config: DataConfig) -> Prepared:
  """Opens the blocks of `config`, making them first if they are missing.

  Making them runs in a process of its own: its workers are started afresh and would
  otherwise import the caller's main module, and JAX with it, once each.

  Raises:
    UserError: the corpus, the tokenizer or the cache folder is not usable.
  """
  tokenizer = load_tokenizer(config.tokenizer)
  name = _folder_name(config, tokenizer)
  folder = _cache_dir(config) / name
  if not cache.is_complete(folder):
    _write_in_subprocess(config)
  prepared = _open(folder, tokenizer)
  prepared.report.check(config.source, config.max_bad_share)
  for line in prepared.report.lines():
    print(line, file=sys.stderr)
  return prepared


def write(config: DataConfig) -> None:
  """Makes the blocks of `config` if they are missing, in this process.

  For light main modules only; others call `prepare`.

  Raises:
    UserError: as `prepare`.
  """
  tokenizer = load_tokenizer(config.tokenizer)
  cache.make_folder(
    _cache_dir(config),
    _folder_name(config, tokenizer),
    lambda folder: block_writer.write_blocks(config, tokenizer, folder),
  )


def write_from_stdin() -> None:
  """The subprocess of `prepare`: config as JSON on stdin, a UserError on stdout."""
  try:
    write(DataConfig(**json.load(sys.stdin)))
  except UserError as error:
    print(error)
    sys.exit(2)
  except KeyboardInterrupt:  # the parent says so
    sys.exit(130)


def _cache_dir(config: DataConfig) -> pathlib.Path:
  return pathlib.Path(config.cache_dir).expanduser()


def _folder_name(config: DataConfig, tokenizer: Tokenizer) -> str:
  found = fingerprint(
    FORMAT_VERSION,
    source_fingerprint(config),
    tokenizer.fingerprint,
    config.protocol,
    config.sequence_length,
  )
  return f'blocks/{found}'


def _write_in_subprocess(config: DataConfig) -> None:
  # With -c there is no main module that the workers could import again.
  command = 'from elas_jax.data import blocks; blocks.write_from_stdin()'
  root = str(pathlib.Path(__file__).parents[2])
  paths = [root, os.environ['PYTHONPATH']] if 'PYTHONPATH' in os.environ else [root]
  done = subprocess.run(
    [sys.executable, '-c', command],
    input=json.dumps(dataclasses.asdict(config)),
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    check=False,
  )
  if done.returncode == 2 and done.stdout:
    raise UserError(done.stdout.splitlines()[-1])
  if done.returncode:
    raise RuntimeError(
      f'the preparation of the data ended with {done.returncode}; its error is above'
    )


def _open(folder: pathlib.Path, tokenizer: Tokenizer) -> Prepared:
  meta = json.loads((folder / cache.META).read_text())
  dtype = row_dtype(meta['sequence_length'], meta['vocab_size'])
  sets = {
    split: BlockSet(folder, [Shard(**shard) for shard in shards], dtype)
    for split, shards in meta['shards'].items()
  }
  return Prepared(
    train=sets['train'],
    validation=sets['validation'],
    tokenizer=tokenizer,
    report=BadRecords(**meta['report']),
    folder=folder,
  )
