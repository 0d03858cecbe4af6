"""Fine-tuning on conversations: the loss, a run of it, and what its commands do with it."""

import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax import convert, evaluate, generate, measure, reward
from elas_jax.common.errors import UserError
from elas_jax.data import chat
from elas_jax.data.sources import open_source
from elas_jax.data.tokenizers import BytesTokenizer
from elas_jax.run.workdir import open_run
from elas_jax.tasks.language import LANGUAGE
from elas_jax.train import train
from tests.conftest import thinned, tiny_config
from tests.data.chat_test import CHATML, write_settings, write_tokenizer
from tests.finished_runs import computed, final_params, train_until
from tests.programs import init_variables, jit_logits


def config_of(**fields):
  """Every place is relative, so that a folder with a run in it can be copied."""
  own = {
    'data.source': 'chat',
    'data.source.path': 'talks.jsonl',
    'data.source.validation_share': 0.2,
    'data.sequence_length': 96,
    'data.batch_size': 4,
    'eval.units': 0,
    'eval.batch_size': 4,
  }
  return tiny_config(pathlib.Path(), **own | fields)


def write_talks(path, count=60):
  with open(path, 'w') as file:
    for i in range(count):
      talk = [('user', f'Write {i:03d} again.'), ('assistant', f'{i:03d}' * (1 + i % 3))]
      if not i % 4:
        talk += [('user', 'And?'), ('assistant', 'No.')]
      messages = [{'role': role, 'content': content} for role, content in talk]
      print(json.dumps({'messages': messages}), file=file)


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  """A folder with conversations, a tokenizer with ChatML, and a run of 4 of 8 steps."""
  folder = tmp_path_factory.mktemp('begun')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    write_talks('talks.jsonl')
    write_settings(write_tokenizer(folder), CHATML)
    train_until(4, file_config(), 'run')
  return folder


def file_config(**fields):
  own = {
    'data.tokenizer': 'file',
    'data.tokenizer.path': 'tokenizer.json',
    'model.vocab_size': 300,
  }
  return config_of(**own | fields)


@pytest.fixture
def place(begun, tmp_path, monkeypatch):
  """A copy of it, in which a test works."""
  shutil.copytree(begun, tmp_path / 'copy')
  monkeypatch.chdir(tmp_path / 'copy')


def prepared(config):
  return LANGUAGE.prepare(config)


@pytest.mark.parametrize('protocol', thinned(['packed', 'document'], 'packed'))
def test_the_loss_is_that_of_the_answers(protocol, tmp_path, monkeypatch):
  """Each conversation in a row of its own, in NumPy; only targets in answers count."""
  monkeypatch.chdir(tmp_path)
  write_talks('talks.jsonl')
  config = config_of(**{'data.protocol': protocol})
  data, variables = prepared(config).train, init_variables(config)
  rows = data.read(np.arange(len(data)))
  assert ('segments' in rows) == (protocol == 'packed')
  batch = {name: jnp.asarray(x) for name, x in rows.items()}
  texts = pathlib.Path('talks.jsonl').read_text().splitlines()
  talks = {json.dumps(json.loads(x)['messages']) for x in texts}
  held_out = texts_of(config, 'validation')
  encoded = [chat.encode(json.loads(x), BytesTokenizer()) for x in sorted(talks - held_out)]
  padded = np.full((len(encoded), 96), 256)
  for row, (ids, _) in zip(padded, encoded):
    row[: len(ids) - 1] = ids[:-1]
  logits = np.float64(jit_logits(config.model, variables, jnp.asarray(padded), None))
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  loss = count = size = 0
  for of_row, (ids, answer) in zip(log_p, encoded):
    (places,) = np.nonzero(answer)
    loss -= of_row[places - 1, ids[places]].sum()
    count += len(places)
    size += (ids[places] < 256).sum()
  sums = sums_of(config, variables, batch)
  assert float(sums['loss']) == pytest.approx(loss, 1e-5)
  assert float(sums['count']) == count == rows['valid'].sum() == data.tokens
  assert float(sums['bytes']) == size


@functools.partial(jax.jit, static_argnums=0)
def sums_of(config, variables, batch):
  return LANGUAGE.forward(config, variables, batch, jax.random.key(0), False).sums


def texts_of(config, split):
  """The conversations of a split."""
  found = open_source(config.data.source.corpus(config.data)).splits[split]
  return {document['text'].decode() for document in found}


def test_a_resumed_run_is_the_whole_one(begun, place):
  config = file_config()
  train(config, 'run')
  train(config, 'whole')
  assert computed('run') == computed('whole')
  jax.tree.map(np.testing.assert_array_equal, final_params('run'), final_params('whole'))


def test_the_template_is_that_of_the_checkpoint(place, capsys):
  """Without its file; a conversation is written as it was in training."""
  before = chat.encode(
    [{'role': 'user', 'content': 'Hi'}], open_run('run', None, {}).tokenizer
  )
  for name in ('tokenizer.json', 'tokenizer_config.json'):
    pathlib.Path(name).unlink()
  tokenizer = open_run('run', None, {}).tokenizer
  assert tokenizer.chat_template == CHATML
  np.testing.assert_array_equal(
    chat.encode([{'role': 'user', 'content': 'Hi'}], tokenizer)[0], before[0]
  )
  evaluate.main(['--workdir=run'])
  assert 'the copy in the checkpoint is used' in capsys.readouterr().err
  value = json.loads(pathlib.Path('run/evaluation.json').read_text())
  assert value['eval/tokens'] == prepared_tokens('run')
  train(file_config(), 'run')


def prepared_tokens(workdir):
  return open_run(workdir, None, {}).past.record['splits']['validation']['tokens']


def test_another_template_writes_other_data(place):
  write_settings(pathlib.Path(), CHATML.replace('Be good.', 'Be bad.'))
  with pytest.raises(UserError, match=r"data.source='chat' .* the data are not those of"):
    train(file_config(), 'run')


def test_a_second_phase_starts_from_the_first(place):
  """Its template may be another, or the first run one of text, without a template."""
  write_settings(pathlib.Path(), CHATML.replace('Be good.', 'Be bad.'))
  train_until(1, file_config(restore='run'), 'second')
  pathlib.Path('tokenizer_config.json').unlink()
  train_until(1, file_config(restore='second', **{'data.source.counted': 'all'}), 'third')
  assert (
    open_run('third', None, {}).past.record['splits']['train']['tokens']
    > open_run('run', None, {}).past.record['splits']['train']['tokens']
  )


def test_changed_conversations_are_refused(place):
  write_talks('talks.jsonl', 61)
  with pytest.raises(UserError, match=r'data.source.path: 1 file \(talks.jsonl\) changed'):
    train(file_config(), 'run')


@pytest.mark.conformance
def test_commands(place, capsys):
  generate.main(
    ['--workdir=run', '--chat', '--prompt=Write 007 again.', '--tokens=5', '--seed=1']
  )
  assert "--- 'Write 007 again.'\n" in capsys.readouterr().out
  measure.main(['--workdir=run', '--measures=activations'])
  assert 'activations' in capsys.readouterr().out
  convert.main(['--workdir=run', '--converter=merge', '--output=merged'])
  evaluate.main(['--workdir=merged'])
  evaluate.main(['--workdir=run'])
  losses = [
    json.loads(pathlib.Path(x, 'evaluation.json').read_text())['eval/loss']
    for x in ('merged', 'run')
  ]
  assert losses[0] == pytest.approx(losses[1], 1e-4)


def test_generate_answers_the_prompt_of_the_template(place, monkeypatch):
  asked = []

  def fake(model, variables, tokenizer, prompts, **options):
    asked.append((prompts, options))
    return ['an answer' for _ in prompts]

  monkeypatch.setattr(generate, 'generate', fake)
  generate.main(['--workdir=run', '--chat', '--prompt=Hi'])
  ((prompts, options),) = asked
  tokenizer = open_run('run', None, {}).tokenizer
  whole, answer = chat.encode(
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'x'}], tokenizer
  )
  np.testing.assert_array_equal(prompts[0], whole[: np.argmax(answer)])
  assert options['stops'] == (2, 0)


def test_generate_needs_a_message(place):
  with pytest.raises(UserError, match=r"^--prompt='': must be a message to answer, with"):
    generate.main(['--workdir=run', '--chat'])


def test_rewards(place, monkeypatch, capsys):
  """Of a model that writes what it is asked to add, digit by digit, but not backwards."""
  lines = ['What is 1 + 2?', 'Write 12 backwards.', 'What is 3 + 4?', 'What is 2 - 2?']
  replies = {'What is 1 + 2?': '3', 'What is 3 + 4?': '3 + 4\n8', 'What is 2 - 2?': '0'}
  with open('prompts.jsonl', 'w') as file:
    for line in lines:
      print(json.dumps({'messages': [{'role': 'user', 'content': line}]}), file=file)
  sizes = []

  def fake(model, variables, tokenizer, prompts, **options):
    sizes.append(len(prompts))
    assert options['temperature'] == 0.0 and options['stops'] == (2, 0)
    by_prompt = {tuple(chat.asked(x, tokenizer)): replies.get(x, '12') for x in lines}
    return [by_prompt[tuple(prompt)] for prompt in prompts]

  monkeypatch.setattr(reward, 'generate', fake)
  reward.main(['--workdir=run', '--prompts=prompts.jsonl', '--batch_size=3'])
  shown = [line.split() for line in capsys.readouterr().out.splitlines()[:-1]]
  assert shown == [
    ['addition', '50.00%', 'of', '2'],
    ['reverse', '0.00%', 'of', '1'],
    ['subtraction', '100.00%', 'of', '1'],
    ['all', '50.00%', 'of', '4'],
  ]
  assert sizes == [3, 1]
  found = json.loads(pathlib.Path('run/reward.json').read_text())
  assert found['rewards']['all'] == {'mean': 0.5, 'questions': 4}
  assert [x['reward'] for x in found['answers']] == [1.0, 0.0, 0.0, 1.0]
  reward.main(['--workdir=run', '--prompts=prompts.jsonl', '--count=1'])
  assert capsys.readouterr().out.splitlines()[1].split() == ['all', '100.00%', 'of', '1']


@pytest.mark.conformance
def test_a_model_of_few_steps_answers_nothing(place, capsys):
  """With no part of the command replaced."""
  with open('prompts.jsonl', 'w') as file:
    for line in ('Write abc again.', 'Write d backwards.'):
      print(json.dumps({'messages': [{'role': 'user', 'content': line}]}), file=file)
  reward.main(['--workdir=run', '--prompts=prompts.jsonl', '--tokens=2'])
  assert capsys.readouterr().out.splitlines()[2].split() == ['all', '0.00%', 'of', '2']


@pytest.mark.parametrize(
  ('line', 'message'),
  [
    ('{}', 'prompts.jsonl:1: messages: must be a list of messages, is None'),
    ('{"messages": [{"role": "user", "content": "Hi"}]}', "question='Hi': is of no rule"),
    (
      '{"messages": [{"role": "assistant", "content": "x"}]}',
      'none of them is of the role',
    ),
    ('', 'holds no line; must have messages of a user'),
  ],
)
def test_prompts_that_are_none(line, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('prompts.jsonl').write_text(line + '\n')
  with pytest.raises(UserError) as error:
    reward.main(['--workdir=run', '--prompts=prompts.jsonl'])
  assert str(error.value).startswith("--prompts='prompts.jsonl': ")
  assert message in str(error.value) and '\n' not in str(error.value)


def test_a_sample_needs_a_message(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_talks('talks.jsonl')
  config = config_of(**{'eval.sample_tokens': 4, 'eval.prompt': ' '})
  with pytest.raises(
    UserError, match=r"^eval.prompt=' ': must be a message that is answer"
  ):
    prepared(config)
