"""Kinds of data.source of a language model: what they refuse, and that their cases open."""

import pathlib
import types

import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import blocks
from elas_jax.systems import kinds
from elas_jax.systems.sources import SOURCES
from elas_jax.systems.sources.chat import Chat
from elas_jax.systems.sources.text_files import TextFiles
from elas_jax.systems.sources.tfds import Tfds
from elas_jax.systems.tokenizers import TOKENIZERS
from tests.conftest import thinned

RUN = types.SimpleNamespace(train=types.SimpleNamespace(steps=8))


def cases(folder: pathlib.Path, table: dict) -> list:
  found = []
  for name, kind in table.items():
    of_kind = kinds.room(kind).CASES
    if callable(of_kind):
      (folder / name).mkdir()
      of_kind = of_kind(folder / name)
    found += of_kind
  return found


# All of Python's library takes seconds; tests/data/sources_test.py reads some of it.
@pytest.mark.parametrize(
  'name', thinned(SOURCES, *(name for name in SOURCES if name != 'python_source'))
)
def test_cases_are_prepared(name, tmp_path):
  sources = cases(tmp_path, {name: SOURCES[name]})
  tokenizers = cases(tmp_path, TOKENIZERS)
  if name == 'python_source':  # as many tokens as it is
    tokenizers = tokenizers[:1]
  for source in sources:
    source.check('data.source', RUN)
    for tokenizer in tokenizers:
      tokenizer.check('data.tokenizer', None)
      data = types.SimpleNamespace(
        source=source,
        tokenizer=tokenizer,
        max_bad_share=0.01,
        protocol='packed',
        sequence_length=64 if name == 'chat' else 8,
        cache_dir=str(tmp_path / 'cache'),
        processes=1,
      )
      corpus = source.corpus(data)
      assert corpus.named in source.shown()
      prepared = blocks.prepare(corpus, tokenizer.load())
      assert min(len(prepared.train), len(prepared.validation)) > 0
      assert prepared.record()['source'] == source.label()
      assert prepared.tokenizer.fingerprint == tokenizer.load().fingerprint


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    (TextFiles(), "data.source.path='': text_files needs a folder, a file or a glob"),
    (TextFiles('gs://x/y'), "data.source.path='gs://x/y': gs:// addresses are not"),
    (TextFiles('x', 's3://y'), "data.source.validation_path='s3://y': s3:// addresses"),
    (Chat(), "data.source.path='': chat needs a folder, a file or a glob"),
    (Chat('x', 's3://y'), "data.source.validation_path='s3://y': s3:// addresses"),
    (Chat('x', validation_share=0.0), 'data.source.validation_share=0.0: must be'),
    (TextFiles('x\0'), "data.source.path='x\\x00': a path holds no NUL"),
    (TextFiles('x', validation_share=1.0), 'data.source.validation_share=1.0: must be'),
    (SOURCES['python_source'](0.0), 'data.source.validation_share=0.0: must be between'),
    (Tfds('../c4'), "data.source.name='../c4': accepted are names of prepared TFDS sets"),
    (Tfds(''), "data.source.name='': accepted are names"),
    (Tfds('text_files'), "data.source.name='text_files': is no TFDS set but a kind of"),
    (Tfds('c4/en', 'gs://tfds-data'), "data.source.data_dir='gs://tfds-data': gs://"),
  ],
)
def test_what_cannot_be_is_refused(source, message):
  with pytest.raises(UserError) as error:
    source.check('data.source', None)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
