"""What files hold: a hash of each, computed again only where a file may have changed."""

import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import stat
import tempfile
import time

from elas_jax.common.places import place
from elas_jax.data.hashing import fingerprint
from elas_jax.data.progress import Progress

Files = list[tuple[str, pathlib.Path]]  # (name inside of the corpus, path)

DIGITS = 20  # of a SHA-256 in hex
UNREADABLE = 'unreadable'  # counted as a bad record where the documents are read
FILES_AT_ONCE = 1024
SETTLED_SECONDS = 2.0


def hash_files(files: Files, cache_dir: str, where: str) -> dict[str, str]:
  """The hash of the bytes of each file, by name; `UNREADABLE` where there are none.

  A file is read only if its size, inode or one of its times is not what the cache has of
  it, in a file of its own for each `where`. The time of change (ctime) is among them: a
  program that puts size and time of modification back cannot put that back. A file that
  changed a moment ago is read at the next call again, since the next change might fall
  into the same tick of the clock.
  """
  memo = place('data.cache_dir', cache_dir) / f'hashes/{fingerprint(where)}.json'
  known = _read(memo)
  states = {name: _state(path) for name, path in files}
  fresh = lambda name: states[name] and known.get(name, [])[:-1] == states[name]
  hashes = {name: known[name][-1] for name, _ in files if fresh(name)}
  todo = [(name, path) for name, path in files if name not in hashes]
  hashes |= _hash_all(todo, states)
  settled = (time.time() - SETTLED_SECONDS) * 1e9
  kept = {
    name: [*states[name], hashes[name]]
    for name, _ in files
    if states[name] and hashes[name] != UNREADABLE and states[name][2] < settled
  }
  if kept != known:
    _write(memo, kept)
  return {name: hashes[name] for name, _ in files}


def _state(path: pathlib.Path) -> list[int]:
  """Bytes, times of modification and change, inode; empty if it cannot be read."""
  try:
    found = path.stat()
  except OSError:
    return []
  if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
    return []
  return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _hash_all(files: Files, states: dict[str, list[int]]) -> dict[str, str]:
  total = sum(states[name][0] for name, _ in files if states[name])
  hashes = {}
  with (
    Progress('hashing', total) as progress,
    concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
  ):
    for some in itertools.batched(files, FILES_AT_ONCE):
      readable = [(name, path) for name, path in some if states[name]]
      hashes |= dict.fromkeys((name for name, _ in some), UNREADABLE)
      for (name, _), found in zip(readable, pool.map(_hash, (p for _, p in readable))):
        hashes[name] = found
        progress.advance(states[name][0])
  return hashes


def _hash(path: pathlib.Path) -> str:
  try:
    with path.open('rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()[:DIGITS]
  except OSError:
    return UNREADABLE


def _read(memo: pathlib.Path) -> dict[str, list]:
  """What was kept; nothing if that is missing or damaged: it only saves time."""
  try:
    known = json.loads(memo.read_text())
  except (OSError, ValueError):
    return {}
  if not isinstance(known, dict):
    return {}
  return {name: entry for name, entry in known.items() if isinstance(entry, list)}


def _write(memo: pathlib.Path, kept: dict[str, list]) -> None:
  try:
    memo.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'{memo.name}.tmp-', dir=memo.parent) as at:
      written = pathlib.Path(at, 'memo')
      written.write_text(json.dumps(kept))
      written.replace(memo)
  except OSError:
    pass  # the files are read again next time; a cache must also serve read-only
