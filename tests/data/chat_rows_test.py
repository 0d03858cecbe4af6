"""Rows of conversations against ones made by hand; how what is no conversation counts."""

import json

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import blocks, chat, chat_rows, prepare, train_tokenizer
from elas_jax.data.corpus import Corpus
from elas_jax.data.tokenizers import BytesTokenizer

EOS = 256


def talk(*contents):
  """Messages of a user and an assistant in turn."""
  roles = ('user', 'assistant')
  return [{'role': roles[i % 2], 'content': x} for i, x in enumerate(contents)]


def rows_of(talks, length, protocol='packed', counted='answers'):
  made = chat_rows.ChatRows(chat_rows.dtype_of(length, 257), EOS, protocol, counted)
  full = [made.add([chat.encoded(one, BytesTokenizer())]) for one in talks]
  return np.concatenate([*full, made.finish()]), made


ONE = 22  # tokens of $user:\nq$assistant:\na$


@pytest.mark.parametrize('counted', chat_rows.COUNTED)
def test_two_conversations_share_a_row(counted):
  (row,), _ = rows_of([talk('q', 'a'), talk('r', 'b')], 50, counted=counted)
  text = b'$user:\nq$assistant:\na$$user:\nr$assistant:\nb$$$$$$$$'
  assert bytes(36 if x == EOS else x for x in row['tokens']) == text
  # A target stands one place before its token.
  answers = [19, 20, 41, 42]
  targets = answers if counted != 'all' else [*range(21), *range(22, 43)]
  np.testing.assert_array_equal(np.flatnonzero(row['answers']), targets)
  np.testing.assert_array_equal(row['segments'], [0] * 22 + [1] * 22 + [2] * 6)
  assert row['valid'] == len(targets)
  # Of text: the ends of turns are of none, and the first tokens no targets.
  assert row['bytes'] == (2 if counted != 'all' else 2 * (ONE - 3))


def test_the_last_answer_alone_counts_where_it_shall():
  """And a conversation that would be cut before it is left out."""
  found, _ = rows_of([talk('q', 'a', 'r', 'bc')], 50, counted='last')
  assert np.flatnonzero(found['answers'][0]).tolist() == [40, 41, 42]
  found, made = rows_of([talk('q', 'a', 'r', 'bc')], 40, counted='last')
  assert (len(found), made.left_out, made.shortened) == (0, 1, 0)


def test_rows_are_not_cut():
  found, made = rows_of([talk('q', 'a')] * 5, 2 * ONE)
  assert found['valid'].tolist() == [4, 4, 2]
  found, _ = rows_of([talk('q', 'a')] * 3, 2 * ONE, protocol='document')
  assert found['valid'].tolist() == [2, 2, 2]
  found, _ = rows_of([talk('q', 'a')] * 4, 2 * ONE - 2)
  assert found['valid'].tolist() == [2] * 4
  assert (made.left_out, made.shortened) == (0, 0)


@pytest.mark.parametrize(
  ('length', 'ends', 'left_out', 'shortened'),
  [
    (2 * ONE - 2, [1, 1], 0, 0),  # the second turn has no $ before it
    (2 * ONE - 3, [1], 0, 1),
    (ONE - 1, [1], 0, 1),
    (ONE - 2, [], 1, 0),
  ],
)
def test_a_long_conversation_is_cut_behind_an_answer(length, ends, left_out, shortened):
  found, made = rows_of([talk('q', 'a', 'r', 'b')], length)
  assert (made.left_out, made.shortened) == (left_out, shortened)
  assert sum(found['valid'].tolist()) == 2 * len(ends)


def test_as_many_answers_stay_as_fit():
  found, made = rows_of([talk('q', 'a', 'r', 'b', 's', 'c')], 2 * ONE)
  assert found['valid'].tolist() == [4]
  assert (made.left_out, made.shortened) == (0, 1)


def test_a_question_without_answer_is_left_off():
  found, made = rows_of([talk('q', 'a', 'r')], 2 * ONE)
  assert (found['tokens'][0] != EOS).sum() == ONE - 3
  assert (made.left_out, made.shortened) == (0, 0)


def write(path, talks, more=()):
  lines = [json.dumps({'messages': one}) for one in talks]
  path.write_text('\n'.join([*lines, *more]) + '\n')


def corpus_of(folder, **fields):
  common = {
    'source': 'chat',
    'max_bad_share': 0.5,
    'tokenizer': '',
    'protocol': 'packed',
    'sequence_length': 64,
    'cache_dir': str(folder / 'cache'),
    'processes': 1,
    'path': str(folder / 'talks'),
    'validation_share': 0.3,
    'counted': 'answers',
  }
  return Corpus(**common | fields)


def test_splits_and_batches(tmp_path):
  (tmp_path / 'talks').mkdir()
  (tmp_path / 'talks/notes.txt').write_text('not a conversation')
  write(tmp_path / 'talks/a.jsonl', [talk(f'q{i}', f'a{i}') for i in range(10, 50)])
  found = blocks.prepare(corpus_of(tmp_path))
  assert found.train.documents + found.validation.documents == 40
  # Three bytes and the end of the turn for each answer.
  assert found.train.tokens == 4 * found.train.documents
  assert found.train.bytes == 3 * found.train.documents
  assert found.count_other_files() == '1 .txt'
  batch = found.with_segments().train.read([0, 1])
  assert {name: x.shape for name, x in batch.items()} == {
    'tokens': (2, 65),
    'valid': (2,),
    'bytes': (2,),
    'answers': (2, 64),
    'segments': (2, 64),
  }
  np.testing.assert_array_equal(batch['answers'].sum(1), batch['valid'])
  assert 'segments' not in found.train.read([0])
  again = blocks.prepare(corpus_of(tmp_path, counted='all'))
  assert again.folder != found.folder
  assert again.train.tokens > found.train.tokens


def test_what_is_left_out_is_said(tmp_path, capsys):
  (tmp_path / 'talks').mkdir()
  talks = [talk('q', 'a'), talk('q', 'a' * 99), talk('q', 'a', 'q', 'a' * 99)]
  write(tmp_path / 'talks/a.jsonl', talks * 20)
  found = blocks.prepare(corpus_of(tmp_path))
  train = found.train
  assert 0 < train.left_out < train.documents and 0 < train.shortened < train.documents
  said = capsys.readouterr().err
  assert (
    f'train: {train.left_out} of {train.documents} conversations are left out: no answer '
    'in them ends within data.sequence_length=64'
  ) in said
  assert f'train: {train.shortened} of {train.documents} conversations are cut' in said


def test_lines_that_hold_no_conversation(tmp_path):
  (tmp_path / 'talks').mkdir()
  bad = [
    '{"text": "no messages"}',
    '{"messages": []}',
    json.dumps({'messages': talk('only a question')}),
    json.dumps({'messages': [{'role': 'bot', 'content': 'x'}]}),
    json.dumps({'messages': talk('q', ' ')}),
    '{"messages"',
  ]
  write(tmp_path / 'talks/a.jsonl', [talk('q', 'a')] * 20, bad)
  found = blocks.prepare(corpus_of(tmp_path))
  assert (found.report.total, found.report.bad) == (26, 6)
  reasons = [x.partition(': ')[2] for x in found.report.messages]
  assert reasons[:5] == [
    "no field 'messages'",
    'messages: must be a list of messages, is []',
    "messages: none of them is of the role 'assistant'",
    "messages[0].role='bot': must be one of 'system', 'user', 'assistant'",
    "messages[1].content=' ': must be text, and not empty",
  ]
  assert reasons[5].startswith('not JSON')
  with pytest.raises(UserError, match=r'^data.max_bad_share=0.01: 6 of 26 records of data'):
    blocks.prepare(corpus_of(tmp_path, max_bad_share=0.01))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'sequence_length': 8}, ' no answer of the train split ends within data.sequence_le'),
    ({'path': 'TALKS/none'}, "data.source.path='TALKS/none' does not exist; give a folder"),
    ({'path': 'TALKS/notes.txt'}, "data.source.path='TALKS/notes.txt' holds no text files"),
  ],
)
def test_no_rows(fields, message, tmp_path):
  (tmp_path / 'talks').mkdir()
  (tmp_path / 'talks/notes.txt').write_text('not a conversation')
  write(tmp_path / 'talks/a.jsonl', [talk('q', 'a')] * 20)
  place = lambda x: x.replace('TALKS', str(tmp_path / 'talks')) if isinstance(x, str) else x
  with pytest.raises(UserError) as error:
    blocks.prepare(corpus_of(tmp_path, **{k: place(x) for k, x in fields.items()}))
  assert place(message) in str(error.value)
  assert '\n' not in str(error.value)


def test_the_command_that_prepares(tmp_path, capsys):
  (tmp_path / 'talks').mkdir()
  write(tmp_path / 'talks/a.jsonl', [talk('q', 'a')] * 20)
  common = [f'--path={tmp_path}/talks', f'--cache_dir={tmp_path}/cache', '--processes=1']
  options = ['--source=chat', *common, '--sequence_length=64', '--validation_share=0.3']
  prepare.main([*options, '--counted=all'])
  output = capsys.readouterr().out
  found = blocks.prepare(corpus_of(tmp_path, counted='all'))
  assert f'cache: {found.folder}\n' in output
  # Of the text, all but the first token of each; it has no text.
  assert output.count('100.00% of the text is predicted, 0.00% is unknown') == 2
  with pytest.raises(UserError, match='^--counted=.all.: --source=text_files has none$'):
    prepare.main(['--source=text_files', *common, '--counted=all'])
  with pytest.raises(
    UserError, match="^data.source.counted='x': must be one of 'all', 'ans"
  ):
    prepare.main([*options, '--counted=x'])


def test_a_tokenizer_is_trained_on_what_is_said(tmp_path, monkeypatch):
  (tmp_path / 'talks').mkdir()
  write(tmp_path / 'talks/a.jsonl', [talk('q', 'a')] * 20)
  read = []
  monkeypatch.setattr(
    train_tokenizer, 'train', lambda texts, size: read.extend(texts) or ''
  )
  train_tokenizer.main(
    [
      *('--source=chat', f'--path={tmp_path}/talks', f'--cache_dir={tmp_path}/cache'),
      f'--output={tmp_path}/bpe.json',
    ]
  )
  assert {text for texts in read for text in texts} == {'q\na'}
