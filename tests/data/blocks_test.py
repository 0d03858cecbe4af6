"""Blocks of a corpus: what they hold, all or nothing, in one process or several."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.cli import run_command
from elas_jax.data import block_set, block_writer, blocks, cache, prepare
from elas_jax.data.blocks import Prepared
from elas_jax.data.sources import open_source
from elas_jax.data.tokenizers import BytesTokenizer
from tests.conftest import thinned


def prepare_here(config) -> Prepared:
  """As blocks.prepare, but without its subprocess."""
  blocks.write(config)
  return blocks.prepare(config)


def contents(prepared):
  return {path.name: path.read_bytes() for path in prepared.folder.iterdir()}


def test_packed_blocks_hold_the_corpus(make_corpus, corpus):
  config = make_corpus()
  prepared = prepare_here(config)
  source = open_source(config)
  for split, of_split in (
    ('train', prepared.train),
    ('validation', prepared.validation),
  ):
    texts = [x['text'] for x in source.splits[split]]
    stream = [i for text in texts for i in [*text, 256]]
    rows = of_split.read(range(len(of_split)))
    targets = [row[1 : n + 1] for row, n in zip(rows['tokens'], rows['valid'])]
    np.testing.assert_array_equal(np.concatenate(targets), stream[1:])
    assert of_split.tokens == rows['valid'].sum() == len(stream) - 1
    assert of_split.bytes == rows['bytes'].sum() == sum(map(len, texts)) - 1
    assert of_split.max_token_id == 256
    assert of_split.documents == len(texts)
    assert of_split.text_bytes == sum(map(len, texts))
    assert of_split.blocks == len(of_split) == len(rows['tokens'])
    assert of_split.sequence_length == 16
  assert prepared.report == source.report


def test_document_blocks(make_corpus, corpus):
  config = make_corpus(protocol='document', sequence_length=32)
  train = prepare_here(config).train
  texts = [x['text'] for x in open_source(config).splits['train']]
  assert len(train) == len(texts)
  for block, text in zip(map(train.__getitem__, range(len(train))), texts):
    kept = [*text[:31], 256]  # every text of the corpus is longer than that
    np.testing.assert_array_equal(block['tokens'], [*kept, 256])
    assert (block['valid'], block['bytes']) == (31, 30)


@pytest.mark.conformance
def test_any_number_of_processes_gives_the_same(make_corpus, corpus, monkeypatch, tmp_path):
  monkeypatch.setattr(block_writer, 'SHARD_BYTES', 500)
  one = prepare_here(make_corpus())
  assert len(list(one.folder.glob('train-*'))) > 3
  two = prepare_here(make_corpus(processes=2, cache_dir=str(tmp_path / 'two')))
  assert one.folder.name == two.folder.name
  assert contents(two) == contents(one)


@pytest.mark.parametrize('group_size', [1, 16])
def test_random_access(make_corpus, corpus, monkeypatch, group_size):
  monkeypatch.setattr(block_writer, 'SHARD_BYTES', 500)
  options = f'group_size:{group_size},uncompressed'
  monkeypatch.setattr(block_writer, 'WRITER_OPTIONS', options)
  train = prepare_here(make_corpus()).train
  rows = train.read(range(len(train)))
  order = np.random.default_rng(0).permutation(len(train))
  shuffled = train.read(order)
  for name, values in rows.items():
    assert values.dtype == np.int32
    np.testing.assert_array_equal(shuffled[name], values[order])
    np.testing.assert_array_equal(train[3][name], values[3])
  for index in (-1, len(train)):
    with pytest.raises(IndexError):
      train.read([index])
  assert train.read([])['tokens'].shape == (0, 17)


def test_fingerprint_covers_what_changes_the_blocks(make_corpus, corpus, tmp_path):
  changes = [
    {},
    {'protocol': 'document'},
    {'sequence_length': 17},
    {'validation_share': 0.3},
  ]
  folders = {prepare_here(make_corpus(**change)).folder for change in changes}
  assert len(folders) == len(changes)
  same = {'processes': 2, 'max_bad_share': 0.5}
  assert prepare_here(make_corpus(**same)).folder in folders


def test_bad_records_are_reported_at_every_start(make_corpus, corpus, tmp_path, capfd):
  (tmp_path / 'corpus' / 'bad.txt').write_bytes(b'\xff')
  config = make_corpus(max_bad_share=0.1)
  for prepare_one in (blocks.prepare, blocks.prepare):
    prepared = prepare_one(config)
    assert prepared.report.bad == 1
    error = capfd.readouterr().err
    assert error.count('1 of 41 records were unreadable') == 1
    assert 'bad.txt: not UTF-8' in error
  with pytest.raises(UserError, match='data.max_bad_share=0.01'):
    blocks.prepare(make_corpus())


def test_error_of_the_subprocess_arrives(make_corpus, corpus, tmp_path, capfd):
  for name in ('a', 'b', 'c'):
    (tmp_path / 'corpus' / f'{name}.txt').write_bytes(b'\xff')
  with pytest.raises(UserError, match=r'^data\.max_bad_share=0\.01: 3 of 43[^\n]*$'):
    blocks.prepare(make_corpus())
  assert 'Traceback' not in capfd.readouterr().err


def test_crash_of_the_subprocess_is_no_user_error(make_corpus, corpus, monkeypatch):
  monkeypatch.setattr(sys, 'executable', '/bin/false')
  with pytest.raises(RuntimeError, match='ended with 1'):
    blocks.prepare(make_corpus())


KILLS_ITSELF = """
import os, signal
from elas_jax.data import block_writer, prepare
def write_shard(task, advance):
  write(task, advance)
  os.kill(os.getpid(), signal.SIGKILL)
write, block_writer.write_shard = block_writer.write_shard, write_shard
block_writer.SHARD_BYTES = 500
prepare.main({arguments})
"""


def test_kill_in_the_middle_then_again(make_corpus, corpus, monkeypatch, tmp_path):
  monkeypatch.setattr(block_writer, 'SHARD_BYTES', 500)
  config = make_corpus()
  names = ('source', 'path', 'validation_share', 'sequence_length', 'cache_dir')
  arguments = [f'--{name}={getattr(config, name)}' for name in names]
  code = KILLS_ITSELF.format(arguments=[*arguments, '--processes=1'])
  root = str(pathlib.Path(cache.__file__).parents[2])
  environment = {**os.environ, 'PYTHONPATH': root}
  done = subprocess.run([sys.executable, '-c', code], env=environment, check=False)
  assert done.returncode == -signal.SIGKILL
  left = list((tmp_path / 'cache' / 'blocks').glob('*'))
  assert any('.tmp-' in path.name for path in left)
  assert not any(cache.is_complete(path) for path in left)
  prepared = prepare_here(config)
  left = sorted(path.name for path in prepared.folder.parent.iterdir())
  assert left == [prepared.folder.name, f'{prepared.folder.name}.lock']
  clean = prepare_here(dataclasses.replace(config, cache_dir=str(tmp_path / 'clean')))
  assert contents(prepared) == contents(clean)


def test_two_preparations_at_once_share_one_result(tmp_path):
  written = []

  def write(folder):
    written.append(folder)
    assert len(list(tmp_path.glob('name.tmp-*'))) == 1
    (folder / 'data').write_text('x' * len(written))
    (folder / cache.META).write_text('{}')

  threads = [
    threading.Thread(target=cache.make_folder, args=(tmp_path, 'name', write))
    for _ in range(5)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(written) == 1
  assert (tmp_path / 'name' / 'data').read_text() == 'x'


def test_without_locks_the_first_to_rename_wins(tmp_path, monkeypatch):
  def no_locks(file, flags):
    raise OSError('no locks here')

  monkeypatch.setattr(cache.fcntl, 'flock', no_locks)

  def write(text, before_end=lambda: None):
    def write_folder(folder):
      (folder / 'data').write_text(text)
      before_end()
      (folder / cache.META).write_text('{}')

    return write_folder

  first = lambda: cache.make_folder(tmp_path, 'name', write('first'))
  cache.make_folder(tmp_path, 'name', write('second', before_end=first))
  assert (tmp_path / 'name' / 'data').read_text() == 'first'
  assert not list(tmp_path.glob('*.tmp-*'))


def test_an_error_leaves_nothing(tmp_path):
  def write(folder):
    (folder / 'data').write_text('x')
    raise ValueError('broken')

  with pytest.raises(ValueError, match='broken'):
    cache.make_folder(tmp_path, 'name', write)
  assert [path.name for path in tmp_path.iterdir()] == ['name.lock']


def test_error_in_a_worker_stops_the_preparation(make_corpus, corpus, monkeypatch):
  monkeypatch.setattr(block_writer, 'SHARD_BYTES', 500)
  make_tasks = block_writer._tasks

  def make_wrong_tasks(*arguments):
    tasks = make_tasks(*arguments)
    return [dataclasses.replace(task, split='lost') for task in tasks]

  monkeypatch.setattr(block_writer, '_tasks', make_wrong_tasks)
  with pytest.raises(Exception, match='lost'):
    blocks.write(make_corpus(processes=2))


LIMITED = """
import resource, signal
from elas_jax.config.cli import run_command
from elas_jax.data import block_writer, prepare
block_writer.SHARD_BYTES = 2000
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
run_command(lambda: prepare.main({arguments}))
"""


@pytest.mark.parametrize('kind', thinned(['documents', 'blocks'], 'blocks'))
def test_disk_that_takes_no_more_is_one_line(make_corpus, corpus, tmp_path, kind):
  """A limit on the size of files stands for a full disk: ArrayRecord reports both alike."""
  config = make_corpus()
  arguments = [f'--path={config.path}', f'--cache_dir={config.cache_dir}']
  arguments += ['--source=text_files', '--validation_share=0.2', '--processes=1']
  if kind == 'blocks':
    open_source(config)  # the documents are there
  code = LIMITED.format(arguments=arguments, limit=3_000)
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 2, done.stderr
  start = f"error: data.cache_dir='{config.cache_dir}' cannot be written: [Errno 27] File"
  assert done.stderr.startswith(start)
  assert done.stderr.count('\n') == 1
  assert f'/{kind}/' in done.stderr
  assert not list(tmp_path.glob('cache/*/*.tmp-*'))


def test_too_short_for_a_block(make_corpus, tmp_path):
  folder = tmp_path / 'corpus'
  folder.mkdir()
  (folder / 'x.txt').write_text('long enough for something')
  (tmp_path / 'v.txt').write_text('x')  # with the end token: two tokens, one target
  config = make_corpus(validation_path=str(tmp_path / 'v.txt'))
  assert prepare_here(config).validation.tokens == 1
  (tmp_path / 'v.txt').write_text('\n')
  documents = make_corpus(validation_path=str(tmp_path / 'v.txt'), protocol='document')
  assert prepare_here(documents).validation.tokens == 1


def test_readers_are_opened_when_needed(make_corpus, corpus, monkeypatch):
  monkeypatch.setattr(block_writer, 'SHARD_BYTES', 500)
  train = prepare_here(make_corpus()).train
  opened = []
  real = block_set.ArrayRecordReader
  monkeypatch.setattr(
    block_set,
    'ArrayRecordReader',
    lambda *arguments, **options: opened.append(1) or real(*arguments, **options),
  )
  train.read([0, 1, 0])
  train.read([1])
  assert len(opened) == 1


def test_command(make_corpus, corpus, capsys, tmp_path):
  config = make_corpus()
  arguments = ['--source=text_files', f'--path={config.path}', '--processes=1']
  arguments += [f'--cache_dir={config.cache_dir}', '--validation_share=0.2']
  prepare.main([*arguments, '--sequence_length=16'])
  output = capsys.readouterr().out
  assert 'train: 34 documents' in output
  assert 'bytes/token' in output
  assert str(blocks.prepare(config).folder) in output
  for wrong, field in [
    ('--tokenizer=missing.json', 'data.tokenizer.path'),
    ('--path=/missing', 'data.source.path'),
    ('--source=lm1b', 'data.source.name'),
    ('--sequence_length=1', 'argument --sequence_length'),
    (f'--sequence_length={10**12}', 'argument --sequence_length'),
    (f'--sequence_length={10**30}', 'argument --sequence_length'),
    (f'--processes={10**12}', 'argument --processes'),
    ('--validation_share=nan', 'data.source.validation_share=nan: must be finite'),
    ('--max_bad_share=1e300', 'data.max_bad_share=1e+300: must be finite'),
    ('--processes=-1', 'argument --processes'),
    ('--source=python_source', '--path='),
    ('--validation_share=1', 'data.source.validation_share=1.0'),
    ('--max_bad_share=2', 'data.max_bad_share=2.0'),
    ('--path=', "data.source.path=''"),
    ('--tokenizer=', "data.tokenizer.path=''"),
    ('--cache_dir=', "data.cache_dir=''"),
  ]:
    with pytest.raises(SystemExit, match='2'):
      run_command(lambda wrong=wrong: prepare.main([*arguments, wrong]))
    error = capsys.readouterr().err
    assert error.startswith(f'error: {field}')
    assert error.count('\n') == 1


def test_preparation_imports_no_jax():
  code = (
    'import sys\n'
    'import elas_jax.data.prepare, elas_jax.data.train_tokenizer\n'
    'import elas_jax.data.text_files, elas_jax.data.python_source\n'
    "heavy = {'jax', 'flax', 'grain', 'tensorflow', 'rich'} & set(sys.modules)\n"
    'assert not heavy, heavy\n'
  )
  root = str(pathlib.Path(cache.__file__).parents[2])
  environment = {**os.environ, 'PYTHONPATH': root}
  subprocess.run([sys.executable, '-c', code], env=environment, check=True)


@pytest.mark.conformance
def test_documents_in_both_splits_are_reported(make_corpus, corpus, tmp_path, capsys):
  write = lambda name, text: (tmp_path / 'held_out' / name).write_text(text)
  (tmp_path / 'held_out').mkdir()
  write('a.txt', corpus['04.md'])
  write('b.txt', corpus['14.md'])
  write('c.txt', 'of its own')
  write('blank.txt', '\n')
  (tmp_path / 'corpus' / 'blank.txt').write_text('\n')
  config = make_corpus(validation_path=str(tmp_path / 'held_out'))
  prepared = prepare_here(config)
  note = '2 of 4 documents of the validation split are equal to some of the train split'
  assert prepared.source_notes == (note,)
  assert note in capsys.readouterr().err
  assert not list(prepared.folder.glob('*.hashes'))
  names = ('source', 'path', 'validation_path', 'cache_dir', 'sequence_length')
  prepare.main([f'--{name}={getattr(config, name)}' for name in names])
  assert note in capsys.readouterr().out


def test_record_follows_the_rows(make_corpus, corpus, tmp_path):
  record = lambda **fields: prepare_here(make_corpus(**fields)).record()
  first = record()
  assert set(first['files']['data.source.path']) == set(corpus)
  assert first['splits']['train']['documents'] == 34
  moved = tmp_path / 'moved'
  (tmp_path / 'corpus').rename(moved)
  assert record(path=str(moved)) == first
  assert record(path=str(moved), sequence_length=17)['splits'] != first['splits']
  text = moved / '04.md'  # of the validation split
  text.write_text(text.read_text() + 'more')
  second = record(path=str(moved))
  assert second['splits']['train'] == first['splits']['train']
  assert second['splits']['validation'] != first['splits']['validation']


def test_subprocess_that_finds_other_files(make_corpus, corpus, tmp_path, monkeypatch):
  """They change between the two listings."""

  def write_other(config, tokenizer):
    (tmp_path / 'corpus' / '04.md').write_text('changed')
    blocks.write(config, tokenizer)

  monkeypatch.setattr(blocks, '_write_in_subprocess', write_other)
  with pytest.raises(UserError, match=r'1 file \(04.md\) changed while the data were'):
    blocks.prepare(make_corpus())


def test_a_given_tokenizer_is_taken_instead(make_corpus, corpus):
  config = make_corpus(tokenizer='missing.json')
  prepared = blocks.prepare(config, BytesTokenizer())
  assert prepared.folder == blocks.prepare(make_corpus()).folder
