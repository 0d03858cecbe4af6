"""Prepares a corpus ahead of training.

  python -m elas_jax.data.prepare --source=text_files --path=FOLDER

Training prepares what is missing by itself; this command does it where there is no
accelerator to keep waiting. Give the same values as in the training config.
"""

import argparse
import time

from elas_jax.common.limits import LARGEST
from elas_jax.config.checks import check_data
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.config.config import DataConfig, build
from elas_jax.data import blocks


def source_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options that name a corpus."""
  add = parser.add_argument
  add(
    '--source',
    default='python_source',
    help='python_source, text_files, or a prepared TFDS set such as c4/en or lm1b',
  )
  add(
    '--path',
    default='',
    help='text_files: folder, file or glob; TFDS set: its data_dir',
  )
  add('--validation_path', default='', help='text_files: files for validation')
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
  options = make_parser().parse_args(arguments)
  # The rest concerns reading, not preparing.
  tree = vars(options) | {'batch_size': 1, 'read_threads': 1, 'prefetch': 1}
  config = build(DataConfig, tree, 'data.')
  check_data(config)
  blocks.write(config)
  _print_summary(blocks.prepare(config), time.perf_counter() - start)


def _print_summary(prepared: blocks.Prepared, seconds: float) -> None:
  both = (('train', prepared.train), ('validation', prepared.validation))
  for split, of_split in both:
    print(
      f'{split}: {of_split.documents} documents ({of_split.empty} empty), '
      f'{of_split.text_bytes / 1e6:.2f} MB, {of_split.tokens} tokens in '
      f'{of_split.blocks} blocks of {of_split.sequence_length}, '
      f'{of_split.bytes / of_split.tokens:.3f} bytes/token; '
      f'{of_split.bytes / max(1, of_split.text_bytes):.2%} of the text is predicted, '
      f'{of_split.lost_share:.2%} is unknown to the tokenizer'
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
