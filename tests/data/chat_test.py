"""Conversations by a chat template: tokens, what is an answer, and what is refused."""

import json

import numpy as np
import pytest
import tokenizers

from elas_jax.common.errors import UserError
from elas_jax.data import chat
from elas_jax.data.tokenizers import BytesTokenizer, load_tokenizer, parse_tokenizer

TALK = [
  {'role': 'user', 'content': 'Hi'},
  {'role': 'assistant', 'content': 'Yo!'},
  {'role': 'user', 'content': 'and'},
  {'role': 'assistant', 'content': 'Zoë'},
]
# As Jinja that writes ChatML has it, with a system message of its own.
CHATML = (
  "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
  "{{ '<|im_start|>system\\nBe good.<|im_end|>\\n' }}{% endif %}"
  "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
)


def write_tokenizer(folder, special=('<|endoftext|>', '<|im_start|>', '<|im_end|>')):
  """A byte-level BPE of a few merges."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  level = tokenizers.pre_tokenizers.ByteLevel
  made.pre_tokenizer = level(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=280,
    special_tokens=list(special),
    initial_alphabet=level.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator(['user\nassistant\nsystem\nBe good. Hi and Yo!'] * 4, trainer)
  made.save(str(folder / 'tokenizer.json'))
  return folder


def write_settings(folder, template):
  text = json.dumps({'chat_template': template})
  (folder / 'tokenizer_config.json').write_text(text)


def test_plain_text_of_bytes():
  ids, answer = chat.encode(TALK, BytesTokenizer())
  read_ids = lambda some: read(some, BytesTokenizer(), {256: '$'})
  assert read_ids(ids) == '$user:\nHi$assistant:\nYo!$user:\nand$assistant:\nZoë$'
  assert read_ids(ids[answer]) == 'Yo!$Zoë$'
  assert ids.dtype == np.int32 and answer.dtype == bool
  assert chat.stops(BytesTokenizer()) == (256,)


def test_chatml_of_a_published_folder(tmp_path):
  write_settings(write_tokenizer(tmp_path), CHATML)
  tokenizer = load_tokenizer(str(tmp_path))
  names = {0: '<|endoftext|>', 1: '<|im_start|>', 2: '<|im_end|>'}
  ids, answer = chat.encode(TALK, tokenizer)
  runs = np.split(ids, np.flatnonzero(np.diff(answer.astype(int))) + 1)
  written = [read(run, tokenizer, names) for run in runs]
  assert written == [
    '<|im_start|>system\nBe good.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n'
    '<|im_start|>assistant\n',
    'Yo!<|im_end|>',
    '\n<|im_start|>user\nand<|im_end|>\n<|im_start|>assistant\n',
    'Zoë<|im_end|>',
    '\n',
  ]
  assert chat.stops(tokenizer) == (2, 0)
  own = [{'role': 'system', 'content': 'Hi'}, *TALK[:2]]
  text = read(chat.encode(own, tokenizer)[0], tokenizer, names)
  assert text.startswith('<|im_start|>system\nHi<|im_end|>\n<|im_start|>user\n')


def read(ids, tokenizer, names):
  """The text of the ids, special tokens by name."""
  parts, text = [], []
  for i in map(int, [*ids, -1]):
    if i in names or i < 0:
      parts += [tokenizer.decode(text), names.get(i, '')]
      text = []
    else:
      text.append(i)
  return ''.join(parts)


@pytest.mark.parametrize('template', ['', CHATML])
def test_an_answer_follows_its_prompt(template, tmp_path):
  write_settings(write_tokenizer(tmp_path), template)
  tokenizer = load_tokenizer(str(tmp_path))
  ids, answer = chat.encode(TALK, tokenizer)
  first = chat.prompt(TALK[:1], tokenizer)
  second = chat.prompt(TALK[:3], tokenizer)
  for begun in (first, second):
    np.testing.assert_array_equal(ids[: len(begun)], begun)
    assert answer[len(begun)] and not answer[len(begun) - 1]
  assert not answer[: len(first)].any()


def test_a_content_cannot_write_a_token(tmp_path):
  write_settings(write_tokenizer(tmp_path), CHATML)
  tokenizer = load_tokenizer(str(tmp_path))
  talk = [{'role': 'user', 'content': 'Hi<|im_end|>'}, TALK[1]]
  ids, _ = chat.encode(talk, tokenizer)
  assert (ids == 2).sum() == 3  # of the system message, Hi and Yo


def test_bytes_are_those_of_the_text(tmp_path):
  found = chat.encoded(TALK, BytesTokenizer())
  assert found.lengths[found.answer].sum() == len('Yo!Zoë'.encode())
  write_settings(write_tokenizer(tmp_path), CHATML)
  found = chat.encoded(TALK, load_tokenizer(str(tmp_path)))
  assert found.lengths[found.answer].sum() == len('Yo!Zoë'.encode())
  assert found.lost == 0


@pytest.mark.parametrize('by', ['own', 'settings', 'jinja', 'several'])
def test_a_template_goes_with_the_tokenizer(by, tmp_path):
  write_tokenizer(tmp_path)
  plain = load_tokenizer(str(tmp_path))
  path = tmp_path / 'tokenizer.json'
  if by == 'own':
    path.write_text(json.dumps(json.loads(path.read_text()) | {'chat_template': CHATML}))
  elif by == 'settings':
    write_settings(tmp_path, CHATML)
  elif by == 'jinja':
    (tmp_path / 'chat_template.jinja').write_text(CHATML)
  else:
    several = [{'name': 'rag', 'template': 'x'}, {'name': 'default', 'template': CHATML}]
    write_settings(tmp_path, several)
  tokenizer = load_tokenizer(str(tmp_path))
  again = parse_tokenizer(tokenizer.to_json(), 'a checkpoint')
  assert again.chat_template == CHATML
  np.testing.assert_array_equal(
    chat.encode(TALK, again)[0], chat.encode(TALK, tokenizer)[0]
  )
  # What was prepared by it, before templates were read, is found.
  assert tokenizer.fingerprint == plain.fingerprint == again.fingerprint


def test_templates_that_are_not_known(tmp_path):
  write_settings(write_tokenizer(tmp_path), '[INST] {{ x }} [/INST]')
  message = 'data.tokenizer: its chat_template is without <|im_start|>; accepted are'
  refused(message, chat.encode, TALK, load_tokenizer(str(tmp_path)))
  write_settings(tmp_path, CHATML + '<think>')
  message = 'data.tokenizer: its chat_template has <think>; accepted are ChatML'
  refused(message, chat.encode, TALK, load_tokenizer(str(tmp_path)))
  write_settings(write_tokenizer(tmp_path, ('</s>',)), CHATML)
  message = 'data.tokenizer: its chat_template is without <|im_start|>; accepted are'
  refused(message, chat.encode, TALK, load_tokenizer(str(tmp_path)))
  (tmp_path / 'tokenizer_config.json').write_text('{')
  message = f"data.tokenizer.path='{tmp_path}/tokenizer.json': tokenizer_config.json or"
  refused(message, load_tokenizer, str(tmp_path))


@pytest.mark.parametrize(
  ('messages', 'message'),
  [
    ([], 'messages: must be a list of messages, is []'),
    ('Hi', "messages: must be a list of messages, is 'Hi'"),
    (['Hi'], "messages[0]: must have role and content, is 'Hi'"),
    ([{'content': 'Hi'}], "messages[0].role=None: must be one of 'system', 'user', 'as"),
    ([TALK[0], {'role': 'bot', 'content': 'x'}], "messages[1].role='bot': must be one of"),
    ([TALK[0], {'role': 'system', 'content': 'x'}], "messages[1].role='system': must be"),
    ([{'role': 'user', 'content': ' '}], "messages[0].content=' ': must be text, and not"),
    ([{'role': 'user', 'content': 3}], 'messages[0].content=3: must be text, and not'),
    ([{'role': 'user', 'content': '\ud800'}], 'messages[0].content: holds half a'),
  ],
)
def test_no_conversations(messages, message):
  refused(message, chat.encode, messages, BytesTokenizer())


def test_no_prompt_behind_an_answer():
  message = 'messages[1]: an answer is to come behind a message that is none'
  refused(message, chat.prompt, TALK[:2], BytesTokenizer())


def refused(message, function, *arguments):
  with pytest.raises(UserError) as error:
    function(*arguments)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
