"""Refinements: wrong answers that a rule makes, and what is learned from them."""

import json
import random

import pytest

from elas_jax.common.errors import UserError
from elas_jax.data import chat, pairs, refinement
from elas_jax.data.rule_tasks import RULES, draw, reply_to, reward


@pytest.mark.parametrize('rule', RULES)
def test_a_wrong_reply_is_one_letter_from_the_right_one(rule):
  generator = random.Random(0)
  for _ in range(50):
    question = draw(rule, generator, 3)
    right, wrong = reply_to(question), refinement.wrong_reply(question, generator)
    assert (reward(question, right), reward(question, wrong)) == (1.0, 0.0)
    assert len(right) == len(wrong)
    assert sum(a != b for a, b in zip(right, wrong)) == 1
    assert right.splitlines()[:-1] == wrong.splitlines()[:-1]


def test_what_is_learned_of_a_question():
  question = 'Write abc again.'
  direct, refined = refinement.examples(question, 'abc', 'abd')
  assert [x['content'] for x in direct['messages']] == [question, 'abc']
  said = [question, 'abd', refinement.REFINE, 'abc']
  assert [x['content'] for x in refined['messages']] == said
  assert [x['role'] for x in refined['messages']] == ['user', 'assistant'] * 2
  for example, pair in zip((direct, refined), refinement.pairs(question, 'abc', 'abd')):
    assert pair['prompt'] == example['messages'][:-1]
    assert (pair['chosen'], pair['rejected']) == ('abc', 'abd')
    assert pairs.text_of(pair)[1] == chat.fault(example['messages']) == ''


def write_questions(path, questions):
  talk = lambda text: {'messages': [{'role': 'user', 'content': text}]}
  path.write_text(''.join(json.dumps(talk(text)) + '\n' for text in questions))


def test_the_command_writes_both_files(tmp_path, capsys):
  questions = ['Write abc again.', 'What is 3 + 4?', 'Write xyz backwards.']
  write_questions(tmp_path / 'in.jsonl', questions)
  for folder in ('a', 'b'):
    where = f'--output={tmp_path / folder}'
    refinement.main([f'--input={tmp_path / "in.jsonl"}', where])
  assert capsys.readouterr().out.count('wrote 6 lines to ') == 4
  for name in ('sft', 'pairs'):
    text = (tmp_path / f'a/{name}.jsonl').read_text()
    assert text == (tmp_path / f'b/{name}.jsonl').read_text()
    assert len(text.splitlines()) == 6
  first = json.loads((tmp_path / 'a/pairs.jsonl').read_text().splitlines()[2])
  assert first['prompt'][0]['content'] == 'What is 3 + 4?' and first['chosen'] == '7'


def test_questions_of_no_rule_are_refused(tmp_path):
  write_questions(tmp_path / 'in.jsonl', ['Write abc again.', 'Who are you?'])
  with pytest.raises(UserError, match=r"^--input=.*: in.jsonl:2: question='Who are you\?'"):
    refinement.main([f'--input={tmp_path / "in.jsonl"}', f'--output={tmp_path / "out"}'])
  assert not (tmp_path / 'out').exists()
