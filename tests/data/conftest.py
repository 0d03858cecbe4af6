import dataclasses
import itertools

import pytest

from elas_jax.data.corpus import Corpus

WORDS = ('the', 'quick', 'brown', 'fox', 'jumps', 'naïve', 'Zoë', 'drinks', '水', '🙂')


@pytest.fixture(scope='module', autouse=True)
def prepared_here():
  """Not here: the process that prepares the data is what some of these tests are about."""


@pytest.fixture(autouse=True)
def no_plots():
  """Nothing is trained, so that nothing of training is imported."""


@pytest.fixture
def make_corpus(tmp_path):
  """A function that gives a small Corpus, with fields changed."""
  base = Corpus(
    source='text_files',
    path=str(tmp_path / 'corpus'),
    validation_path='',
    validation_share=0.2,
    max_bad_share=0.01,
    tokenizer='',
    protocol='packed',
    sequence_length=16,
    cache_dir=str(tmp_path / 'cache'),
    processes=1,
  )
  return lambda **changes: dataclasses.replace(base, **changes)


@pytest.fixture
def corpus(tmp_path):
  """A folder of 40 text files, some in subfolders; the dict from name to text."""
  texts = {}
  words = itertools.cycle(WORDS)
  for i in range(40):
    name = f'part{i % 3}/{i:02d}.txt' if i % 2 else f'{i:02d}.md'
    texts[name] = ' '.join(itertools.islice(words, 20 + i)) + '\n'
  for name, text in texts.items():
    path = tmp_path / 'corpus' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
  return texts
