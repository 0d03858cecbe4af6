import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elas_jax.data.packing import DocumentRows, PackedRows, Piece, row_dtype

EOS = 256


def encode(texts):
  """Whole documents of bytes."""
  return [
    Piece(
      np.array([*text.encode(), EOS], np.uint32),
      np.array([1] * len(text.encode()) + [0], np.int32),
      True,
    )
    for text in texts
  ]


def cut(document, places):
  """The document in pieces that end at these tokens."""
  edges = sorted({min(place, len(document.ids)) for place in places} | {0})
  edges = [*edges, len(document.ids)] if edges[-1] < len(document.ids) else edges
  return [
    Piece(document.ids[a:b], document.lengths[a:b], b == len(document.ids))
    for a, b in zip(edges, edges[1:])
  ]


@given(
  batches=st.lists(st.lists(st.text(max_size=30), max_size=5), max_size=5),
  length=st.integers(2, 20),
)
def test_packed_targets_are_the_token_stream_exactly_once(batches, length):
  rows_of = PackedRows(row_dtype(length, 257), EOS)
  rows = [rows_of.add(encode(texts)) for texts in batches] + [rows_of.finish()]
  rows = np.concatenate(rows)
  documents = encode([text for texts in batches for text in texts])
  stream = np.concatenate([np.zeros(0, int), *(ids for ids, *_ in documents)])
  covered = np.concatenate([np.zeros(0, int), *(lengths for _, lengths, _ in documents)])

  targets = [row['tokens'][1 : row['valid'] + 1] for row in rows]
  np.testing.assert_array_equal(np.concatenate([np.zeros(0, int), *targets]), stream[1:])
  assert rows['bytes'].sum() == covered[1:].sum()
  # The inputs are the tokens before the targets.
  for row, start in zip(rows, range(0, len(stream), length)):
    count = row['valid']
    np.testing.assert_array_equal(row['tokens'][:count], stream[start : start + count])
    assert (row['tokens'][count + 1 :] == EOS).all()
  assert (rows['valid'] > 0).all()
  assert (rows['valid'][:-1] == length).all()


def test_packed_drops_a_window_without_targets():
  rows_of = PackedRows(row_dtype(4, 257), EOS)
  rows = rows_of.add(encode(['abcd']))  # five tokens: one full window, one left over
  np.testing.assert_array_equal(rows['tokens'], [[97, 98, 99, 100, EOS]])
  np.testing.assert_array_equal(rows['bytes'], [3])
  assert len(rows_of.finish()) == 0


@pytest.mark.parametrize(
  ('text', 'tokens', 'valid', 'covered'),
  [
    ('ab', [97, 98, EOS, EOS, EOS], 2, 1),  # padded
    ('abc', [97, 98, 99, EOS, EOS], 3, 2),  # exactly L tokens
    ('abcd', [97, 98, 99, EOS, EOS], 3, 2),  # cut, keeps the end of the document
    ('abcdefgh', [97, 98, 99, EOS, EOS], 3, 2),
  ],
)
def test_document_is_one_row(text, tokens, valid, covered):
  rows = DocumentRows(row_dtype(4, 257), EOS).add(encode([text]))
  np.testing.assert_array_equal(rows['tokens'], [tokens])
  assert (rows['valid'][0], rows['bytes'][0]) == (valid, covered)


def test_document_without_targets_is_dropped():
  rows_of = DocumentRows(row_dtype(4, 257), EOS)
  rows = rows_of.add(encode(['', 'x', '']))
  np.testing.assert_array_equal(rows['tokens'], [[120, EOS, EOS, EOS, EOS]])
  assert len(rows_of.finish()) == 0


@pytest.mark.parametrize('protocol', [PackedRows, DocumentRows])
@given(
  texts=st.lists(st.text(max_size=30), max_size=4),
  places=st.lists(st.integers(1, 40), max_size=4),
  length=st.integers(2, 20),
)
def test_pieces_of_documents_give_the_same_rows(protocol, texts, places, length):
  dtype = row_dtype(length, 257)
  documents = encode(texts)
  whole, by_piece = protocol(dtype, EOS), protocol(dtype, EOS)
  expected = [whole.add(documents), whole.finish()]
  pieces = [piece for document in documents for piece in cut(document, places)]
  found = [*(by_piece.add([piece]) for piece in pieces), by_piece.finish()]
  empty = np.zeros(0, dtype)
  np.testing.assert_array_equal(
    np.concatenate([empty, *found]), np.concatenate([empty, *expected])
  )


@pytest.mark.parametrize(('vocab_size', 'size'), [(65536, 2), (65537, 4)])
def test_layout_of_a_row(vocab_size, size):
  dtype = row_dtype(8, vocab_size)
  assert dtype.itemsize == 8 + 9 * size
  row = np.zeros(1, dtype)
  row['valid'], row['bytes'], row['tokens'][0, 0] = 1, 2, vocab_size - 1
  head = np.frombuffer(row.tobytes()[:8], '<i4')
  ids = np.frombuffer(row.tobytes()[8:], f'<u{size}')
  np.testing.assert_array_equal(head, [1, 2])
  assert ids[0] == vocab_size - 1
