"""Writes the corpus of configs/proxy_text.py: short documents of what is installed here.

  python -m experiments.text_corpus [--output=FOLDER]

Documents: the top-level functions and classes of the standard library, as they stand in
its modules (elas_jax/data/standard_library.py lists these); and the docstrings, of 200
bytes or more, of modules, classes and functions of PACKAGES. Equal ones once. All is
read and nothing imported.

In FOLDER, which appears when all of it is there: documents-00000.jsonl, ..., a line
{"text": ...} for each, and tokenizer.json, a BPE of their train split. Rows of 128 tokens
are prepared of them then, and counted. Other versions of Python or of a package give other
documents: `fingerprint`, of the rows, says which these are.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

from configs.proxy_text import FOLDER, VALIDATION_SHARE, VOCABULARY
from elas_jax.common.errors import UserError
from elas_jax.common.places import check_new_folder, check_writable, new_folder
from elas_jax.config.cli import Parser, run_command
from elas_jax.data import prepare, standard_library, text_reader
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.file_hashes import Files
from elas_jax.data.hashing import goes_to_validation
from elas_jax.data.progress import Progress
from elas_jax.data.train_tokenizer import DOCUMENTS_AT_ONCE, train

# Of what setup.cfg requires; no later one joins, which would give other documents.
PACKAGES = (
  'absl-py',
  'array_record',
  'dm-pix',
  'flax',
  'google-crc32c',
  'grain',
  'importlib_resources',
  'jax',
  'markdown-it-py',
  'matplotlib',
  'ml_collections',
  'numpy',
  'optax',
  'orbax-checkpoint',
  'pillow',
  'rich',
  'scikit-learn',
  'scipy',
  'tensorflow-datasets',
  'tokenizers',
  'zstandard',
)
LEAST_BYTES = 200  # of a docstring; shorter ones say hardly more than a name
DOCUMENTS_OF_SHARD = 8192
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
Texts = Callable[[str, ast.Module], Iterator[str]]


def definitions(source: str, module: ast.Module) -> Iterator[str]:
  """The top-level functions and classes of a module in order, with their decorators."""
  # Not by splitlines, for which a form feed ends a line too.
  lines = source.split('\n')
  for node in module.body:
    if isinstance(node, FUNCTIONS | ast.ClassDef):
      first = min(x.lineno for x in (node, *node.decorator_list))
      yield '\n'.join(lines[first - 1 : node.end_lineno]) + '\n'


def docstrings(source: str, module: ast.Module) -> Iterator[str]:
  """The longer docstrings of a module and of all that is defined in it, without indents."""
  del source
  for node in ast.walk(module):
    if isinstance(node, ast.Module | FUNCTIONS | ast.ClassDef):
      text = ast.get_docstring(node) or ''
      if len(_bytes(text)) >= LEAST_BYTES:
        yield text + '\n'


def package_files(distribution: str) -> Files:
  """(name, path) of every .py file of a distribution but its tests, sorted by name.

  Raises:
    UserError: it is not installed, or does not say of which files it is.
  """
  try:
    files = importlib.metadata.files(distribution)
  except importlib.metadata.PackageNotFoundError:
    raise UserError(
      f'PACKAGES: {distribution} is not installed; must be, for its documents'
    ) from None
  if files is None:
    raise UserError(
      f'{distribution}: its installation names no files; must be one that pip has made'
    )
  kept = [
    file
    for file in files
    if file.suffix == '.py' and not standard_library.EXCLUDED & {*file.parts}
  ]
  return sorted((str(file), pathlib.Path(file.locate())) for file in kept)


class Documents:
  """The different documents of files.

  Attributes:
    texts: by a hash of each.
    report: of the files that could not be read.
    lines: for the terminal: what each list of files has given.
  """

  def __init__(self):
    self.texts, self.report, self.lines = {}, BadRecords(), []

  def add(self, label: str, files: Files, texts: Texts) -> None:
    sizes = [text_reader.size_of(path) for _, path in files]
    count = size = equal = 0
    with Progress(f'reading {label}', sum(sizes)) as progress:
      for (name, path), size_of_file in zip(files, sizes):
        self.report.count(size_of_file)
        for text in self._texts(name, path, texts):
          encoded = _bytes(text)
          digest = hashlib.sha256(encoded).digest()
          is_new = digest not in self.texts
          count, size, equal = count + 1, size + len(encoded), equal + (not is_new)
          self.texts.setdefault(digest, text)
        progress.advance(size_of_file)
    self.lines.append(
      f'{label}: {count} documents, {size / 1e6:.2f} MB, {equal} of them left out since '
      'there is an equal one'
    )

  def in_order(self) -> Iterator[str]:
    """By their hashes, so that any part of them is a sample of all."""
    return (self.texts[digest] for digest in sorted(self.texts))

  def _texts(self, name: str, path: pathlib.Path, texts: Texts) -> list[str]:
    try:
      with tokenize.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the syntax of others
        source = file.read()
        found = list(texts(source, ast.parse(source)))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
      self.report.add(f'{name}: {error}', text_reader.size_of(path))
      return []
    # UTF-8 has no half surrogate pairs, but an escape in a docstring can stand for one.
    return [text for text in found if _bytes(text).decode(errors='ignore') == text]


def _bytes(text: str) -> bytes:
  return text.encode(errors='surrogatepass')


def _write(path: pathlib.Path, lines: Iterable[str]) -> None:
  with path.open('w', encoding='utf-8') as file:
    file.writelines(lines)
    file.flush()
    os.fsync(file.fileno())


def train_texts(folder: pathlib.Path) -> Iterator[Sequence[str]]:
  """Of the documents in the folder those that training has too, some at a time."""
  files = text_reader.list_files('--output', str(folder))
  texts = (
    document.text
    for name, path in files
    for document in text_reader.read_documents(name, path)
    if not goes_to_validation(document.key, VALIDATION_SHARE)
  )
  return itertools.batched(texts, DOCUMENTS_AT_ONCE)


def write_corpus(folder: pathlib.Path) -> list[str]:
  """Writes the whole of it to a new folder; returns what is to be said of it."""
  documents = Documents()
  packages = [file for name in PACKAGES for file in package_files(name)]
  documents.add('standard library', standard_library.list_files(), definitions)
  documents.add('packages', packages, docstrings)
  folder.mkdir()
  shards = itertools.batched(documents.in_order(), DOCUMENTS_OF_SHARD)
  for number, shard in enumerate(shards):
    lines = (json.dumps({'text': text}) + '\n' for text in shard)
    _write(folder / f'documents-{number:05d}.jsonl', lines)
  _write(folder / 'tokenizer.json', [train(train_texts(folder), VOCABULARY)])
  versions = (f'{name} {importlib.metadata.version(name)}' for name in PACKAGES)
  return [*documents.lines, f'of {", ".join(versions)}', *documents.report.lines()]


def main(arguments: list[str] | None = None) -> None:
  parser = Parser(
    prog='python -m experiments.text_corpus',
    description='Write the corpus of configs/proxy_text.py.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_place('--output', default=FOLDER, help='a new folder')
  cache = '~/.cache/elas_jax'
  parser.add_place('--cache_dir', default=cache, help='where the rows go')
  options = parser.parse_args(arguments)
  check_new_folder('--output', options.output)
  check_writable('--cache_dir', options.cache_dir)
  with new_folder('--output', options.output) as folder:
    lines = write_corpus(folder)
  print(*lines, sep='\n')
  prepare.main(
    [
      *('--source=text_files', f'--path={options.output}', '--protocol=document'),
      *(f'--validation_share={VALIDATION_SHARE}', f'--cache_dir={options.cache_dir}'),
      *(f'--tokenizer={options.output}/tokenizer.json', '--processes=1'),
    ]
  )


if __name__ == '__main__':
  run_command(main)
