"""Conversations as tokens: by the chat template of a tokenizer, with what is an answer.

A conversation is a list of messages, {'role': 'user', 'content': 'Hi'}. Each is written as

  opening, header, content, stop, behind

where opening and stop are tokens of the vocabulary, which no content can fake, and header
and behind are text. Two templates are known. PLAIN is of tokenizers without a template of
their own, bytes among them; its token is the one that ends a document, at which every
generation stops ($ below):

  $user:\\nHi$assistant:\\nHello$

CHATML is what Qwen publishes (arXiv 2407.10671), whose tokenizer PLM (2503.12167) has:

  <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello<|im_end|>\\n

Published templates are programs in Jinja. None is run here: one is read as ChatML by its
two tokens, with the system message that it puts before conversations without one.

The prompt for an answer is encoded by itself, and the answer behind it, so that a model
generates from the tokens that it was trained on. Hugging Face's apply_chat_template differs
where a tokenizer would join the end of a header with the start of an answer.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown
from elas_jax.data.tokenizers import Tokenizer

ROLES = ('system', 'user', 'assistant')
ANSWERS = 'assistant'  # the role whose content is learned
Messages = Sequence[Mapping[str, str]]


@dataclasses.dataclass(frozen=True)
class Template:
  """How a conversation is written.

  Attributes:
    begins: whether the token that ends a document stands in front of all.
    opening: the token before each message; '' for none.
    header: text before each content, with {role} in it.
    stop: the token behind each content; '' for the one that ends a document.
    behind: text behind that.
    system: content of the system message of conversations without one; '' for none.
  """

  begins: bool
  opening: str
  header: str
  stop: str
  behind: str
  system: str = ''


PLAIN = Template(begins=True, opening='', header='{role}:\n', stop='', behind='')
CHATML = Template(
  begins=False,
  opening='<|im_start|>',
  header='{role}\n',
  stop='<|im_end|>',
  behind='\n',
)
# In Jinja these write what CHATML does not: a start of text, or thoughts before an answer.
OTHER_THAN_CHATML = ('bos_token', '<think>')
_SYSTEM = re.compile(r'<\|im_start\|>system(?:\\n|\n)([^{}\'"<]+)<\|im_end\|>')


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A conversation, n tokens.

  Attributes:
    ids: int32[n].
    answer: bool[n], what is the assistant's: contents, and the token that stops each.
    lengths: int32[n], bytes of text, as of tokenizers.py.
    lost: bytes of text that the tokenizer does not know.
  """

  ids: np.ndarray
  answer: np.ndarray
  lengths: np.ndarray
  lost: int


def encode(messages: Messages, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
  """(ids int32[n], answer bool[n]): a conversation, and which tokens are the assistant's.

  Raises:
    UserError: no conversation, see `fault`; or the template is not known.
  """
  found = encoded(messages, tokenizer)
  return found.ids, found.answer


def encoded(messages: Messages, tokenizer: Tokenizer) -> Encoded:
  """The same with the bytes of text that each token holds; as `encode`."""
  _check(messages)
  return _joined(_pieces(messages, tokenizer), tokenizer)


def prompt(messages: Messages, tokenizer: Tokenizer) -> np.ndarray:
  """int32[n], what the next answer is generated behind: `messages` and a header for it.

  encode(messages + [answer]) begins with it.

  Raises:
    UserError: as `encode`; or the last message is an answer.
  """
  _check(messages)
  if messages[-1]['role'] == ANSWERS:
    raise UserError(
      f'messages[{len(messages) - 1}]: an answer is to come behind a message that is none'
    )
  template = template_of(tokenizer)
  pieces = [*_pieces(messages, tokenizer), *_head(template, ANSWERS, tokenizer)]
  return _joined(pieces, tokenizer).ids


def asked(question: str, tokenizer: Tokenizer) -> np.ndarray:
  """The prompt for an answer to one message of a user; as `prompt`."""
  return prompt([{'role': 'user', 'content': question}], tokenizer)


def stops(tokenizer: Tokenizer) -> tuple[int, ...]:
  """The tokens at which an answer ends: that of the template, and the end of a document."""
  stop = _token(template_of(tokenizer).stop, tokenizer)
  return tuple(dict.fromkeys((stop, tokenizer.eos_id)))


def fault(messages: Any) -> str:
  """Why this is no conversation, or ''.

  It is a list of messages, none of them empty, with roles of ROLES and a system message, if
  any, in front. Other keys of a message are passed over.
  """
  if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
    return f'messages: must be a list of messages, is {shown(messages)}'
  for i, message in enumerate(messages):
    if why := _fault_of(message, is_first=not i):
      return f'messages[{i}]{why}'
  return ''


def _fault_of(message: Any, is_first: bool) -> str:
  if not isinstance(message, Mapping):
    return f': must have role and content, is {shown(message)}'
  role, content = message.get('role'), message.get('content')
  if role not in ROLES:
    return f'.role={shown(role)}: must be one of {quoted(ROLES)}'
  if role == 'system' and not is_first:
    return ".role='system': must be the first message"
  if not isinstance(content, str) or not content.strip():
    return f'.content={shown(content)}: must be text, and not empty'
  try:
    content.encode()
  except UnicodeEncodeError:
    return '.content: holds half a surrogate pair'
  return ''


def _check(messages: Messages) -> None:
  if why := fault(messages):
    raise UserError(why)


def template_of(tokenizer: Tokenizer) -> Template:
  """That of the tokenizer, or PLAIN.

  Raises:
    UserError: its template is not known.
  """
  text = tokenizer.chat_template
  if not text:
    return PLAIN
  needed = (CHATML.opening, CHATML.stop)
  lacking = [x for x in needed if x not in text or tokenizer.id_of(x) is None]
  other = [x for x in OTHER_THAN_CHATML if x in text]
  if lacking or other:
    why = f'is without {lacking[0]}' if lacking else f'has {other[0]}'
    raise UserError(
      f'data.tokenizer: its chat_template {why}; accepted are ChatML, with tokens '
      f'{" and ".join(needed)}, and none, for which conversations are plain text'
    )
  system = _SYSTEM.search(text)
  return dataclasses.replace(CHATML, system=system[1] if system else '')


@dataclasses.dataclass(frozen=True)
class _Piece:
  """Text, or a token."""

  text: str = ''
  token: int | None = None
  is_answer: bool = False


def _token(name: str, tokenizer: Tokenizer) -> int:
  return tokenizer.id_of(name) if name else tokenizer.eos_id


def _head(template: Template, role: str, tokenizer: Tokenizer) -> Iterator[_Piece]:
  if template.opening:
    yield _Piece(token=_token(template.opening, tokenizer))
  yield _Piece(template.header.format(role=role))


def _pieces(messages: Messages, tokenizer: Tokenizer) -> Iterator[_Piece]:
  template = template_of(tokenizer)
  if template.begins:
    yield _Piece(token=tokenizer.eos_id)
  if template.system and messages[0]['role'] != 'system':
    messages = [{'role': 'system', 'content': template.system}, *messages]
  for message in messages:
    is_answer = message['role'] == ANSWERS
    yield from _head(template, message['role'], tokenizer)
    yield _Piece(message['content'], is_answer=is_answer)
    yield _Piece(token=_token(template.stop, tokenizer), is_answer=is_answer)
    if template.behind:
      yield _Piece(template.behind)


def _joined(pieces: Iterator[_Piece], tokenizer: Tokenizer) -> Encoded:
  """Their tokens; text that is all answer, or none of it, is encoded as one."""
  merged = []
  for piece in pieces:
    last = merged[-1] if merged else None
    texts = last and last.token is None and piece.token is None
    if texts and last.is_answer == piece.is_answer:
      merged[-1] = dataclasses.replace(last, text=last.text + piece.text)
    else:
      merged.append(piece)
  texts = [piece.text for piece in merged if piece.token is None]
  encodings, lost = tokenizer.encode_batch(texts)
  encodings, ids, answer, sizes, skipped = iter(encodings), [], [], [], 0
  for piece in merged:
    if piece.token is None:
      of_text, lengths = next(encodings)
      lengths = lengths.copy()
      if len(lengths):  # what the tokenizer skips counts for the next token
        lengths[0] += skipped
        skipped = 0
      skipped += len(piece.text.encode()) - int(lengths.sum())
    else:
      of_text, lengths, skipped = [piece.token], [skipped], 0
    ids.append(np.asarray(of_text, np.int32))
    sizes.append(np.asarray(lengths, np.int32))
    answer.append(np.full(len(of_text), piece.is_answer))
  return Encoded(*map(np.concatenate, (ids, answer, sizes)), lost)
