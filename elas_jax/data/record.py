"""What a checkpoint keeps of its data, and in what that of other data differs.

A record is JSON:
  source: text_files, python_source, digits, mnist1d, or the name of a function or set
  python: the version whose library it is (python_source)
  class_names: of labelled rows
  splits: by split, its fingerprint and some totals. The fingerprint is of the rows of
    tokens or numbers that are trained on: it alone says whether the data are the same.
  files: by field of the config, the hash of every file, to name those that changed; null
    where there are more than MAX_LISTED.
  parts: of a mixture, instead of files, the record of each source by its name.
"""

from collections.abc import Sequence
from typing import Any

from elas_jax.data.corpus import OWN_SOURCES

Record = dict[str, Any]

SPLITS = ('train', 'validation')
MAX_LISTED = 4096  # every checkpoint holds the list
MAX_NAMED = 3
# Fields that had another name when there were only flat ones. Caches keep those names, so
# that what was prepared is found.
FIRST_NAMES = {
  'data.source.path': 'data.path',
  'data.source.data_dir': 'data.path',
  'data.source.validation_path': 'data.validation_path',
}


def first_name(field: str) -> str:
  """The oldest name of a field."""
  return FIRST_NAMES.get(field, field)


def listed(hashes: dict[str, dict[str, str]]) -> dict[str, dict[str, str]] | None:
  """`files` of a record."""
  few = sum(map(len, hashes.values())) <= MAX_LISTED
  return {field: dict(of_field) for field, of_field in hashes.items()} if few else None


def lifted(record: Record) -> Record:
  """The record, also of an older version, with the names that fields have now."""
  if not record.get('files'):
    return record
  is_set = record['source'] not in OWN_SOURCES
  path = 'data.source.data_dir' if is_set else 'data.source.path'
  names = {'data.path': path, 'data.validation_path': 'data.source.validation_path'}
  files = {names.get(field, field): of for field, of in record['files'].items()}
  return record | {'files': files}


def difference(old: Record, new: Record, splits: Sequence[str] = SPLITS) -> str:
  """In what `new` differs from `old`, '' if these splits are the same."""
  old, new = lifted(old), lifted(new)
  of = lambda record, split: record['splits'].get(split, {}).get('fingerprint')
  other = [split for split in splits if of(old, split) != of(new, split)]
  if not other and old.get('class_names') == new.get('class_names'):
    return ''
  if old.get('parts') and new.get('parts'):
    return '; '.join(_parts(old['parts'], new['parts'], splits))
  found = [
    f'{name} {new.get(name)!r} instead of {old.get(name)!r}'
    for name in ('source', 'python', 'class_names')
    if old.get(name) != new.get(name)
  ]
  if old.get('files') is None or new.get('files') is None:
    found.append('too many files to name those that changed')
  else:
    of_files = [
      text
      for field in sorted(old['files'].keys() | new['files'].keys())
      for text in _files(field, old['files'].get(field, {}), new['files'].get(field, {}))
    ]
    if not found and not of_files:
      of_files = ['other rows, by another version of this code or its libraries']
    found += of_files
  return '; '.join([*found, *(_totals(s, old['splits'].get(s, {}), new) for s in other)])


def _parts(
  old: dict[str, Record], new: dict[str, Record], splits: Sequence[str]
) -> list[str]:
  """In what the sources of a mixture differ, by their names."""
  if list(old) != list(new):
    return [f'sources {", ".join(new)} instead of {", ".join(old)}']
  found = {name: difference(old[name], new[name], splits) for name in new}
  return [f'{name}: {text}' for name, text in found.items() if text]


def _files(field: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
  changed = [name for name in old.keys() & new.keys() if old[name] != new[name]]
  kinds = (
    ('new', new.keys() - old.keys()),
    ('missing', old.keys() - new.keys()),
    ('changed', changed),
  )
  return [f'{field}: {named(sorted(names))} {kind}' for kind, names in kinds if names]


def named(names: Sequence[str]) -> str:
  shown = ', '.join(names[:MAX_NAMED])
  if len(names) == 1:
    return f'1 file ({shown})'
  return f'{len(names)} files ({shown}{", ..." if len(names) > MAX_NAMED else ""})'


def _totals(split: str, old: dict[str, Any], new: Record) -> str:
  """'train: 41 documents instead of 40', or that its totals are the same."""
  ours = {k: v for k, v in new['splits'][split].items() if k != 'fingerprint'}
  parts = [f'{v} {k} instead of {old.get(k)}' for k, v in ours.items() if old.get(k) != v]
  return f'{split}: {", ".join(parts) or "other contents of the same size"}'
