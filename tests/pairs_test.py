"""The command `pairs`: answers that are refined, and what is made of them."""

import json
import pathlib
import types

import pytest

from elas_jax import pairs
from elas_jax.common.errors import UserError
from elas_jax.data.refinement import REFINE
from elas_jax.data.tokenizers import BytesTokenizer
from elas_jax.pairs import Answer, Drawing, pairs_of

QUESTIONS = ['Write abc again.', 'What is 3 + 4?']
# By question and sample: the answer and its refinements.
CHAINS = [
  [('abd', 'abc', 'abc.'), ('abx', ' ', 'abx')],
  [('8', '8', '9'), ('', '8', '5')],
]


@pytest.fixture
def run(monkeypatch):
  """A run that says CHAINS; `run.read` has the prompts that it was given."""
  made = types.SimpleNamespace(
    tokenizer=BytesTokenizer(),
    step=7,
    past=types.SimpleNamespace(workdir=pathlib.Path('runs/sft')),
    read=[],
    seeds=[],
  )

  def answers(run, prompts, tokens, batch_size, temperature, top_p, seed):
    turn = len(run.read)
    run.read.append([run.tokenizer.decode(ids) for ids in prompts])
    run.seeds.append(seed)
    return [chain[turn] for of_question in CHAINS for chain in of_question]

  monkeypatch.setattr(pairs, 'answers', answers)
  monkeypatch.setattr(pairs, 'open_run', lambda *given: made)
  return made


def test_each_answer_is_refined_again(run):
  found = pairs.draw(run, QUESTIONS, Drawing(samples=2, refinements=2))
  first, second, third = run.read
  ask = lambda *said: ''.join(
    f'{role}:\n{text}' for role, text in zip(('user', 'assistant') * 3, (*said, ''))
  )
  assert first == [ask(question) for question in QUESTIONS for _ in range(2)]
  assert second[0] == ask(QUESTIONS[0], 'abd', REFINE)
  assert second[3] == ask(QUESTIONS[1])  # it has said nothing yet
  # Nor has it refined 'abx' to anything.
  assert third[:2] == [ask(QUESTIONS[0], x, REFINE) for x in ('abc', 'abx')]
  assert third[3] == ask(QUESTIONS[1], '8', REFINE)
  assert len(set(run.seeds)) == 3
  order = [(answer.refinement, answer.sample) for answer in found[0]]
  assert order == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
  assert [answer.reward for answer in found[0]] == [0, 0, 1, 0, 1, 0]
  assert not any(answer.reward for answer in found[1])
  assert pairs.summary(found) == {
    'reward/0': 0.0,
    'reward/1': 0.25,
    'reward/2': 0.25,
    'reward/best': 0.5,
  }


def test_the_best_answer_is_paired_with_each_worse_one():
  found = [
    Answer('abd', 0.0, 0, 0),
    Answer('abc', 1.0, 1, 0),
    Answer('abd', 0.0, 1, 1),
    Answer(' abc', 1.0, 0, 1),
    Answer('', 0.0, 2, 0),
    Answer('x', 0.0, 2, 1),
  ]
  lines = list(pairs_of('Write abc again.', found))
  assert [(x['of'], x['chosen'], x['rejected']) for x in lines] == [
    ('direct', ' abc', 'abd'),
    ('refined', ' abc', 'abd'),
    ('direct', ' abc', 'x'),
    ('refined', ' abc', 'x'),
  ]
  assert [x['content'] for x in lines[1]['prompt']] == ['Write abc again.', 'abd', REFINE]
  assert lines[0]['source']['chosen'] == {'reward': 1.0, 'sample': 0, 'refinement': 1}
  for equal in (found[:1], found[1:2], []):
    assert not list(pairs_of('Write abc again.', equal))


def write_questions(path, questions):
  talk = lambda text: {'messages': [{'role': 'user', 'content': text}]}
  path.write_text(''.join(json.dumps(talk(text)) + '\n' for text in questions))


def test_the_command(run, tmp_path, capsys):
  write_questions(tmp_path / 'in.jsonl', QUESTIONS)
  output = tmp_path / 'made/pairs.jsonl'
  options = (f'--prompts={tmp_path / "in.jsonl"}', '--samples=2', '--workdir=runs/sft')
  pairs.main([*options, f'--output={output}'])
  lines = [json.loads(line) for line in output.read_text().splitlines()]
  # What was said last among the right ones is the best.
  assert [(x['chosen'], x['rejected']) for x in lines[::2]] == [
    ('abc.', 'abd'),
    ('abc.', 'abx'),
  ]
  source = lines[0]['source']
  assert (source['run'], source['step'], source['seed']) == ('runs/sft', 7, 0)
  about = json.loads(output.with_suffix('.json').read_text())
  assert about['pairs'] == len(lines) == 4 and about['temperature'] == 0.8
  assert 'reward/1                     0.25' in capsys.readouterr().out
  with pytest.raises(UserError, match=r'^--output=.*: must be a file of pairs, NAME.jsonl'):
    pairs.main([*options, f'--output={tmp_path / "pairs"}'])
  one = ['--samples=1', '--refinements=0', f'--output={tmp_path / "one.jsonl"}']
  with pytest.raises(UserError, match='^--refinements=0: must be at least 1 with --sample'):
    pairs.main([*options, *one])


def test_answers_that_are_equally_good_are_no_pairs(run, tmp_path, monkeypatch):
  monkeypatch.setattr(pairs, 'answers', lambda run, prompts, *how: ['7'] * len(prompts))
  write_questions(tmp_path / 'in.jsonl', QUESTIONS[1:])
  output = tmp_path / 'pairs.jsonl'
  with pytest.raises(
    UserError, match=r'^--prompts=.*: all answers to a question are equal'
  ):
    pairs.main(
      ['--workdir=runs/sft', f'--prompts={tmp_path / "in.jsonl"}', f'--output={output}']
    )
  assert not output.exists()
