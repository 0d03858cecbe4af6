"""Damage to the cache: made again and said, or named where it shows while training; and
errors that are the cache's own."""

import random
import re
import shutil

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import block_writer, blocks, cache
from elas_jax.data.pipeline import train_batches

WRITE = 'write() failed:'  # so ArrayRecord's errors begin


def everything(prepared):
  sets = prepared.train, prepared.validation
  return [split.read(np.arange(len(split))) for split in sets]


def prepare(config):
  """In this process, which is faster than `blocks.prepare`."""
  blocks.write(config)
  return blocks.prepare(config)


def cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def flip(path, bit):
  content = bytearray(path.read_bytes())
  content[bit // 8] ^= 1 << (bit % 8)
  path.write_bytes(content)


def broken_meta(folder, text):
  (folder / cache.META).write_text(text)


def renumbered(folder):
  path = folder / cache.META
  path.write_text(path.read_text().replace('"tokens": ', '"tokens": 1'))


DAMAGES = {
  'meta cut': (lambda folder: cut(folder / cache.META), 'meta.json: Expecting'),
  'meta empty': (lambda folder: broken_meta(folder, ''), 'meta.json: Expecting'),
  'meta missing': (lambda folder: (folder / cache.META).unlink(), 'meta.json is missing'),
  'meta a list': (lambda folder: broken_meta(folder, '[]'), 'meta.json holds no object'),
  'meta changed': (renumbered, 'meta.json: the checksum differs'),
  'tokenizer changed': (
    lambda folder: (folder / 'tokenizer.json').write_text('{}'),
    'tokenizer.json is not as it was written',
  ),
  'blocks missing': (
    lambda folder: next(folder.glob('train*')).unlink(),
    'train-.* is missing',
  ),
  'blocks cut': (
    lambda folder: cut(next(folder.glob('train*'))),
    'train-.* is not as it was written',
  ),
  'a file instead': (
    lambda folder: [shutil.rmtree(folder), folder.write_text('')],
    'meta.json is missing',
  ),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_blocks_are_made_again(make_corpus, corpus, name, capfd):
  config, (damage, why) = make_corpus(), DAMAGES[name]
  prepared = prepare(config)
  expected = everything(prepared)
  damage(prepared.folder)
  assert not cache.is_complete(prepared.folder)
  capfd.readouterr()
  again = prepare(config)
  said = capfd.readouterr().err
  assert f'{prepared.folder} is damaged (' in said
  assert re.search(rf'\({why}.*\): made again\n', said)
  np.testing.assert_equal(everything(again), expected)
  prepare(config)
  assert 'damaged' not in capfd.readouterr().err


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json', 'meta.json'])
def test_damaged_documents_are_made_again(make_corpus, corpus, file, capfd):
  config = make_corpus()
  prepared = prepare(config)
  expected = everything(prepared)
  (path,) = (prepared.folder.parents[1] / 'documents').rglob(file)
  cut(path)
  shutil.rmtree(prepared.folder)  # else nobody asks for them
  capfd.readouterr()
  np.testing.assert_equal(everything(prepare(config)), expected)
  assert 'is damaged (' in capfd.readouterr().err


def test_damaged_texts_are_named_and_mended_by_the_next_start(make_corpus, corpus, capfd):
  config = make_corpus()
  prepared = prepare(config)
  expected = everything(prepared)
  (path,) = (prepared.folder.parents[1] / 'documents').rglob('*-train.array_record-*')
  content = path.read_bytes()
  path.write_bytes(content[:200] + bytes(800) + content[1000:])
  shutil.rmtree(prepared.folder)
  with pytest.raises(UserError, match=f'{path.parent} is damaged .*the same command'):
    blocks.write(config)
  block_writer._open_once.cache_clear()  # the next start is another process
  np.testing.assert_equal(everything(prepare(config)), expected)
  assert 'made again' in capfd.readouterr().err


def test_no_flipped_bit_of_blocks_is_read(make_corpus, corpus):
  config = make_corpus()
  prepared = prepare(config)
  expected, folder = everything(prepared), prepared.folder
  path, numbers, found = next(folder.glob('train*')), random.Random(0), 0
  whole, meta = path.read_bytes(), (folder / cache.META).read_text()
  for bit in numbers.sample(range(8 * len(whole)), 60):
    flip(path, bit)
    try:
      np.testing.assert_equal(everything(blocks.prepare(config)), expected)
    except UserError as error:
      found += 1
      assert str(error).startswith(f'{path} is damaged (')
      assert str(error).endswith('); the same command makes it again')
      assert not cache.is_complete(folder)
      (folder / cache.META).write_text(meta)
    path.write_bytes(whole)
  assert found > 5


def test_damage_while_training_is_named_and_mended_by_the_next_start(
  make_corpus, corpus, capfd
):
  config = make_corpus()
  prepared = prepare(config)
  expected = everything(prepared)
  path = next(prepared.folder.glob('train*'))
  content = path.read_bytes()
  path.write_bytes(content[:200] + bytes(800) + content[1000:])
  batches = train_batches(
    blocks.prepare(config).train,
    batch_size=len(prepared.train),
    seed=0,
    process_index=0,
    process_count=1,
    read_threads=2,
    prefetch=2,
  )
  with pytest.raises(UserError, match=f'{path} is damaged .*the same command makes it'):
    next(batches)
  np.testing.assert_equal(everything(prepare(config)), expected)
  assert 'made again' in capfd.readouterr().err


def test_damage_where_the_cache_cannot_be_written(tmp_path, monkeypatch):
  def fail(*_):
    raise PermissionError(13, 'Permission denied')

  monkeypatch.setattr('pathlib.Path.rename', fail)
  error = cache.damaged(tmp_path, tmp_path / 'x', 'why')
  assert str(error) == (
    f'{tmp_path}/x is damaged (why); delete {tmp_path}, which cannot be written here '
    '(Permission denied)'
  )


def test_folders_from_before_there_were_checksums_are_taken(tmp_path):
  (tmp_path / 'name').mkdir()
  (tmp_path / 'name' / cache.META).write_text('{"a": 1}')
  fail = lambda folder: pytest.fail('made again')
  assert cache.make_folder(tmp_path, 'name', fail) == tmp_path / 'name'


@pytest.mark.parametrize(
  'make_error, is_of_the_cache',
  [
    (lambda at: OSError(28, 'No space left on device'), True),
    (lambda at: OSError('12 requested and 3 written'), True),  # NumPy on a full disk
    (lambda at: PermissionError(13, 'Permission denied', f'{at}/name.lock'), True),
    (lambda at: FileNotFoundError(2, 'No such file', str(at)), True),
    (lambda at: FileNotFoundError(2, 'No such file', str(at.parent)), True),
    (lambda at: PermissionError(13, 'Permission denied', '/elsewhere/a.txt'), False),
    (lambda at: BrokenPipeError(32, 'Broken pipe'), False),
    (lambda at: RuntimeError(f'{WRITE} No space left on device; writing /x; at'), True),
    (lambda at: RuntimeError(f'{WRITE} Input/output error; writing {at}/x; at 5'), True),
    (lambda at: RuntimeError(f'something else; writing {at}/x'), False),
  ],
)
def test_errors_of_the_cache_are_told_from_others(tmp_path, make_error, is_of_the_cache):
  def write(folder):
    raise make_error(tmp_path)

  expected = UserError if is_of_the_cache else type(make_error(tmp_path))
  with pytest.raises(expected) as caught:
    cache.make_folder(tmp_path, 'name', write)
  assert str(caught.value).startswith('data.cache_dir=') == is_of_the_cache
