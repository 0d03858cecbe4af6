"""A corpus: how messages name it, and that what was prepared of it is found again."""

import pytest

from elas_jax.data import blocks, file_hashes, hashing, standard_library
from elas_jax.data.sources import list_source
from elas_jax.data.tokenizers import load_tokenizer


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content)


@pytest.mark.parametrize(
  ('fields', 'named', 'where'),
  [
    ({'path': 'x'}, "data.source='text_files'", " data.source.path='x'"),
    ({'source': 'python_source'}, "data.source='python_source'", ''),
    (
      {'source': 'c4/en', 'path': 'sets'},
      "data.source.name='c4/en'",
      " data.source.data_dir='sets'",
    ),
  ],
)
def test_messages_name_the_fields_that_it_has(make_corpus, fields, named, where):
  corpus = make_corpus(**fields)
  assert corpus.named == named
  assert corpus.where == named + where


# What the first versions of the code had for these files, so that their caches are found.
FIRST = {
  'text_files': ('677be385da55d094b0b4', '8f031d26796633eade54'),
  'validation_path': ('ec556cb41f84e286d62a', '84df20a0ee23cc2b5303'),
  'python_source': ('3c7c0dc22fb27ec3933d', 'a81c2e0677ac9c1ad260'),
  'tfds': ('80c7685090c260fcd516', 'e4f7dbc21e6ef7143443'),
}


@pytest.mark.parametrize('kind', FIRST)
def test_folders_of_the_cache_keep_their_names(make_corpus, tmp_path, monkeypatch, kind):
  write(tmp_path / 'corpus/a.txt', 'one')
  write(tmp_path / 'corpus/b/c.md', 'two')
  write(tmp_path / 'held/v.txt', 'three')
  write(tmp_path / 'library/x.py', 'pass')
  write(tmp_path / 'sets/tiny/1.0.0/dataset_info.json', '{"fileFormat": "array_record"}')
  write(tmp_path / 'sets/tiny/1.0.0/features.json', '{}')
  monkeypatch.setattr(
    standard_library.sysconfig, 'get_path', lambda _: str(tmp_path / 'library')
  )
  corpus = {
    'text_files': make_corpus(),
    'validation_path': make_corpus(validation_path=str(tmp_path / 'held')),
    'python_source': make_corpus(source='python_source', path=''),
    'tfds': make_corpus(source='tiny', path=str(tmp_path / 'sets')),
  }[kind]
  listing = list_source(corpus)
  name = blocks._folder_name(corpus, listing, load_tokenizer(''))
  assert (listing.fingerprint, name) == (FIRST[kind][0], f'blocks/{FIRST[kind][1]}')


def test_hashes_of_files_are_kept_under_their_first_names(
  make_corpus, corpus, tmp_path, monkeypatch
):
  """Of a large corpus they take minutes to compute."""
  monkeypatch.setattr(file_hashes, 'SETTLED_SECONDS', -1.0)
  list_source(make_corpus())
  kept = {path.stem for path in (tmp_path / 'cache' / 'hashes').iterdir()}
  where = f'text_files data.path {tmp_path}/corpus'
  assert hashing.fingerprint(where) in kept
