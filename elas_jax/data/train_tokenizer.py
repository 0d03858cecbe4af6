"""Trains a byte-level BPE tokenizer on the train split of a corpus.

  python -m elas_jax.data.train_tokenizer --source=python_source --output=FILE.json

Give the file to training as --config.data.tokenizer=file
--config.data.tokenizer.path=FILE.json.
"""

import argparse
import itertools
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

from elas_jax.common.errors import UserError
from elas_jax.common.interruption import cleaned_up
from elas_jax.config.cli import Parser, integer, run_command
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.chat_rows import contents_of
from elas_jax.data.corpus import by_name
from elas_jax.data.prepare import corpus_named, source_arguments
from elas_jax.data.progress import Progress
from elas_jax.data.sources import Source, open_source
from elas_jax.data.text_reader import read_prepared
from elas_jax.systems.tokenizers.bytes import Bytes

END_OF_DOCUMENT = '<|endoftext|>'
DOCUMENTS_AT_ONCE = 256
SMALLEST = 257  # all bytes and the end of a document
LARGEST = 2**24  # room for so many is made at once


def train(texts: Iterator[Sequence[str]], vocab_size: int) -> str:
  """The tokenizer.json of a byte-level BPE trained on lists of texts.

  The same texts in the same order give the same tokenizer. It has no more than
  vocab_size tokens, fewer if the text has no more pairs to merge.
  """
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[END_OF_DOCUMENT],
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  tokenizer.train_from_iterator(texts, trainer)
  return tokenizer.to_str(pretty=True)


def read_texts(source: Source, report: BadRecords) -> Iterator[list[str]]:
  """The texts of the train split in order, some at a time, with progress.

  Documents that are not UTF-8 are left out and counted in `report`. Of conversations it is
  what the messages say.
  """
  documents = source.splits['train']
  with Progress('reading', source.sizes['train']) as progress:
    for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
      numbers = range(start, min(start + DOCUMENTS_AT_ONCE, len(documents)))
      texts, unreadable = read_prepared(documents, numbers, source.folder, 'train')
      for text in texts:
        report.count(len(text.encode()))
      for size in unreadable:
        report.count(size)
        report.add('a document is not UTF-8', size)
      progress.advance(sum(len(text.encode()) for text in texts))
      yield list(map(contents_of, texts)) if source.name == 'chat' else texts


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m elas_jax.data.train_tokenizer',
    description='Trains a byte-level BPE tokenizer on the train split of a corpus.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  source_arguments(parser)
  size = integer(SMALLEST, LARGEST)
  parser.add_argument('--vocab_size', type=size, default=8192, help='tokens at most')
  parser.add_place('--output', required=True, help='the tokenizer.json to write')
  options = vars(parser.parse_args(arguments))
  vocab_size, output = options.pop('vocab_size'), options.pop('output')
  # Only the documents are read.
  corpus = corpus_named(options, Bytes(), protocol='packed', sequence_length=1, processes=1)
  sources = [open_source(one) for one in by_name(corpus).values()]
  report = BadRecords()
  texts = itertools.chain(*(read_texts(source, report) for source in sources))
  text = train(texts, vocab_size)
  report.check(corpus.named, corpus.max_bad_share)
  _write_atomically(output, text)
  for found in (*(source.report for source in sources), report):
    for line in found.lines():
      print(line, file=sys.stderr)
  print(f'wrote {output}')


def _write_atomically(path: pathlib.Path, text: str) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The folder goes however this ends, but by a SIGKILL.
    temporary = tempfile.TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent)
    with cleaned_up(), temporary as folder:
      made = pathlib.Path(folder, path.name)
      with made.open('w', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
      os.replace(made, path)
  except OSError as error:
    raise UserError(f'--output={str(path)!r} cannot be written: {error}') from error


if __name__ == '__main__':
  run_command(main)
