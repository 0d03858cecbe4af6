"""Questions with one answer: what is right, and the files that are written of them."""

import json
import random

import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import rule_tasks
from elas_jax.data.rule_tasks import answer_of, reply_to, reward, rule_of
from elas_jax.data.rules import main

ANSWERS = [
  ('addition', 'What is 58 + 67?', '125'),
  ('subtraction', 'What is 12 - 30?', '-18'),
  ('product', 'What is 417 * 6?', '2502'),
  ('steps', 'Add 417 and 85 step by step.', '502'),
  ('reverse', 'Write drawer backwards.', 'reward'),
  ('copy', 'Write drawer again.', 'drawer'),
  ('sort', 'Sort the letters of banana.', 'aaabnn'),
  ('count', 'How often is a in banana?', '3'),
]


@pytest.mark.parametrize(('rule', 'question', 'answer'), ANSWERS)
def test_answers(rule, question, answer):
  assert rule_of(question) == rule
  assert answer_of(question) == answer
  assert reward(question, reply_to(question)) == 1.0
  assert reward(question, answer + 'x') == reward(question, '') == 0.0


def test_every_rule_has_an_answer_here():
  assert [rule for rule, *_ in ANSWERS] == list(rule_tasks.RULES)


def test_steps_add_one_digit_after_the_other():
  lines = ['417 + 80 = 497', '497 + 5 = 502', '502']
  assert reply_to('Add 417 and 85 step by step.').split('\n') == lines


@pytest.mark.parametrize(
  ('reply', 'right'),
  [
    ('125', 1.0),
    (' 125 \n', 1.0),
    ('0125', 1.0),
    ('"125".', 1.0),
    ('58 + 67 = 125', 0.0),
    ('58 + 60 = 118\n125', 1.0),
    ('125\n126', 0.0),
    ('1 25', 0.0),
    ('-125', 0.0),
    ('\n\n', 0.0),
  ],
)
def test_only_the_last_line_counts(reply, right):
  assert reward('What is 58 + 67?', reply) == right


def test_letters_are_compared_as_they_are():
  assert reward('Write abc again.', '"abc"') == 1.0
  assert reward('Write abc again.', 'Abc') == reward('Write abc again.', 'abc abc') == 0.0


@pytest.mark.parametrize('name', rule_tasks.RULES)
@pytest.mark.parametrize('size', [1, 6])
def test_what_is_drawn_is_of_its_rule(name, size):
  generator = random.Random(0)
  for _ in range(20):
    assert rule_of(rule_tasks.draw(name, generator, size)) == name


@pytest.mark.parametrize('question', ['', 'Hi', 'What is a + b?', 'What is 1 + 2? Now.'])
def test_other_questions(question):
  with pytest.raises(UserError) as error:
    reward(question, '3')
  assert str(error.value).startswith(f'question={question!r}: is of no rule; there are')


def written(folder, *options):
  """(question, reply, rule) of each line, by split."""
  main([f'--output={folder}', '--count=60', '--validation=24', *options])
  found = {}
  for split in ('train', 'validation'):
    lines = (folder / f'{split}.jsonl').read_text().splitlines()
    read = [json.loads(line) for line in lines]
    found[split] = [(*(m['content'] for m in x['messages']), x['rule']) for x in read]
  return found


def test_files(tmp_path, capsys):
  first = written(tmp_path / 'first')
  assert f'wrote 24 conversations to {tmp_path}/first/validation.jsonl' in (
    capsys.readouterr().out
  )
  assert {split: len(of) for split, of in first.items()} == {'train': 60, 'validation': 24}
  rules = [rule for *_, rule in first['validation']]
  assert rules == list(rule_tasks.RULES) * 3
  for question, reply, rule in first['train'] + first['validation']:
    assert rule_of(question) == rule
    assert reward(question, reply) == 1.0
  assert written(tmp_path / 'again') == first
  other = written(tmp_path / 'other', '--seed=1')
  assert other['train'] != first['train']
  assert len({question for question, *_ in first['train']}) == 60


def test_no_question_of_any_file_is_held_out_of_another(tmp_path):
  """Of a hundred questions, so that what is drawn twice has most of them in common."""
  few = ('--rules=addition', '--digits=1', '--validation=8')
  drawn = [written(tmp_path / seed, *few, f'--seed={seed}') for seed in '01']
  asked = lambda split: [{question for question, *_ in of[split]} for of in drawn]
  assert len(set.intersection(*asked('train'))) > 30
  assert not set.union(*asked('train')) & set.union(*asked('validation'))


def test_sizes(tmp_path):
  found = written(tmp_path, '--rules=copy,addition', '--letters=9', '--digits=2')['train']
  parts = {
    name: [rule_tasks.RULES[name].parts(x) for x, _, rule in found if rule == name]
    for name in ('copy', 'addition')
  }
  assert {name: len(of_rule) for name, of_rule in parts.items()} == dict.fromkeys(parts, 30)
  assert {len(word) for (word,) in parts['copy']} == {9}
  assert {len(x) for pair in parts['addition'] for x in pair} == {1, 2}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--rules=copy,double'], "--rules='copy,double': 'double' must be one of 'addition'"),
    (['--digits=1', '--rules=steps', '--count=95'], '--rules: steps has 90 questions for'),
    (['--count=0'], "argument --count: '0': must be an integer from 1 to"),
  ],
)
def test_what_cannot_be_written(options, message, tmp_path):
  with pytest.raises(UserError) as error:
    main([f'--output={tmp_path}', *options])
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())
