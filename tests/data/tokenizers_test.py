import json
import tracemalloc

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given
from hypothesis import strategies as st

from elas_jax.common.errors import UserError
from elas_jax.config.cli import run_command
from elas_jax.data import tokenizers as our_tokenizers
from elas_jax.data import train_tokenizer
from elas_jax.data.packing import PROTOCOLS, row_dtype
from elas_jax.data.tokenizers import encode_documents, load_tokenizer

TEXTS = [
  'the quick brown fox\n\tjumps over the lazy dog 12345',
  'Zoë, naïve: “quoted” 水は青い 🙂🙂 e\u0301',
  '  leading and trailing   \n\n',
]


@pytest.fixture(scope='module')
def bpe(tmp_path_factory):
  path = tmp_path_factory.mktemp('bpe') / 'tokenizer.json'
  path.write_text(train_tokenizer.train(iter([TEXTS] * 3), 400))
  return load_tokenizer(str(path))


@pytest.fixture(scope='module')
def t5_like(tmp_path_factory):
  """As the tokenizer of T5: Unigram, Metaspace, a normaliser, </s> appended."""
  tokenizer = hf.Tokenizer(hf.models.Unigram())
  tokenizer.normalizer = hf.normalizers.Sequence(
    [
      hf.normalizers.Nmt(),
      hf.normalizers.NFKC(),
      hf.normalizers.Replace(hf.Regex(' {2,}'), ' '),
      hf.normalizers.Strip(),
    ]
  )
  tokenizer.pre_tokenizer = hf.pre_tokenizers.Metaspace()
  tokenizer.decoder = hf.decoders.Metaspace()
  trainer = hf.trainers.UnigramTrainer(
    vocab_size=80,
    special_tokens=['<pad>', '</s>', '<unk>', '<s>'],
    unk_token='<unk>',
    show_progress=False,
  )
  tokenizer.train_from_iterator(TEXTS * 5, trainer)
  tokenizer.post_processor = hf.processors.TemplateProcessing(
    single='$A </s>', special_tokens=[('</s>', tokenizer.token_to_id('</s>'))]
  )
  tokenizer.enable_truncation(5)
  tokenizer.enable_padding(length=9)
  path = tmp_path_factory.mktemp('t5') / 'tokenizer.json'
  tokenizer.save(str(path))
  return load_tokenizer(str(path))


def encode_whole(tokenizer, text):
  return [piece for pieces, _ in encode_documents(tokenizer, [text]) for piece in pieces]


def check_bytes(tokenizer, text):
  ids, lengths = tokenizer.encode(text)
  assert ids.dtype == np.uint32
  assert lengths.dtype == np.int32
  assert ids.shape == lengths.shape
  assert (lengths >= 0).all()
  assert (ids < tokenizer.vocab_size).all()
  assert tokenizer.eos_id not in ids
  pieces = encode_whole(tokenizer, text)
  assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
  with_end = np.concatenate([piece.lengths for piece in pieces])
  assert with_end.dtype == np.int32
  assert with_end.sum() == len(text.encode())
  assert with_end.min() >= 0
  assert pieces[-1].ids[-1] == tokenizer.eos_id
  return pieces


@given(text=st.text())
def test_bytes_round_trip(text):
  tokenizer = load_tokenizer('')
  check_bytes(tokenizer, text)
  assert tokenizer.decode(tokenizer.encode(text)[0]) == text


def test_bytes_decode_drops_specials_and_replaces_broken_text():
  tokenizer = load_tokenizer('')
  assert tokenizer.vocab_size == 257
  assert tokenizer.decode([104, 256, 105, 300]) == 'hi'
  assert tokenizer.decode([104, 0xC3]) == 'h\ufffd'


@given(text=st.text())
def test_bpe_round_trip(bpe, text):
  check_bytes(bpe, text)
  assert bpe.decode(bpe.encode(text)[0]) == text


def test_text_that_looks_like_an_end_token_is_text(bpe):
  text = 'a<|endoftext|>b'
  check_bytes(bpe, text)
  assert bpe.decode(bpe.encode(text)[0]) == text


@given(text=st.text(alphabet=st.sampled_from('abc the\t\n  é水🙂ﬁ①\u0301\u200b\x07')))
def test_t5_like_covers_all_bytes(t5_like, text):
  check_bytes(t5_like, text)


def test_t5_like_neither_cuts_nor_pads_nor_appends(t5_like):
  ids, lengths = t5_like.encode(TEXTS[0])
  assert len(ids) > 9
  assert len(t5_like.encode('the')[0]) < 9
  assert t5_like.decode(ids) == TEXTS[0].replace('\n\t', ' ')
  assert t5_like.eos_id == 1
  # Stripped spaces at the start belong to the first token, at the end to none.
  lengths = t5_like.encode('   the  ')[1]
  assert lengths.sum() == 6
  assert lengths[0] >= 3


def test_batch_is_one_by_one(bpe):
  for batch, alone in zip(bpe.encode_batch(TEXTS)[0], map(bpe.encode, TEXTS)):
    np.testing.assert_array_equal(batch[0], alone[0])
    np.testing.assert_array_equal(batch[1], alone[1])


def test_long_documents_are_encoded_in_pieces(bpe, t5_like, monkeypatch):
  text = '\n'.join(TEXTS * 3)
  monkeypatch.setattr(our_tokenizers, 'PIECE_CHARACTERS', 40)
  for tokenizer in (bpe, t5_like, load_tokenizer('')):
    pieces = check_bytes(tokenizer, text)
    assert len(pieces) > 5
    assert max(len(piece.ids) for piece in pieces) < len(text) / 2
  ids = np.concatenate([piece.ids for piece in check_bytes(bpe, text)])
  assert bpe.decode(ids[:-1]) == text
  # Several documents: each ends once, and lists are of bounded size.
  lists = [pieces for pieces, _ in encode_documents(bpe, [text, 'x', '', text])]
  pieces = sum(lists, [])
  assert max(sum(len(piece.ids) for piece in pieces) for pieces in lists) < 100
  assert sum(piece.is_last for piece in pieces) == 4
  # Pieces without a token leave their bytes to the next one that has some.
  pieces = check_bytes(t5_like, 'a' + ' ' * 100 + 'b' + ' ' * 50)
  lengths = np.concatenate([piece.lengths for piece in pieces])
  assert lengths[-1] == 50
  assert lengths[:-1].sum() == 102


@pytest.mark.parametrize('protocol', ['packed', 'document'])
def test_a_long_document_is_encoded_in_little_memory(protocol):
  text = 'x' * (32 << 20)
  tokenizer = load_tokenizer('')
  rows_of = PROTOCOLS[protocol](row_dtype(128, 257), 256)
  tracemalloc.start()
  try:
    rows = sum(len(rows_of.add(p)) for p, _ in encode_documents(tokenizer, [text]))
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert rows == (len(text) // 128 if protocol == 'packed' else 1)
  assert peak < 4 * len(text)  # whole it takes 20 times its size


@pytest.mark.parametrize('name', ['bytes', 'bpe'])
def test_save_and_load(name, bpe, tmp_path):
  tokenizer = load_tokenizer('') if name == 'bytes' else bpe
  path = tokenizer.save(tmp_path)
  for spec in (path, tmp_path):
    again = load_tokenizer(str(spec))
    assert again.fingerprint == tokenizer.fingerprint
    for text in TEXTS:
      np.testing.assert_array_equal(again.encode(text)[0], tokenizer.encode(text)[0])


def test_end_token_is_the_first_known_one(tmp_path):
  vocabulary = {'a': 0, '<s>': 1, '<eos>': 2}
  tokenizer = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token='a'))
  tokenizer.add_tokens(['beyond'])
  tokenizer.save(str(tmp_path / 'tokenizer.json'))
  loaded = load_tokenizer(str(tmp_path))
  assert loaded.eos_id == 2
  assert loaded.vocab_size == 4


@pytest.mark.parametrize('content', [None, 'not json', '{}', '[]', b'\xff'])
def test_unusable_file(content, tmp_path):
  path = tmp_path / 'x.json'
  if isinstance(content, bytes):
    path.write_bytes(content)
  elif content is not None:
    path.write_text(content)
  with pytest.raises(UserError, match=r"^data\.tokenizer\.path='.*x\.json'.*bytes.*$"):
    load_tokenizer(str(path))


def test_without_end_token(tmp_path):
  model = hf.models.WordLevel({'a': 0}, unk_token='a')
  hf.Tokenizer(model).save(str(tmp_path / 'tokenizer.json'))
  with pytest.raises(UserError, match=r'^data\.tokenizer\.path=.*</s>'):
    load_tokenizer(str(tmp_path))


def test_train_command_is_deterministic(make_corpus, corpus, tmp_path, capsys):
  config = make_corpus()
  contents = []
  for name in ('a.json', 'b.json'):
    output = tmp_path / 'new' / name
    arguments = [f'--path={config.path}', f'--cache_dir={config.cache_dir}']
    arguments += ['--source=text_files', '--vocab_size=300', f'--output={output}']
    train_tokenizer.main(arguments)
    contents.append(output.read_text())
  assert contents[0] == contents[1]
  assert len(json.loads(contents[0])['model']['vocab']) == 300
  assert load_tokenizer(str(output)).vocab_size == 300
  assert sorted(p.name for p in output.parent.iterdir()) == ['a.json', 'b.json']


def test_who_lacks_a_file_of_a_config_is_told_where_to_look(tmp_path):
  words = 'No such file.*; the head of a config file that names one says what makes it'
  with pytest.raises(UserError, match=f'^data.tokenizer.path=.*{words}; data.tok'):
    load_tokenizer(str(tmp_path / 'tokenizer.json'))
  (tmp_path / 'tokenizer.json').write_text('{')
  with pytest.raises(UserError) as error:
    load_tokenizer(str(tmp_path))
  assert 'the head of' not in str(error.value)


def test_file_of_brackets_is_refused(tmp_path):
  path = tmp_path / 'tokenizer.json'
  for content in ('[' * 100_000, '{"a":' * 100_000, '[' * 100_000 + ']' * 100_000):
    path.write_text(content)
    with pytest.raises(UserError, match='^data.tokenizer.path=.* cannot be read'):
      load_tokenizer(str(path))


def test_train_command_errors_are_one_line(tmp_path, capsys):
  output = f'--output={tmp_path}/x.json'
  with pytest.raises(SystemExit, match='2'):
    run_command(lambda: train_tokenizer.main(['--vocab_size=10', output]))
  accepted = 'must be an integer from 257 to 16777216'
  assert capsys.readouterr().err == f"error: argument --vocab_size: '10': {accepted}\n"
  for wrong, field in [
    (f'--vocab_size={10**12}', 'argument --vocab_size'),
    (f'--vocab_size={10**30}', 'argument --vocab_size'),
    ('--validation_share=nan', 'data.source.validation_share=nan'),
    ('--max_bad_share=nan', 'data.max_bad_share=nan'),
  ]:
    with pytest.raises(SystemExit, match='2'):
      run_command(lambda wrong=wrong: train_tokenizer.main([wrong, output]))
    error = capsys.readouterr().err
    assert error.startswith(f'error: {field}')
    assert error.count('\n') == 1
  missing = ['--source=text_files', f'--path={tmp_path}/missing', output]
  with pytest.raises(SystemExit, match='2'):
    run_command(lambda: train_tokenizer.main(missing))
  error = capsys.readouterr().err
  assert error.startswith('error: data.source.path=')
  assert error.count('\n') == 1
