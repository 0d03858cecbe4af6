"""Prepares a corpus ahead of training.

  python -m elas_jax.data.prepare --source=text_files --path=FOLDER
  python -m elas_jax.data.prepare --source=mixture \
      --sources='web=text_files:FOLDER,code=python_source'

Training prepares what is missing by itself; this command does it where there is no
accelerator to keep waiting. Give the same values as in the training config.
"""

import argparse
import dataclasses
import time
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import LARGEST, check_float
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data import blocks
from elas_jax.data.corpus import Corpus, Mixed, check_preparation
from elas_jax.data.mixed import MixedData
from elas_jax.systems.sources import SOURCES
from elas_jax.systems.sources.tfds import Tfds
from elas_jax.systems.tokenizers.bytes import Bytes
from elas_jax.systems.tokenizers.file import File

# The config is not imported: it knows all systems, and JAX, which the processes that this
# command starts would then import too.


def source_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options that name a corpus."""
  add = parser.add_argument
  add(
    '--source',
    default='python_source',
    help='python_source, text_files, chat, mixture, or a prepared TFDS set such as c4/en '
    'or lm1b',
  )
  add('--sources', default='', help='mixture: as data.source.sources, NAME=KIND:FIELDS,...')
  add(
    '--path',
    default='',
    help='text_files, chat: folder, file or glob; TFDS set: its data_dir',
  )
  add('--validation_path', default='', help='text_files, chat: files for validation')
  add('--counted', default='', help='chat: what the loss counts, answers, last or all')
  add(
    '--validation_share',
    type=float,
    default=0.05,
    help='share of documents that the hash sends to validation',
  )
  add(
    '--max_bad_share',
    type=float,
    default=0.01,
    help='refuse a corpus with a larger share of unreadable records or bytes; below 1 '
    'also one with files that break off',
  )
  add('--cache_dir', default='~/.cache/elas_jax', help='where the results go')


def corpus_named(options: dict[str, Any], tokenizer: Any, **rest: Any) -> Corpus | Mixed:
  """The checked corpus of the options that `source_arguments` adds.

  Args:
    options: by name.
    tokenizer: a kind of data.tokenizer.
    rest: further fields of the config's section `data` that a corpus needs.

  Raises:
    UserError: it cannot be, named as in a config.
  """
  for name in ('source.validation_share', 'max_bad_share'):
    check_float(f'data.{name}', options[name.removeprefix('source.')])
  source = _source(options)
  data = argparse.Namespace(**options | rest)
  data.source, data.tokenizer = source, tokenizer
  source.check('data.source', data)
  tokenizer.check('data.tokenizer', data)
  check_preparation(data)
  return source.corpus(data)


def _source(options: dict[str, Any]) -> Any:
  """The kind of data.source; UserError for a path that it does not have."""
  name = options['source']
  kind = SOURCES.get(name, Tfds)
  names = ('path', 'validation_path', 'validation_share', 'sources', 'counted')
  given = {x: options[x] for x in names}
  if kind is Tfds:
    given |= {'name': name, 'data_dir': given.pop('path')}
  fields = {field.name for field in dataclasses.fields(kind)}
  for field in sorted(given.keys() - fields):
    if field != 'validation_share' and given[field]:
      raise UserError(f'--{field}={given[field]!r}: --source={name} has none')
  # Without --counted a kind has its own default.
  kept = {x for x in fields & given.keys() if x != 'counted' or given[x]}
  return kind(**{field: given[field] for field in kept})


def make_parser() -> Parser:
  """The command line of this module."""
  parser = Parser(
    prog='python -m elas_jax.data.prepare',
    description='Tokenises a corpus into blocks that training reads.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  source_arguments(parser)
  add = parser.add_argument
  add('--tokenizer', default='bytes', help='bytes, or the path of a tokenizer.json')
  add(
    '--protocol',
    choices=('packed', 'document'),
    default='packed',
    help='join the documents and cut them, or one document a row',
  )
  length = integer(2, LARGEST['data.sequence_length'])
  add('--sequence_length', type=length, default=128, help='tokens of a block')
  count = integer(0, LARGEST['data.processes'])
  add('--processes', type=count, default=0, help='worker processes, 0 for all cores')
  return parser


def main(arguments: list[str] | None = None) -> None:
  start = time.perf_counter()
  options = vars(make_parser().parse_args(arguments))
  spec = options.pop('tokenizer')
  corpus = corpus_named(options, Bytes() if spec == 'bytes' else File(spec))
  blocks.write(corpus)
  _print_summary(blocks.prepare(corpus), time.perf_counter() - start)


def _print_summary(prepared: blocks.Prepared | MixedData, seconds: float) -> None:
  if isinstance(prepared, MixedData):
    for name, part in prepared.parts.items():
      print(f'{name}:')
      _print_summary(part, seconds)
    return
  both = (('train', prepared.train), ('validation', prepared.validation))
  for split, of_split in both:
    print(
      f'{split}: {of_split.documents} documents ({of_split.empty} empty), '
      f'{of_split.text_bytes / 1e6:.2f} MB, {of_split.tokens} tokens in '
      f'{of_split.blocks} blocks of {of_split.sequence_length}, '
      f'{of_split.bytes / of_split.tokens:.3f} bytes/token; '
      f'{of_split.bytes / max(1, of_split.text_bytes):.2%} of the text is predicted, '
      f'{of_split.lost_share:.2%} is unknown to the tokenizer; fingerprint '
      f'{of_split.fingerprint}'
    )
  megabytes = sum(of_split.text_bytes for _, of_split in both) / 1e6
  for note in prepared.source_notes:
    print(note)
  print(
    f'bad records: {prepared.report.bad} of {prepared.report.total}; '
    f'files that break off: {prepared.report.broken_files}; '
    f'files not read: {prepared.count_other_files()}'
  )
  print(f'cache: {prepared.folder}')
  print(f'time: {seconds:.1f} s, {megabytes / seconds:.1f} MB/s')


if __name__ == '__main__':
  run_command(main)
