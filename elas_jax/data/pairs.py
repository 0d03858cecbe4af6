"""Pairs of answers in memory: lines of JSON, a prompt with a better and a worse answer.

  {"prompt": "2 + 3 = ?", "chosen": "5", "rejected": "6"}

A prompt may be a conversation, [{"role": "user", "content": "2 + 3 = ?"}, ...], whose last
message is no answer; so a pair of refined answers has an earlier answer in it. Other keys
of a line are passed over. Prompt and answer become tokens by data/chat.py; what counts are
the tokens of the last answer and the one that stops it.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import shown
from elas_jax.data import chat, duplicates
from elas_jax.data.bad_records import BadRecords
from elas_jax.data.file_hashes import Files, hash_files
from elas_jax.data.hashing import goes_to_validation
from elas_jax.data.record import SPLITS, Record, listed
from elas_jax.data.rows import rows_fingerprint
from elas_jax.data.text_reader import JSON_LINES, list_files, read_documents
from elas_jax.data.tokenizers import Tokenizer

PATH, VALIDATION_PATH = 'data.source.path', 'data.source.validation_path'
ANSWERS = ('chosen', 'rejected')


@dataclasses.dataclass(frozen=True)
class PairSet:
  """One split, of n pairs. Of its 2n sequences the chosen ones have even numbers.

  Attributes:
    ids: int32, the tokens of all sequences, one behind the other.
    answer: bool, which of them are of the answer.
    ends: int64[2n], where in them each sequence ends.
    hashes: uint64[n], of each pair.
    length: L.
    fill: the token behind a sequence.
    lost_share: of the text, that the tokenizer does not know.
  """

  ids: np.ndarray
  answer: np.ndarray
  ends: np.ndarray
  hashes: np.ndarray
  length: int
  fill: int
  lost_share: float

  unit = 'pairs'

  def __len__(self) -> int:
    return len(self.ends) // 2

  @property
  def max_token_id(self) -> int:
    return int(self.ids.max())

  @functools.cached_property
  def fingerprint(self) -> str:
    return rows_fingerprint(self.ids, self.answer, self.ends)

  def read(self, numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """Pairs by number: tokens int32 (b, 2, L+1), answers int32 (b, 2, L), valid of ones."""
    tokens_Bx2xM = np.full((len(numbers), 2, self.length + 1), self.fill, np.int32)
    answers_Bx2xM = np.zeros_like(tokens_Bx2xM)
    for row, number in enumerate(numbers):
      for side in range(2):
        sequence = 2 * int(number) + side
        start = int(self.ends[sequence - 1]) if sequence else 0
        taken = slice(start, int(self.ends[sequence]))
        n = taken.stop - taken.start
        tokens_Bx2xM[row, side, :n] = self.ids[taken]
        answers_Bx2xM[row, side, :n] = self.answer[taken]
    return {
      'tokens': tokens_Bx2xM,
      'answers': answers_Bx2xM[:, :, 1:],  # of the targets
      'valid': np.ones(len(numbers), np.int32),
    }


@dataclasses.dataclass(frozen=True)
class PreparedPairs:
  """What training and evaluation read."""

  train: PairSet
  validation: PairSet
  tokenizer: Tokenizer
  hashes: dict[str, dict[str, str]]  # of the files that they come from

  def describe(self) -> dict:
    """What a model needs of its data wherever it is used, as JSON: the tokenizer."""
    return json.loads(self.tokenizer.to_json())

  def record(self) -> Record:
    """By what a continued run knows its data again."""
    both = zip(SPLITS, (self.train, self.validation))
    return {
      'source': 'pairs',
      'splits': {x: {'fingerprint': s.fingerprint, 'pairs': len(s)} for x, s in both},
      'files': listed(self.hashes),
    }


@dataclasses.dataclass(frozen=True)
class Pair:
  """A prompt, which is a conversation, and two answers to it."""

  prompt: list[dict[str, str]]
  chosen: str
  rejected: str

  @property
  def asked(self) -> str:
    """The conversation up to its first answer, the same for refined and direct pairs."""
    roles = [message['role'] for message in self.prompt]
    first = roles.index(chat.ANSWERS) if chat.ANSWERS in roles else len(roles)
    said = [(message['role'], message['content']) for message in self.prompt[:first]]
    return json.dumps(said)


def prepare(source: Any, data: Any, tokenizer: Tokenizer | None) -> PreparedPairs:
  """The pairs of the files that `source` names, as the config's section `data` says.

  Args:
    source: systems/pair_sources/pairs.py.
    tokenizer: in place of data.tokenizer.

  Raises:
    UserError: no file, more bad lines than data.max_bad_share, or no pair for a split.
  """
  tokenizer = tokenizer or data.tokenizer.load()
  files, report = _files(source), BadRecords()
  sets = {split: _Building(data, tokenizer) for split in SPLITS}
  for field, of_field in files.items():
    for where, pair in _pairs(of_field, report):
      held_out = field == VALIDATION_PATH
      if not source.validation_path:
        held_out = goes_to_validation(pair.asked, source.validation_share)
      if why := sets[SPLITS[held_out]].add(pair):
        report.add(f'{where}: {why}', 0)
  report.check(source.shown(), data.max_bad_share)
  train, validation = (_built(sets[split], split, source) for split in SPLITS)
  shared = int(np.isin(validation.hashes, train.hashes).sum())
  shared_pairs = duplicates.note(shared, 'pairs', len(validation))
  for line in (*tokenizer.notes, *report.lines(), *shared_pairs):
    print(line, file=sys.stderr)
  of_cache = lambda field: f'pairs {field} {getattr(source, field.rpartition(".")[2])}'
  hashes = {x: hash_files(of, data.cache_dir, of_cache(x)) for x, of in files.items()}
  return PreparedPairs(train, validation, tokenizer, hashes)


def _files(source: Any) -> dict[str, Files]:
  """By the field that names them; those of validation_path are of no other."""
  found = {PATH: list_files(PATH, source.path, JSON_LINES)}
  if source.validation_path:
    held_out = list_files(VALIDATION_PATH, source.validation_path, JSON_LINES)
    there = {path.resolve() for _, path in held_out}
    found[PATH] = [file for file in found[PATH] if file[1].resolve() not in there]
    found[VALIDATION_PATH] = held_out
  return found


def _pairs(files: Files, report: BadRecords) -> Iterator[tuple[str, Pair]]:
  """(file:line, pair) of each line that is one; the others are reported."""
  for name, path in files:
    before = report.total
    for line in read_documents(name, path, text_of):
      report.count(line.size)
      if line.text is None:
        report.add(f'{line.key}: {line.error}', line.size, line.breaks_off)
      else:
        yield line.key, Pair(**json.loads(line.text))
    report.empty_files += report.total == before


def text_of(record: object) -> tuple[str | None, str]:
  """(the pair of a line of JSON, as text; or None and why it is none)."""
  if not isinstance(record, dict):
    return None, f'must be an object of JSON, is {shown(record)}'
  prompt = record.get('prompt')
  if isinstance(prompt, str):
    prompt = [{'role': 'user', 'content': prompt}]
  if why := chat.fault(prompt):
    return None, f'prompt: {why}'
  if prompt[-1]['role'] == chat.ANSWERS:
    return None, 'prompt: ends with an answer'
  for name in ANSWERS:
    if why := chat.fault([{'role': chat.ANSWERS, 'content': record.get(name)}]):
      return None, name + why.removeprefix('messages[0].content')
  if record['chosen'] == record['rejected']:
    return None, f'chosen and rejected are equal, {shown(record["chosen"])}'
  kept = [{'role': x['role'], 'content': x['content']} for x in prompt]
  return json.dumps({'prompt': kept, **{name: record[name] for name in ANSWERS}}), ''


class _Building:
  """A split that pairs are added to."""

  def __init__(self, data: Any, tokenizer: Tokenizer):
    self._length, self._tokenizer = data.sequence_length, tokenizer
    self._ids, self._answer, self._hashes = [], [], []
    self._bytes = self._lost = 0

  def add(self, pair: Pair) -> str:
    """Why it cannot be, or ''."""
    prompt = chat.prompt(pair.prompt, self._tokenizer)
    if len(prompt) > self._length:
      return self._too_long('the prompt', len(prompt), self._length)
    found = []
    for name in ANSWERS:
      said = {'role': chat.ANSWERS, 'content': getattr(pair, name)}
      found.append(chat.encoded([*pair.prompt, said], self._tokenizer))
      if len(found[-1].ids) > self._length + 1:
        what = f'the prompt with the {name} answer'
        return self._too_long(what, len(found[-1].ids), self._length + 1)
    if np.array_equal(found[0].ids, found[1].ids):
      return 'chosen and rejected are the same tokens'
    for one in found:
      last = np.arange(len(one.ids)) >= len(prompt)  # earlier answers are of the prompt
      self._ids.append(one.ids)
      self._answer.append(one.answer & last)
      self._bytes += int(one.lengths.sum())
      self._lost += one.lost
    both = b'|'.join(one.ids.tobytes() for one in found)
    self._hashes += duplicates.document_hashes([both]).tolist()
    return ''

  def _too_long(self, what: str, tokens: int, most: int) -> str:
    length = f'data.sequence_length={self._length}'
    return f'{what} has {tokens} tokens; {length} takes at most {most}'

  def built(self) -> PairSet | None:
    """The pairs that were added; None if there are none."""
    if not self._ids:
      return None
    return PairSet(
      ids=np.concatenate(self._ids),
      answer=np.concatenate(self._answer),
      ends=np.cumsum([len(ids) for ids in self._ids]),
      hashes=np.array(self._hashes, np.uint64),
      length=self._length,
      fill=self._tokenizer.eos_id,
      lost_share=self._lost / max(self._bytes, 1),
    )


def _built(building: _Building, split: str, source: Any) -> PairSet:
  found = building.built()
  if found is None:
    raise UserError(
      f'{source.shown()}: no pair for {split}; give more pairs, a {VALIDATION_PATH}, or '
      f'another data.source.validation_share than {source.validation_share:g}'
    )
  return found
