"""The corpus of proxy_text, of a library and a package that are made up."""

import configparser
import hashlib
import json
import pathlib
import re

import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import standard_library, train_tokenizer
from experiments import text_corpus

LONG = ' '.join(
  3 * ['It says at some length what it is good for, and then says that again.']
)
FUNCTIONS = [f'def f{i}(x):\n  return x + {i}\n' for i in range(80)]
LIBRARY = {
  'simple.py': '"""A docstring, which is none of a package."""\n' + '\n'.join(FUNCTIONS),
  # A form feed, decorators, what is no definition, and one that is there already.
  'more.py': (
    '# coding: latin-1\nraise RuntimeError("imported")\n\f\n'
    '@one\n@two(\n  3)\nclass Naïve:\n  def inside(self):\n    pass\n'
    'async def later():\n  """Half \\ud800 a pair."""\n'
    f'\n{FUNCTIONS[7]}'
  ),
  'broken.py': 'def f(:\n',
  'test/left_out.py': 'def left_out():\n  pass\n',
}
PACKAGE = {
  'made_up/__init__.py': f'"""{LONG}"""\nraise RuntimeError("imported")\n',
  'made_up/sub/code.py': (
    'class One:\n  """Too short."""\n'
    f'  def two(self):\n    """First line.\n\n    Then:\n      {LONG}\n    """\n'
    f'    def three():\n      r"""{LONG}"""\n'
    f'def four():\n  """\\ud800{LONG}"""\n'
    f'def five():\n  """{"x" * 200}"""\n'
    f'def six():\n  """{"x" * 199}"""\n'
  ),
  'made_up/tests/code.py': f'"""{LONG} As a test."""\n',
  'made_up/text.txt': LONG,
}
EXPECTED = [
  *FUNCTIONS,
  '@one\n@two(\n  3)\nclass Naïve:\n  def inside(self):\n    pass\n',
  'async def later():\n  """Half \\ud800 a pair."""\n',
  f'{LONG}\n',
  f'First line.\n\nThen:\n  {LONG}\n',
  f'{"x" * 200}\n',
]


@pytest.fixture
def made_up(tmp_path, monkeypatch):
  for folder, files in (('library', LIBRARY), ('packages', PACKAGE)):
    for name, text in files.items():
      path = tmp_path / folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text, encoding='latin-1' if name == 'more.py' else 'utf-8')
  about = tmp_path / 'packages/made_up-1.5.dist-info'
  about.mkdir()
  (about / 'METADATA').write_text('Metadata-Version: 2.1\nName: made-up\nVersion: 1.5\n')
  (about / 'RECORD').write_text(''.join(f'{name},,\n' for name in PACKAGE))
  monkeypatch.syspath_prepend(tmp_path / 'packages')
  library = str(tmp_path / 'library')
  monkeypatch.setattr(standard_library.sysconfig, 'get_path', lambda _: library)
  monkeypatch.setattr(text_corpus, 'PACKAGES', ('made-up',))
  monkeypatch.chdir(tmp_path)
  return tmp_path


def write(output):
  text_corpus.main([f'--output={output}', '--cache_dir=cache'])


def texts(folder):
  lines = [
    line
    for path in sorted(folder.glob('documents-*.jsonl'))
    for line in path.read_text().splitlines()
  ]
  return [json.loads(line)['text'] for line in lines]


def test_documents_are_definitions_and_docstrings_once_each(made_up, monkeypatch, capsys):
  monkeypatch.setattr(text_corpus, 'DOCUMENTS_OF_SHARD', 32)
  write('out')
  by_hash = lambda text: hashlib.sha256(text.encode()).hexdigest()
  assert texts(made_up / 'out') == sorted(EXPECTED, key=by_hash)
  names = [f'documents-{i:05d}.jsonl' for i in range(3)] + ['tokenizer.json']
  assert sorted(path.name for path in (made_up / 'out').iterdir()) == names
  said = capsys.readouterr().out
  assert re.search('standard library: 83 documents, .* MB, 1 of them left out', said)
  assert re.search('packages: 4 documents, .* MB, 1 of them left out', said)
  assert 'of made-up 1.5\n' in said
  assert re.search('1 of 5 records were unreadable .*\n  broken.py: ', said)
  found = re.findall(r'(\d+) documents \(0 empty\).* fingerprint [0-9a-f]{20}\n', said)
  assert sum(map(int, found)) == len(EXPECTED) == 85 and len(found) == 2


def test_the_tokenizer_is_that_of_the_train_split(made_up):
  write('out')
  train_tokenizer.main(
    [
      *('--source=text_files', '--path=out', '--vocab_size=4096', '--cache_dir=cache'),
      *('--output=other.json', f'--validation_share={text_corpus.VALIDATION_SHARE}'),
    ]
  )
  own = (made_up / 'out/tokenizer.json').read_bytes()
  assert own == (made_up / 'other.json').read_bytes()


def test_the_name_of_the_folder_is_no_pattern(made_up):
  write('out')
  write('[1]*')
  own, other = (made_up / name / 'tokenizer.json' for name in ('out', '[1]*'))
  assert own.read_bytes() == other.read_bytes()
  # Of both the rows are the same, and in one place.
  assert len(list((made_up / 'cache/blocks').glob('*/meta.json'))) == 1


@pytest.mark.parametrize(
  'cache, words',
  [
    ('', '--cache_dir: empty; must be a path'),
    ('gs://x', "--cache_dir='gs://x': gs:// addresses are not"),
    ('file', '--cache_dir=file: cannot be written: .*file is no folder'),
    ('file/in_it', '--cache_dir=file/in_it: cannot be written: .*file is no folder'),
  ],
)
def test_a_place_of_no_rows_is_refused_before_the_work(made_up, cache, words):
  (made_up / 'file').touch()
  with pytest.raises(UserError, match=f'^{words}'):
    text_corpus.main(['--output=out', f'--cache_dir={cache}'])
  assert not (made_up / 'out').exists()


def test_there_is_all_of_it_or_nothing(made_up, monkeypatch):
  before = sorted(made_up.iterdir())
  missing = ('made-up', 'never-installed')
  said = '^PACKAGES: never-installed is not installed; must be'
  with monkeypatch.context() as patch, pytest.raises(UserError, match=said):
    patch.setattr(text_corpus, 'PACKAGES', missing)
    write('out')
  with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
    patch.setattr(text_corpus, 'train', lambda texts, size: 1 / 0)
    write('out')
  assert sorted(made_up.iterdir()) == before
  (made_up / 'out').mkdir()
  (made_up / 'out/mine.txt').write_text('mine')
  with pytest.raises(UserError, match='^--output=out: exists; must be a new or an empty'):
    write('out')
  (made_up / 'packages/made_up-1.5.dist-info/RECORD').unlink()
  with pytest.raises(UserError, match='^made-up: its installation names no files; must'):
    write('other')


def test_all_packages_are_required_ones():
  settings = configparser.ConfigParser()
  settings.read(pathlib.Path(text_corpus.__file__).parents[1] / 'setup.cfg')
  lines = settings['options']['install_requires'].split()
  assert {*text_corpus.PACKAGES} <= {re.match(r'[\w.-]+', line)[0] for line in lines}
  assert sorted(text_corpus.PACKAGES) == list(text_corpus.PACKAGES)
