"""Pairs: tokens and answers by hand, the split, and lines that are none."""

import json
import types

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.data.record import SPLITS
from elas_jax.systems.pair_sources.pairs import Pairs
from elas_jax.systems.tokenizers import TOKENIZERS

END = 256


def opened(folder, length=48, share=0.01, **fields):
  source = Pairs(str(folder), **{'validation_share': 0.3} | fields)
  source.check('data.source', None)
  data = types.SimpleNamespace(
    sequence_length=length,
    max_bad_share=share,
    tokenizer=TOKENIZERS['bytes'](),
    cache_dir=str(folder / '.cache'),
  )
  return source.pairs(data, None)


def write(path, lines):
  path.parent.mkdir(exist_ok=True)
  path.write_text(''.join(x if type(x) is str else json.dumps(x) + '\n' for x in lines))


def sums(numbers):
  return [{'prompt': f'{n}+1', 'chosen': f'{n + 1}', 'rejected': f'{n}'} for n in numbers]


REFINED = {
  'prompt': [
    {'role': 'user', 'content': '2+2'},
    {'role': 'assistant', 'content': '5'},
    {'role': 'user', 'content': 'again'},
  ],
  'chosen': '4',
  'rejected': '66',
}


def ids_of(*texts):
  """Of text as bytes, and of None as the token that ends a document."""
  return [x for text in texts for x in (text.encode() if text else [END])]


def test_tokens_and_answers_by_hand(tmp_path):
  """The second answer alone counts where there is an earlier one, with its end."""
  write(tmp_path / 'refined.jsonl', [REFINED])
  write(tmp_path / 'held_out.jsonl', [{'prompt': '1', 'chosen': '2', 'rejected': '3'}])
  length = 56
  held_out = str(tmp_path / 'held_out.jsonl')
  data = opened(tmp_path, length, validation_path=held_out)
  (tokens,), (answers,) = (data.train.read([0])[x] for x in ('tokens', 'answers'))
  head = ids_of(None, 'user:\n2+2', None, 'assistant:\n5', None, 'user:\nagain', None)
  head += ids_of('assistant:\n')
  for side, answer in enumerate(('4', '66')):
    expected = head + ids_of(answer, None)
    padded = expected + [END] * (length + 1 - len(expected))
    assert tokens[side].tolist() == padded
    counted = [len(head) <= i < len(expected) for i in range(length + 1)]
    assert answers[side].tolist() == counted[1:]
  assert len(data.train) == len(data.validation) == 1
  assert data.train.read([0])['valid'].tolist() == [1]
  assert data.validation.max_token_id == END


def test_all_pairs_of_a_question_are_in_one_split(tmp_path):
  direct = sums(range(40))
  refined = [
    {
      'prompt': [
        {'role': 'user', 'content': line['prompt']},
        {'role': 'assistant', 'content': 'no'},
        {'role': 'user', 'content': 'again'},
      ],
      'chosen': line['chosen'],
      'rejected': line['rejected'],
    }
    for line in direct
  ]
  write(tmp_path / 'pairs.jsonl', direct + refined)
  data = opened(tmp_path, 64)
  sizes = [len(getattr(data, split)) for split in SPLITS]
  assert sum(sizes) == 80 and min(sizes) > 8 and not sizes[0] % 2
  questions = []
  for split in SPLITS:
    rows = getattr(data, split)
    tokens = rows.read(range(len(rows)))['tokens'][:, 0]
    questions.append({bytes(x for x in row[7:12] if x < 256) for row in tokens.tolist()})
  assert len(questions[0] | questions[1]) == 40 and not questions[0] & questions[1]


def test_other_pairs_have_another_fingerprint(tmp_path):
  write(tmp_path / 'a/pairs.jsonl', sums(range(40)))
  write(tmp_path / 'b/pairs.jsonl', sums(range(39)) + [sums([39])[0] | {'rejected': '0'}])
  a, again, b = (opened(tmp_path / x).record() for x in 'aab')
  assert a == again and a['files'].keys() == {'data.source.path'}
  different = [x for x in SPLITS if a['splits'][x] != b['splits'][x]]
  assert len(different) == 1


def test_what_is_in_both_splits_is_said(tmp_path, capsys):
  write(tmp_path / 'a.jsonl', sums(range(4)))
  write(tmp_path / 'b.jsonl', sums(range(3, 5)))
  opened(tmp_path, validation_path=str(tmp_path / 'b.jsonl'))
  said = capsys.readouterr().err
  assert (
    said == '1 of 2 pairs of the validation split are equal to some of the train split\n'
  )


GOOD = {'prompt': '1+1', 'chosen': '2', 'rejected': '3'}


@pytest.mark.parametrize(
  'line, why',
  [
    ('{"prompt"\n', 'not JSON: '),
    ('[1]\n', 'must be an object of JSON, is [1]'),
    ({'chosen': '2', 'rejected': '3'}, 'prompt: messages: must be a list of messages'),
    (GOOD | {'prompt': [{'role': 'me', 'content': 'x'}]}, "prompt: messages[0].role='me'"),
    (
      GOOD | {'prompt': [{'role': 'assistant', 'content': 'x'}]},
      'prompt: ends with an answer',
    ),
    (GOOD | {'chosen': ' '}, "chosen=' ': must be text, and not empty"),
    ({'prompt': '1+1', 'chosen': '2'}, 'rejected=None: must be text'),
    (GOOD | {'rejected': '2'}, "chosen and rejected are equal, '2'"),
    (
      GOOD | {'prompt': 'x' * 60},
      'the prompt has 79 tokens; data.sequence_length=48 takes at most 48',
    ),
    (
      GOOD | {'rejected': 'x' * 40},
      'the prompt with the rejected answer has 63 tokens; data.sequence_length=48 takes '
      'at most 49',
    ),
  ],
)
def test_lines_that_are_no_pair(tmp_path, capsys, line, why):
  """Are refused by name, or, where so many are accepted, left out and said."""
  write(tmp_path / 'pairs.jsonl', [line, *sums(range(20))])
  with pytest.raises(UserError) as error:
    opened(tmp_path)
  assert str(error.value).startswith('data.max_bad_share=0.01: 1 of 21 records of ')
  assert f'First: pairs.jsonl:1: {why}' in str(error.value)
  assert '\n' not in str(error.value)
  capsys.readouterr()
  data = opened(tmp_path, share=0.5)
  assert len(data.train) + len(data.validation) == 20
  assert '1 of 21 records were unreadable and are left out' in capsys.readouterr().err


@pytest.mark.parametrize(
  'lines, said',
  [
    ([], 'no pair for train; give more pairs, a data.source.validation_path, or another '),
    (sums([1]), 'no pair for validation; give more pairs, '),
  ],
  ids=['none', 'one'],
)
def test_a_split_without_pairs_is_refused(tmp_path, lines, said):
  write(tmp_path / 'pairs.jsonl', lines)
  with pytest.raises(UserError) as error:
    opened(tmp_path, validation_share=0.001)
  start = f"data.source='pairs' data.source.path={str(tmp_path)!r}: "
  assert str(error.value).startswith(start + said)


def test_a_place_without_pairs_is_refused(tmp_path):
  (tmp_path / 'notes.txt').write_text('1+1')
  with pytest.raises(UserError, match=r'^data.source.path=.*; accepted are .jsonl '):
    opened(tmp_path)
  with pytest.raises(UserError, match=r"^data.source.path='': pairs needs a folder"):
    Pairs().check('data.source', None)


def test_rows_are_whole_whatever_is_asked(tmp_path):
  write(tmp_path / 'pairs.jsonl', sums(range(30)))
  rows = opened(tmp_path).train
  whole = rows.read(range(len(rows)))
  some = rows.read([4, 0])
  for name, array in some.items():
    np.testing.assert_array_equal(array, whole[name][[4, 0]])
