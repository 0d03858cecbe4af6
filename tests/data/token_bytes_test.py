"""Bytes of tokens: those of the text, in every kind of tokenizer and both protocols."""

import json

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import example, given
from hypothesis import strategies as st

from elas_jax.common.errors import UserError
from elas_jax.data import train_tokenizer
from elas_jax.data.packing import PROTOCOLS, row_dtype
from elas_jax.data.token_bytes import byte_lengths, lost_bytes
from elas_jax.data.tokenizers import encode_documents, load_tokenizer, parse_tokenizer
from tests.conftest import thinned

TEXTS = ['the quick brown fox\n\tjumps 12345', 'Zoë, naïve: “quoted” 水は青い 🙂🙂 e\u0301']
ALPHABET = 'abc the\t\n  é水🙂ﬁ①İñ\u0301\u200b\x07\U00010400'
CHARACTERS = st.sampled_from(ALPHABET) | st.characters(exclude_categories=['Cs'])
TEXT = st.text(CHARACTERS, max_size=40)
BYTES = [f'<0x{i:02X}>' for i in range(256)]


def byte_level(normalizer=None, prefix=False, trim=None):
  settings = json.loads(train_tokenizer.train(iter([TEXTS] * 3), 300))
  settings['pre_tokenizer']['add_prefix_space'] = prefix
  if normalizer:
    settings['normalizer'] = {'type': normalizer}
  tokenizer = hf.Tokenizer.from_str(json.dumps(settings))
  if trim is not None:
    tokenizer.post_processor = hf.processors.ByteLevel(trim_offsets=trim)
  return tokenizer


def metaspace(model):
  tokenizer = hf.Tokenizer(model)
  tokenizer.normalizer = hf.normalizers.Sequence(
    [hf.normalizers.NFKC(), hf.normalizers.Strip()]
  )
  tokenizer.pre_tokenizer = hf.pre_tokenizers.Metaspace()
  return tokenizer


def unigram(names, **options):
  scores = [(name, -1.0 - i) for i, name in enumerate(names)]
  return metaspace(hf.models.Unigram(scores, unk_id=0, **options))


def bpe(names, **options):
  vocabulary = {name: i for i, name in enumerate(names)}
  return metaspace(hf.models.BPE(vocab=vocabulary, merges=[], **options))


def word_piece():
  names = ['[UNK]', '[SEP]', 'the', 'a', '##b', '##e', 'e', 'n', 'fi', 'f', '##i', '水']
  vocabulary = {name: i for i, name in enumerate(names)}
  tokenizer = hf.Tokenizer(hf.models.WordPiece(vocabulary, unk_token='[UNK]'))
  tokenizer.normalizer = hf.normalizers.Sequence(
    [hf.normalizers.NFKC(), hf.normalizers.BertNormalizer()]
  )
  tokenizer.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
  return tokenizer


NAMES = ['<unk>', '</s>', '▁', 'a', 'b', 't', 'h', 'e', 'th', '▁the', '水', 'ñ']
MAKERS = {
  'byte level': byte_level,
  'byte level, NFC': lambda: byte_level('NFC'),
  'byte level, NFD': lambda: byte_level('NFD'),
  'byte level, NFKC': lambda: byte_level('NFKC'),
  'byte level, lower case': lambda: byte_level('Lowercase'),
  'byte level, space before': lambda: byte_level(prefix=True),
  'byte level, trimmed offsets': lambda: byte_level(trim=True),
  'byte level, space before, NFC, trimmed': lambda: byte_level('NFC', True, True),
  'unigram': lambda: unigram(NAMES),
  'unigram, byte fallback': lambda: unigram(NAMES + BYTES, byte_fallback=True),
  'bpe, byte fallback': lambda: bpe(NAMES + BYTES, unk_token='<unk>', byte_fallback=True),
  'bpe, unknown': lambda: bpe(NAMES, unk_token='<unk>', fuse_unk=True),
  'bpe, dropping': lambda: bpe(NAMES),
  'word piece': word_piece,
}


@pytest.fixture(scope='module')
def made():
  loaded = {name: parse_tokenizer(make().to_str(), name) for name, make in MAKERS.items()}
  return loaded | {'bytes': load_tokenizer('')}


@pytest.mark.parametrize('name', thinned([*MAKERS, 'bytes'], *list(MAKERS)[::5], 'bytes'))
@given(texts=st.lists(TEXT, min_size=1, max_size=4), length=st.integers(2, 64))
def test_bytes_are_those_of_the_text_in_both_protocols(made, name, texts, length):
  tokenizer = made[name]
  ((documents, lost),) = encode_documents(tokenizer, texts)
  total = sum(len(text.encode()) for text in texts)
  for text, (ids, lengths, is_last) in zip(texts, documents, strict=True):
    assert is_last
    assert lengths.dtype == np.int32
    assert ids.shape == lengths.shape
    assert (lengths >= 0).all()
    assert lengths.sum() == len(text.encode())
  assert 0 <= lost <= total
  dtype = row_dtype(length, tokenizer.vocab_size)
  # Every byte of the text but those of the first token, which nobody predicts.
  packed = PROTOCOLS['packed'](dtype, tokenizer.eos_id)
  rows = np.concatenate([packed.add(documents), packed.finish()])
  assert rows['bytes'].sum() == total - documents[0].lengths[0]
  # Here every document has a first token, and may be cut.
  rows = PROTOCOLS['document'](dtype, tokenizer.eos_id).add(documents)
  whole = [piece.lengths[1:] for piece in documents]
  kept = [x if len(x) < length else x[: length - 2] for x in whole]
  assert rows['bytes'].sum() == sum(x.sum() for x in kept)


@pytest.mark.parametrize('name', ['byte level', 'byte level, trimmed offsets'])
@given(text=TEXT)
@example(text='a  \U00010400 b')
def test_byte_level_tokens_hold_the_bytes_of_their_strings(made, name, text):
  tokenizer = made[name]
  ids, lengths = tokenizer.encode(text)
  raw = hf.Tokenizer.from_str(tokenizer.to_json())
  # Each character of a token stands for a byte, so the text is that of the tokens.
  np.testing.assert_array_equal(lengths, [len(raw.id_to_token(i)) for i in ids])


@pytest.mark.parametrize('name', ['unigram, byte fallback', 'bpe, byte fallback'])
def test_byte_fallback_is_a_byte_a_token(made, name):
  ids, lengths = made[name].encode('a🙂b éñ')
  # '▁', 'a', four bytes, 'b', '▁', two bytes, and 'ñ', which is in the vocabulary.
  np.testing.assert_array_equal(lengths, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2])
  assert len(ids) == 11


@pytest.mark.parametrize(
  'name', ['byte level', 'byte level, space before', 'byte level, trimmed offsets']
)
def test_a_split_character_in_the_document_protocol(made, name):
  tokenizer = made[name]
  text = '\U00010400 水'  # four tokens of a byte each come first
  dtype = row_dtype(64, tokenizer.vocab_size)
  ((documents, _),) = encode_documents(tokenizer, [text])
  (row,) = PROTOCOLS['document'](dtype, tokenizer.eos_id).add(documents)
  # The first token is no target: its own byte is missing, and no other.
  first = 0 if 'before' in name else 1
  assert row['bytes'] == len(text.encode()) - first


def test_offsets_that_go_back_count_no_byte_twice():
  offsets = np.array([(0, 2), (1, 1), (2, 4)])
  lengths = byte_lengths('abécd', offsets, np.array([2, 0, 3]))
  np.testing.assert_array_equal(lengths, [2, 0, 3])


def test_shared_characters_by_hand():
  # 'x' | 'y' and half of 'é' | its other half | 'fi' of one character | nothing | 'z'
  offsets = np.array([(0, 1), (1, 3), (2, 3), (3, 4), (3, 4), (4, 4), (5, 6)])
  sizes = np.array([1, 2, 1, 1, 1, 7, 1])
  lengths = byte_lengths('xyéﬁ z ', offsets, sizes)
  np.testing.assert_array_equal(lengths, [1, 2, 1, 2, 1, 0, 2])
  assert byte_lengths('é', offsets[:0], sizes[:0]).shape == (0,)


@pytest.mark.parametrize(
  ('name', 'text', 'lost'),
  [
    ('byte level', '水 🙂 \x07 anything', 0),
    ('byte level, NFC', 'e\u0301 🙂 \x07 anything', 0),
    ('byte level, NFKC', 'e\u0301 \u1112\u1161\u11ab \uff76\uff9e', 0),  # é 한 ガ
    ('unigram, byte fallback', 'anything: 🙂', 0),
    ('bytes', 'anything: 🙂', 0),
    ('unigram', 'the 🙂水 a', 4),
    ('unigram', 'the xyz🙂 a', 7),
    ('bpe, unknown', 'the xyz🙂 a', 7),
    ('bpe, dropping', 'the 🙂🙂 a', 8),  # no token at all
    ('word piece', 'the  a abé xyz\n水', 3),
    ('word piece', 'the \x07 a', 1),  # the normaliser takes it away
  ],
)
def test_text_that_no_token_tells_is_counted(made, name, text, lost):
  for _ in range(2):
    assert made[name].encode_batch([text])[1] == lost
    text, lost = f'{text} {text}', 2 * lost


def test_lost_bytes_by_hand():
  offsets = np.array([(0, 2), (2, 5), (6, 7)])
  known = np.array([True, False, True])
  assert lost_bytes('ab水 c d', offsets, known) == 4  # 水 and c; spaces are no loss
  assert lost_bytes('ab', offsets[:0], known[:0]) == 2
  assert lost_bytes('', offsets[:0], known[:0]) == 0


def test_text_is_lost_across_pieces(made, monkeypatch):
  monkeypatch.setattr('elas_jax.data.tokenizers.PIECE_CHARACTERS', 20)
  text = 'the 🙂水 a\n' * 30
  lists = list(encode_documents(made['unigram'], [text, text]))
  assert len(lists) > 10
  assert sum(lost for _, lost in lists) == 2 * 30 * 4


def test_dropout_is_switched_off_and_said():
  settings = json.loads(byte_level().to_str())
  without = parse_tokenizer(json.dumps(settings), 'x')
  assert without.notes == ()
  settings['model']['dropout'] = 0.5
  tokenizer = parse_tokenizer(json.dumps(settings), 'x.json')
  assert tokenizer.notes == (
    "data.tokenizer.path='x.json': its BPE dropout of 0.5 is switched off",
  )
  text = ' '.join(TEXTS * 10)
  for _ in range(5):
    np.testing.assert_array_equal(tokenizer.encode(text)[0], without.encode(text)[0])


@pytest.mark.parametrize('kind', ['word level', 'unigram'])
def test_a_tokenizer_that_cannot_encode_the_text(kind):
  if kind == 'unigram':
    model = hf.models.Unigram([('a', -1.0), ('</s>', -1.0)])
  else:
    model = hf.models.WordLevel({'a': 0, '</s>': 1}, unk_token='[UNK]')
  tokenizer = parse_tokenizer(hf.Tokenizer(model).to_str(), 'x.json')
  with pytest.raises(
    UserError, match=r"^data\.tokenizer\.path='x\.json' cannot encode [^\n]*$"
  ):
    tokenizer.encode('b')
