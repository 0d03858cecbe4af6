"""In what two descriptions of data differ, in words."""

import pytest

from elas_jax.data import record
from elas_jax.data.record import difference, listed


def record_of(**changes):
  base = {
    'source': 'text_files',
    'splits': {
      'train': {'fingerprint': 'a', 'documents': 40},
      'validation': {'fingerprint': 'b', 'documents': 4},
    },
    'files': {'data.source.path': {'x.txt': '1', 'y.txt': '2'}},
  }
  return base | changes


def splits(**changes):
  of = lambda name, count: {'fingerprint': changes.get(name, name), 'documents': count}
  return {
    'train': of('train', changes.get('count', 40)),
    'validation': of('validation', 4),
  }


OLD = record_of(splits=splits())


def test_only_the_rows_decide():
  assert difference(OLD, OLD) == ''
  # Renamed, or of another place, but read as the same rows.
  assert difference(OLD, OLD | {'files': {}, 'source': 'other'}) == ''
  # More totals of a later version.
  more = splits()
  more['train']['tokens'] = 7
  assert difference(OLD, OLD | {'splits': more}) == ''


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    (
      {
        'splits': splits(train='other', count=41),
        'files': {'data.source.path': {'x.txt': '1', 'y.txt': '3', 'z.txt': '4'}},
      },
      'data.source.path: 1 file (z.txt) new; data.source.path: 1 file (y.txt) changed; '
      'train: 41 documents instead of 40',
    ),
    (
      {'splits': splits(validation='other'), 'files': {'data.source.path': {}}},
      'data.source.path: 2 files (x.txt, y.txt) missing; '
      'validation: other contents of the same size',
    ),
    (
      {'splits': splits(train='other')},
      'other rows, by another version of this code or its libraries; '
      'train: other contents of the same size',
    ),
    (
      {'splits': splits(train='other'), 'files': None},
      'too many files to name those that changed; train: other contents of the same size',
    ),
    (
      {'splits': splits(train='other'), 'source': 'c4/en'},
      "source 'c4/en' instead of 'text_files'; train: other contents of the same size",
    ),
    (
      {'class_names': ['cat']},
      "class_names ['cat'] instead of None",
    ),
  ],
)
def test_differences_are_named(changes, expected):
  assert difference(OLD, OLD | changes) == expected


def test_the_splits_that_count_are_given():
  new = OLD | {'splits': splits(train='other')}
  assert difference(OLD, new, ('validation',)) == ''
  assert difference(OLD, new, ('train',))


def test_long_lists_are_not_kept(monkeypatch):
  hashes = {
    'data.source.path': {str(i): '' for i in range(5)},
    'data.source.validation_path': {'x': ''},
  }
  assert listed(hashes) == hashes
  monkeypatch.setattr(record, 'MAX_LISTED', 5)
  assert listed(hashes) is None


@pytest.mark.parametrize(
  ('source', 'before', 'now'),
  [
    ('text_files', 'data.path', 'data.source.path'),
    ('text_files', 'data.validation_path', 'data.source.validation_path'),
    ('python_source', 'data.source', 'data.source'),
    ('c4/en', 'data.path', 'data.source.data_dir'),
  ],
)
def test_records_from_before_fields_had_sections(source, before, now):
  """Written by the code of then: checkpoints keep them."""
  old = OLD | {'source': source, 'files': {before: {'x.txt': '1', 'y.txt': '2'}}}
  new = OLD | {'source': source, 'files': {now: {'x.txt': '1', 'y.txt': '2'}}}
  assert difference(old, new) == ''
  assert record.lifted(old) == new
  assert record.lifted(new) == new
  changed = new | {'splits': splits(train='other'), 'files': {now: {'x.txt': '1'}}}
  assert difference(old, changed) == (
    f'{now}: 1 file (y.txt) missing; train: other contents of the same size'
  )


def test_records_without_a_list_are_lifted_too():
  for files in (None, {}):
    assert difference(OLD | {'files': files}, OLD) == ''
