"""What the preparation says of text that is not there, at its end and at every start."""

import json

import pytest
import tokenizers as hf

from elas_jax.data import blocks, prepare, train_tokenizer


@pytest.fixture
def run(make_corpus, corpus, capsys):
  """Runs the command; returns (config, its output, its errors)."""

  def run(**changes):
    config = make_corpus(**changes)
    names = 'source path validation_path validation_share cache_dir '
    names += 'protocol sequence_length'
    arguments = [f'--{name}={getattr(config, name)}' for name in names.split()]
    arguments += [f'--tokenizer={config.tokenizer or "bytes"}']
    prepare.main([*arguments, '--processes=1'])
    return config, *capsys.readouterr()

  return run


def test_nothing_lost(run, corpus):
  _, output, errors = run()
  # The first byte of each split is no target.
  assert 'train: 34 documents (0 empty)' in output
  assert 'bad records: 0 of 40; files that break off: 0; files not read: none' in output
  assert output.count('0.00% is unknown to the tokenizer') == 2
  assert errors == ''


def test_files_that_are_not_read(run, tmp_path, capsys):
  held_out = tmp_path / 'held_out'
  held_out.mkdir()
  (held_out / 'v.txt').write_text('held out')
  config, output, _ = run(validation_path=str(held_out))
  for name in ('x.parquet', 'z.txt.gz', 'README', '../held_out/y.parquet'):
    (tmp_path / 'corpus' / name).write_text('x')
  # Also at a start that prepares nothing: they came after the blocks.
  found = blocks.prepare(config).folder
  assert f'cache: {found}\n' in output
  kinds = 'files that are not read: 2 .parquet, 1 without suffix, 1 .txt.gz\n'
  assert capsys.readouterr().err == kinds
  _, output, errors = run(validation_path=str(held_out))
  assert 'files not read: 2 .parquet, 1 without suffix, 1 .txt.gz\n' in output
  assert errors == kinds


def test_many_kinds_make_one_line(run, tmp_path):
  for i in range(30):
    (tmp_path / 'corpus' / f'x.k{i}').write_text('x')
  _, output, _ = run()
  assert '22 kinds more\n' in output


def test_empty_documents_and_cut_text(run, tmp_path):
  for i in range(20):
    (tmp_path / 'corpus' / f'e{i:02d}.txt').write_text('')
  config, output, _ = run(protocol='document', sequence_length=32)
  prepared = blocks.prepare(config)
  assert prepared.train.empty + prepared.validation.empty == 20
  assert f'train: {prepared.train.documents} documents ({prepared.train.empty} empty)' in (
    output
  )
  # A row has 30 of the bytes that come after the first, and every text has more.
  rows = prepared.train.documents - prepared.train.empty
  share = rows * 30 / prepared.train.text_bytes
  assert f'{share:.2%} of the text is predicted' in output


def test_text_that_the_tokenizer_does_not_know(run, corpus, tmp_path):
  words = ['[UNK]', '[SEP]', 'the', 'quick', 'fox', 'jumps', 'drinks', 'Zoë']
  model = hf.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='[UNK]')
  tokenizer = hf.Tokenizer(model)
  tokenizer.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
  tokenizer.save(str(tmp_path / 't.json'))
  config, output, errors = run(tokenizer=str(tmp_path / 't.json'))
  prepared = blocks.prepare(config)
  # The rest of the corpus' words, by hand.
  unknown = ['brown', 'naïve', '水', '🙂']
  every = ' '.join(corpus.values()).split()
  size = sum(every.count(word) * len(word.encode()) for word in unknown)
  assert prepared.train.lost_bytes + prepared.validation.lost_bytes == size
  share = prepared.train.lost_bytes / prepared.train.text_bytes
  assert share > 0.1
  assert f'{share:.2%} is unknown to the tokenizer' in output
  lines = errors.splitlines()
  assert [line.split(':')[0] for line in lines] == ['train', 'validation']
  assert all('bits per byte are not comparable' in line for line in lines)


def test_dropout_is_said_once(run, tmp_path):
  settings = json.loads(train_tokenizer.train(iter([['the quick brown fox']]), 260))
  settings['model']['dropout'] = 0.1
  (tmp_path / 't.json').write_text(json.dumps(settings))
  _, _, errors = run(tokenizer=str(tmp_path / 't.json'))
  assert errors.count('BPE dropout of 0.1 is switched off') == 1
  assert errors.count('\n') == 1
