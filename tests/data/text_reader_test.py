"""What of a corpus is not read, and that it is counted."""

import gzip
import json
import os

import pytest
import zstandard

from elas_jax.common.errors import UserError
from elas_jax.data import text_reader
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.sources import open_source
from elas_jax.data.text_reader import count_other_files, list_files, read_documents


def json_lines(count, shard=0):
  return ''.join(f'{json.dumps({"text": f"text {shard} {i}"})}\n' for i in range(count))


def pack(content, kind):
  if kind == 'jsonl.gz':
    return gzip.compress(content.encode())
  if kind == 'jsonl.zst':
    return zstandard.compress(content.encode())
  return content.encode()


@pytest.mark.parametrize('kind', ['jsonl', 'jsonl.gz', 'jsonl.zst'])
def test_half_of_the_shards_cut_off(make_corpus, tmp_path, kind):
  """Nearly every record that is left is good, and a quarter of the text has gone."""
  folder = tmp_path / 'corpus'
  folder.mkdir()
  for i in range(6):
    packed = pack(json_lines(1000, i), kind)
    kept = len(packed) if i < 3 else len(packed) // 2
    while packed[kept - 1 : kept] == b'\n' and i >= 3:
      kept -= 1
    (folder / f'{i}.{kind}').write_bytes(packed[:kept])
  with pytest.raises(UserError) as error:
    open_source(make_corpus(max_bad_share=0.01))
  message = str(error.value)
  assert message.startswith('data.max_bad_share=0.01: 3 files ')
  places = [message.index(f'{folder}/{i}.{kind}:') for i in (3, 4, 5)]
  assert places == sorted(places)
  assert '\n' not in message
  with pytest.raises(UserError):
    open_source(make_corpus(max_bad_share=0.9999))
  report = open_source(make_corpus(max_bad_share=1.0)).report
  assert (report.broken_files, report.bad) == (3, 3)
  assert '3 files break off' in report.lines()[0]


@pytest.mark.parametrize('kind', ['jsonl.gz', 'jsonl.zst'])
def test_an_empty_archive_is_refused(make_corpus, corpus, tmp_path, kind):
  (tmp_path / 'corpus' / f'x.{kind}').write_bytes(b'')
  with pytest.raises(UserError, match=rf'1 files .* x?.*x\.{kind}:1: .*empty'):
    open_source(make_corpus(max_bad_share=0.5))


def test_lines_that_cannot_be_opened_are_not_one_record(make_corpus, tmp_path):
  folder = tmp_path / 'corpus'
  folder.mkdir()
  (folder / 'good.jsonl').write_text(json_lines(1000))
  (folder / 'lost.jsonl').symlink_to(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='1 files .*lost.jsonl:1: .*No such file'):
    open_source(make_corpus(max_bad_share=0.5))
  (folder / 'lost.jsonl').unlink()
  os.mkfifo(folder / 'pipe.jsonl')
  with pytest.raises(UserError, match='1 files .*pipe.jsonl: not a regular file'):
    open_source(make_corpus(max_bad_share=0.5))


def test_a_last_line_without_newline_may_be_whole_or_cut(tmp_path):
  path = tmp_path / 'x.jsonl'
  whole = json_lines(3)
  path.write_text(whole.rstrip())
  assert [x.breaks_off for x in read_documents('x', path)] == [False] * 3
  path.write_text(whole[:-4])
  assert [x.breaks_off for x in read_documents('x', path)] == [False, False, True]
  path.write_text(whole + '{"other": 1}')  # nothing is missing: it is another record
  assert [x.breaks_off for x in read_documents('x', path)] == [False] * 4


def test_a_large_bad_file_weighs_more_than_its_one_record(make_corpus, tmp_path):
  folder = tmp_path / 'corpus'
  folder.mkdir()
  (folder / 'good.jsonl').write_text(json_lines(1000))
  (folder / 'latin.txt').write_bytes(b'\xe9' * 100_000)
  with pytest.raises(UserError, match=r'1 of 1001 records .*100000 of 1\d{5} bytes'):
    open_source(make_corpus(max_bad_share=0.5))


def test_share_is_of_records_or_bytes():
  report = BadRecords()
  assert report.share == 0
  for size in (10, 70, 0, 20):
    report.count(size)
  report.add('x', 20)
  assert report.share == 1 / 4
  report.add('y', 70)
  assert report.share == 90 / 100


def test_broken_files_are_told_before_single_lines():
  report = BadRecords()
  for i in range(30):
    report.count(1)
    report.add(f'line {i}', 1)
  for i in range(2):
    report.count(0)
    report.add(f'file {i}', 0, breaks_off=True)
  assert report.messages[:3] == ['file 0', 'file 1', 'line 0']
  assert len(report.messages) == 20
  assert report.lines()[-1] == '  ... and 12 more'


def test_long_lines_are_left_out(make_corpus, tmp_path, monkeypatch):
  monkeypatch.setattr(text_reader, 'MAX_LINE_BYTES', 100)
  content = json_lines(3) + json.dumps({'text': 'x' * 200}) + '\n' + json_lines(2)
  for kind in ('jsonl', 'jsonl.gz', 'jsonl.zst'):
    path = tmp_path / f'x.{kind}'
    path.write_bytes(pack(content, kind))
    found = list(read_documents('x', path))
    assert [x.text is None for x in found] == [False] * 3 + [True] + [False] * 2
    assert found[3].key == 'x:4'
    assert found[3].size == len(json.dumps({'text': 'x' * 200}))
    assert '100' in found[3].error


@pytest.mark.parametrize(
  'name', ['a.JSONL', 'a.ndjson', 'a.Json.GZ', 'a.ndjson.zst', 'a.TXT', 'a.Md']
)
def test_case_and_ndjson(tmp_path, name):
  kind = next((x for x in ('gz', 'zst') if name.lower().endswith(x)), '')
  is_plain = name in ('a.TXT', 'a.Md')
  content = 'text 0 0' if is_plain else json_lines(1)
  (tmp_path / name).write_bytes(pack(content, f'jsonl.{kind}'))
  ((found, path),) = list_files('data.path', str(tmp_path))
  assert found == name
  assert [x.text for x in read_documents(found, path)] == ['text 0 0']


def test_other_files_are_counted_by_kind(tmp_path):
  names = ['a.md', 'b.txt.gz', 'c.parquet', 'x/d.PARQUET', 'x/y.tar.bz2', 'no', 'e.1.json']
  for name in names:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('x')
  found = count_other_files('data.path', str(tmp_path))
  expected = {'.parquet': 2, '.txt.gz': 1, '.tar.bz2': 1, '': 1, '.json': 1}
  assert found == expected
  assert next(iter(found)) == '.parquet'
  # A glob names what is wanted.
  assert count_other_files('data.path', f'{tmp_path}/*.md') == {}
  assert count_other_files('data.path', f'{tmp_path}/*.[mp]*') == {'.parquet': 1}


@pytest.mark.parametrize('pattern', ['**/*.txt', '*/sub/*.txt', '*/*.txt'])
def test_a_glob_does_not_pass_over_a_locked_folder(tmp_path, monkeypatch, pattern):
  for folder in ('open/sub', 'locked/sub'):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / 'x.txt').write_text('x')
    (tmp_path / folder / '../x.txt').write_text('x')
  files = list_files('data.path', f'{tmp_path}/{pattern}')
  assert len(files) in (2, 4)
  # The superuser may read every folder, so that a lock is told instead of made.
  may = lambda path, mode: 'locked' not in str(path)
  monkeypatch.setattr(text_reader.os, 'access', may)
  with pytest.raises(UserError, match=r'^data\.path: folder .*locked.*cannot be listed'):
    list_files('data.path', f'{tmp_path}/{pattern}')


def test_files_without_a_record_are_counted(make_corpus, corpus, tmp_path):
  (tmp_path / 'corpus' / 'x.jsonl').write_text('')
  (tmp_path / 'corpus' / 'y.jsonl').write_text('\n \n')
  report = open_source(make_corpus()).report
  assert (report.empty_files, report.bad) == (2, 0)
  assert report.lines() == ['2 files hold no record']


def test_text_is_kept_as_it_is(tmp_path):
  """A mark of the byte order is none of the text; other bytes all are."""
  text = 'a\r\nb\0c\rd\x85e\u2028f\ufeff'
  path = tmp_path / 'x.txt'
  path.write_bytes(b'\xef\xbb\xbf' + text.encode())
  assert [x.text for x in read_documents('x', path)] == [text]
  path = tmp_path / 'x.jsonl'
  line = json.dumps({'text': text}, ensure_ascii=False).encode()
  path.write_bytes(b'\xef\xbb\xbf' + line + b'\r\n' + line + b'\r\n')
  assert [x.text for x in read_documents('x', path)] == [text, text]
