import gzip
import json
import os
import pathlib
import sysconfig

import pytest
import zstandard

from elas_jax.common.errors import UserError
from elas_jax.data import (
  standard_library,
  text_files,
  text_reader,
)
from elas_jax.data.sources import list_source, open_source
from tests.conftest import thinned

VALIDATION_OF_CORPUS = ['04.md', '14.md', '16.md', '18.md', '34.md', 'part2/17.txt']


def texts_of(source, split):
  # Documents that TFDS reads from files hold bytes.
  return [document['text'].decode() for document in source.splits[split]]


def names_of(source, split):
  return [document['name'].decode() for document in source.splits[split]]


def both(source):
  return texts_of(source, 'train') + texts_of(source, 'validation')


def json_lines(texts):
  return '\n'.join(json.dumps({'text': text}) for text in texts).encode()


def write(folder, name, content):
  path = pathlib.Path(folder) / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def test_splits_are_disjoint_complete_and_stable(make_corpus, corpus, tmp_path):
  source = open_source(make_corpus())
  train, validation = names_of(source, 'train'), names_of(source, 'validation')
  assert sorted(train + validation) == sorted(corpus)
  assert train == sorted(train)
  assert sorted(both(source)) == sorted(corpus.values())
  assert sum(source.sizes.values()) == sum(len(x.encode()) for x in corpus.values())
  assert (source.report.total, source.report.bad) == (40, 0)
  # A golden value: the split must never move between versions or processes.
  assert validation == VALIDATION_OF_CORPUS
  # A new file moves no other one.
  write(tmp_path / 'corpus', 'new.txt', b'new')
  again = open_source(make_corpus())
  assert again.fingerprint != source.fingerprint
  assert set(validation) <= set(names_of(again, 'validation'))
  assert set(train) <= set(names_of(again, 'train'))


def test_documents_are_prepared_once(make_corpus, corpus, monkeypatch):
  first = open_source(make_corpus())
  monkeypatch.setattr(text_files, 'TextFiles', None)
  second = open_source(make_corpus())
  assert first.folder == second.folder
  assert both(first) == both(second)


def test_fingerprint_follows_the_files(make_corpus, corpus, tmp_path):
  first = list_source(make_corpus()).fingerprint
  assert list_source(make_corpus()).fingerprint == first
  assert list_source(make_corpus(validation_share=0.3)).fingerprint != first
  write(tmp_path / 'corpus', '00.md', b'another text of another length')
  assert list_source(make_corpus()).fingerprint != first


def test_python_source_is_the_library(make_corpus):
  source = open_source(make_corpus(source='python_source', path=''))
  names = names_of(source, 'train') + names_of(source, 'validation')
  assert 'argparse.py' in names
  assert 'json/decoder.py' in names
  assert not [name for name in names if {'test', 'site-packages'} & {*name.split('/')}]
  assert len(set(names)) == len(names) == source.report.total
  assert names_of(source, 'train') == sorted(names_of(source, 'train'))
  share = len(source.splits['validation']) / len(names)
  assert 0.1 < share < 0.3
  text = dict(zip(names, both(source)))['argparse.py']
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  assert text == (root / 'argparse.py').read_text(encoding='utf-8')


def test_python_source_encodings(make_corpus, tmp_path, monkeypatch):
  library = tmp_path / 'library'
  for i in range(30):
    write(library, f'{i}.py', b'pass\r\nx = 1\r')
  write(library, 'latin.py', b'# -*- coding: latin-1 -*-\n# \xe9\n')
  write(library, 'bad.py', b'# \xff\n')
  write(library, 'cookie.py', b'# coding: no-such\n')
  write(library, 'site-packages/other.py', b'pass')
  write(library, 'idlelib/idle_test/other.py', b'pass')
  monkeypatch.setattr(standard_library.sysconfig, 'get_path', lambda _: str(library))
  config = make_corpus(source='python_source', path='', max_bad_share=0.1)
  source = open_source(config)
  assert sorted(set(both(source))) == [
    '# -*- coding: latin-1 -*-\n# é\n',
    'pass\nx = 1\n',
  ]
  assert (source.report.total, source.report.bad) == (33, 2)
  assert source.report.bad_bytes == len(b'# \xff\n# coding: no-such\n')
  assert 'bad.py: ' in source.report.messages[0]


@pytest.mark.parametrize('suffix', [name[1:] for name in text_reader.JSON_LINES])
def test_json_lines(make_corpus, tmp_path, suffix):
  texts = [f'document {i} é\n' for i in range(200)]
  content = b'\n'.join([json_lines(texts[:100]), b'', b' ', json_lines(texts[100:])])
  if suffix.endswith('gz'):
    content = gzip.compress(content)
  elif suffix.endswith('zst'):  # two frames, as parallel compressors write them
    compress = zstandard.ZstdCompressor().compress
    content = compress(content[:999]) + compress(content[999:])
  write(tmp_path / 'corpus', f'x.{suffix}', content)
  source = open_source(make_corpus())
  assert sorted(both(source)) == sorted(texts)
  assert (source.report.total, source.report.bad) == (200, 0)
  assert f'x.{suffix}:1' in names_of(source, 'train') + names_of(source, 'validation')


@pytest.mark.parametrize(
  ('line', 'reason'),
  [
    (b'{"text": ', 'not JSON'),
    (b'{"other": "x"}', "no field 'text'"),
    (b'["text"]', "no field 'text'"),
    (b'{"text": 3}', 'no string but int'),
    (b'{"text": null}', 'no string but NoneType'),
    (b'{"text": "\xff"}', 'not UTF-8'),
    (b'{"text": "\\ud800"}', 'surrogate'),
    (b'[' * 100000, 'not JSON'),
  ],
)
def test_bad_lines_are_counted_with_their_place(make_corpus, tmp_path, line, reason):
  lines = json_lines([str(i) for i in range(200)]).split(b'\n')
  lines.insert(150, line)
  path = write(tmp_path / 'corpus', 'sub/x.jsonl', b'\n'.join(lines))
  source = open_source(make_corpus(max_bad_share=0.99))
  assert len(both(source)) == 200
  assert (source.report.total, source.report.bad) == (201, 1)
  assert source.report.bad_bytes == len(line)
  assert source.report.total_bytes == sum(map(len, lines))
  assert source.report.messages[0].startswith(f'{path}:151: ')
  assert reason in source.report.messages[0]


@pytest.mark.parametrize('kind', ['gz', 'zst'])
@pytest.mark.parametrize('damage', thinned(['truncated', 'corrupt'], 'corrupt'))
def test_broken_archive_among_good_files(make_corpus, tmp_path, kind, damage):
  # Random hex, so that the break comes long after the first good lines.
  texts = [f'{i} {hash((i, j)):x}' for i in range(250) for j in range(40)]
  content = json_lines(texts)
  packed = (
    gzip.compress(content)
    if kind == 'gz'
    else zstandard.ZstdCompressor(write_checksum=True).compress(content)
  )
  half = len(packed) // 2
  broken = packed[:half] if damage == 'truncated' else packed[:half] + b'\xff' * half
  write(tmp_path / 'corpus', f'b.jsonl.{kind}', broken)
  write(tmp_path / 'corpus', 'a.jsonl', json_lines(['good'] * 100))
  with pytest.raises(UserError, match=r'^data\.max_bad_share=0\.99: 1 files [^\n]*$'):
    open_source(make_corpus(max_bad_share=0.99))
  source = open_source(make_corpus(max_bad_share=1.0))
  found = both(source)
  assert found.count('good') == 100
  known = set(found)
  kept = [text for text in texts if text in known]
  assert kept == texts[: len(kept)]
  assert 0 < len(kept) < len(texts)
  assert source.report.bad in (1, 2)  # a corrupt archive may give garbage first
  assert 'breaks off' in source.report.messages[0]


def test_unreadable_files_are_counted(make_corpus, corpus, tmp_path, monkeypatch):
  (tmp_path / 'corpus' / 'dangling.txt').symlink_to(tmp_path / 'nowhere')
  os.mkfifo(tmp_path / 'corpus' / 'pipe.txt')
  write(tmp_path / 'corpus', 'latin.txt', b'\xe9')
  write(tmp_path / 'corpus', 'huge.txt', b'x' * 5000)
  monkeypatch.setattr(text_reader, 'MAX_DOCUMENT_BYTES', 4000)
  source = open_source(make_corpus(max_bad_share=0.5))
  assert sorted(both(source)) == sorted(corpus.values())
  messages = '\n'.join(source.report.messages)
  assert 'dangling.txt: No such file' in messages
  assert 'pipe.txt: not a regular file' in messages
  assert 'latin.txt: not UTF-8 at byte 0' in messages
  assert 'huge.txt: 5000 bytes' in messages
  # The report is part of the cache.
  assert open_source(make_corpus(max_bad_share=0.5)).report == source.report


def test_too_many_bad_records_are_refused(make_corpus, corpus, tmp_path):
  for i in range(30):
    write(tmp_path / 'corpus', f'bad{i:02d}.txt', b'\xff')
  config = make_corpus(max_bad_share=0.4)
  with pytest.raises(UserError) as error:
    open_source(config)
  message = str(error.value)
  assert message.startswith('data.max_bad_share=0.4: 30 of 70 records')
  assert '42.86%' in message
  assert 'bad00.txt: not UTF-8' in message
  assert '\n' not in message
  report = open_source(make_corpus(max_bad_share=0.5)).report
  assert len(report.messages) == 20
  assert len(report.lines()) == 22
  assert '10 more' in report.lines()[-1]
  with pytest.raises(UserError):  # a prepared corpus is refused too
    open_source(config)


def test_nothing_but_one_unreadable_file(make_corpus, tmp_path):
  write(tmp_path / 'corpus', 'x.txt', b'\xff')
  for share in (0.01, 1.0):
    with pytest.raises(UserError, match=r'^data\.(max_bad_share|source)=[^\n]*$'):
      open_source(make_corpus(max_bad_share=share))


def test_a_folder_may_have_the_name_of_a_file(make_corpus, corpus, tmp_path):
  write(tmp_path / 'corpus', 'folder.txt/inside.txt', b'inside')
  assert 'inside' in both(open_source(make_corpus()))


def test_hidden_files_and_loops(make_corpus, corpus, tmp_path):
  write(tmp_path / 'corpus', '.hidden/x.txt', b'hidden')
  write(tmp_path / 'corpus', '.x.txt', b'hidden')
  (tmp_path / 'corpus' / 'loop').symlink_to(tmp_path / 'corpus')
  write(tmp_path / 'elsewhere', 'x.txt', b'linked')
  (tmp_path / 'corpus' / 'link').symlink_to(tmp_path / 'elsewhere')
  found = both(open_source(make_corpus()))
  assert sorted(found) == sorted([*corpus.values(), 'linked'])


def test_glob_and_single_file(make_corpus, corpus, tmp_path):
  pattern = str(tmp_path / 'corpus' / '**' / '*.txt')
  source = open_source(make_corpus(path=pattern))
  names = names_of(source, 'train') + names_of(source, 'validation')
  assert sorted(names) == sorted(name for name in corpus if name.endswith('.txt'))
  lines = write(tmp_path, 'one.jsonl', json_lines(map(str, range(50))))
  assert len(both(open_source(make_corpus(path=str(lines))))) == 50


def test_validation_path(make_corpus, corpus, tmp_path):
  write(tmp_path / 'held_out', 'v.txt', b'held out')
  config = make_corpus(validation_path=str(tmp_path / 'held_out'))
  source = open_source(config)
  assert texts_of(source, 'validation') == ['held out']
  assert sorted(texts_of(source, 'train')) == sorted(corpus.values())


@pytest.mark.parametrize('field', ['path', 'validation_path'])
@pytest.mark.parametrize('kind', ['missing', 'empty', 'other kinds'])
def test_no_files(make_corpus, corpus, tmp_path, field, kind):
  folder = tmp_path / 'x'
  if kind != 'missing':
    folder.mkdir()
  if kind == 'other kinds':
    write(folder, 'x.pdf', b'x')
  with pytest.raises(UserError) as error:
    open_source(make_corpus(**{field: str(folder)}))
  assert str(error.value).startswith(f'data.source.{field}={str(folder)!r} ')
  assert '.jsonl.zst' in str(error.value)
  assert '\n' not in str(error.value)


def test_too_few_documents_for_two_splits(make_corpus, tmp_path):
  write(tmp_path / 'corpus', 'x.txt', b'only one')
  with pytest.raises(UserError, match=r'1 readable documents.*data.source.validation_path'):
    open_source(make_corpus())
  assert not list((tmp_path / 'cache' / 'documents').glob('*.tmp-*'))


def test_large_corpora_have_several_shards(make_corpus, corpus, monkeypatch):
  monkeypatch.setattr(text_files, 'SHARD_BYTES', 1000)
  source = open_source(make_corpus())
  assert len(list(source.folder.glob('*train*'))) > 3
  assert sorted(both(source)) == sorted(corpus.values())


def test_unwritable_cache(make_corpus, corpus, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'^data\.cache_dir=[^\n]*cannot be written'):
    open_source(make_corpus(cache_dir=str(tmp_path / 'file' / 'cache')))


def notes_of(config):
  return list_source(config).notes


@pytest.mark.parametrize('how', ['file', 'glob', 'link'])
def test_validation_files_are_not_trained_on(make_corpus, corpus, tmp_path, how):
  held_out = {'04.md', '10.md'}
  where = {
    'file': str(tmp_path / 'corpus' / '04.md'),
    'glob': str(tmp_path / 'corpus' / '[01][04].md'),
    'link': str(tmp_path / 'link'),
  }[how]
  if how == 'file':
    held_out = {'04.md'}
  elif how == 'glob':
    held_out |= {'00.md', '14.md'}
  else:
    (tmp_path / 'link').mkdir()
    for name in held_out:
      (tmp_path / 'link' / name).symlink_to(tmp_path / 'corpus' / name)
  config = make_corpus(validation_path=where)
  source = open_source(config)
  assert set(names_of(source, 'validation')) == held_out
  assert set(names_of(source, 'train')) == set(corpus) - held_out
  (note,) = notes_of(config)
  assert note.startswith('data.source.path: left out of training, as data.source.')
  assert '04.md' in note


def test_nothing_left_to_train_on(make_corpus, corpus, tmp_path):
  everything = str(tmp_path / 'corpus')
  with pytest.raises(
    UserError, match='^data.source.path=.*nothing remains of it; data.source.path: left'
  ):
    open_source(make_corpus(validation_path=everything))


def test_what_runs_wrote_is_left_out(make_corpus, corpus, tmp_path):
  run = tmp_path / 'corpus' / 'run'
  write(run, 'metrics.jsonl', b'{"text": "seven"}')
  write(run, 'plots/x.txt', b'eight')
  write(run, 'notes.txt', b'nine')
  # Without the marks of a workdir these are files like others.
  assert not notes_of(make_corpus())
  (run / 'checkpoints').mkdir()
  write(run, 'config.json', b'{}')
  config = make_corpus()
  assert sorted(both(open_source(config))) == sorted([*corpus.values(), 'nine'])
  (note,) = notes_of(config)
  assert note.endswith('written by a run: 2 files (run/metrics.jsonl, run/plots/x.txt)')
  glob = make_corpus(path=str(tmp_path / 'corpus' / '**' / '*.*'))
  assert 'run/metrics.jsonl' not in list_source(glob).hashes['data.source.path']
  # A corpus inside of a workdir stays one.
  inside = make_corpus(path=str(write(run, 'data/text/x.txt', b'x').parent))
  assert not notes_of(inside)


def test_a_file_that_changes_while_it_is_read(make_corpus, corpus, tmp_path, monkeypatch):
  real = text_files.read_documents

  def read(name, path, of_line):
    yield from real(name, path, of_line)
    if name == '10.md':
      write(tmp_path / 'corpus', '04.md', b'changed after it was read')

  monkeypatch.setattr(text_files, 'read_documents', read)
  with pytest.raises(UserError, match=r'1 file \(04.md\) changed while the data were'):
    open_source(make_corpus())
  assert not [x for x in (tmp_path / 'cache' / 'documents').iterdir() if x.is_dir()]


def test_equal_size_and_time_is_no_equal_file(make_corpus, corpus, tmp_path):
  path = tmp_path / 'corpus' / '04.md'
  os.utime(path, ns=(10**18, 10**18))
  first = open_source(make_corpus())
  path.write_text(path.read_text(encoding='utf-8').replace('quick', 'thick'), 'utf-8')
  os.utime(path, ns=(10**18, 10**18))
  second = open_source(make_corpus())
  assert second.fingerprint != first.fingerprint
  assert 'thick' in ''.join(both(second))
