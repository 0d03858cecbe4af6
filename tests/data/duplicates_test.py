import numpy as np

from elas_jax.data.duplicates import count_shared, document_hashes, note


def test_documents_of_both_splits_are_counted(tmp_path):
  splits = {
    'train': [[b'a', b'b', b'b'], [], [b'c', b'd']],
    'validation': [[b'x', b'c', b'c'], [b'b', b'y']],
  }
  paths = {name: [] for name in splits}
  for name, shards in splits.items():
    for i, documents in enumerate(shards):
      paths[name].append(tmp_path / f'{name}{i}')
      document_hashes(documents).tofile(paths[name][-1])
  # c twice, and b.
  assert count_shared(paths['train'], paths['validation']) == 3
  assert count_shared(paths['train'], paths['validation'][:1]) == 2
  assert count_shared(paths['train'][1:2], paths['validation']) == 0


def test_hashes_tell_documents_apart():
  found = document_hashes(str(i).encode() for i in range(1000))
  assert found.dtype == np.uint64
  assert len(np.unique(found)) == 1000
  assert document_hashes([]).shape == (0,)


def test_note():
  assert note(0, 'documents', 7) == []
  assert note(3, 'documents', 7) == [
    '3 of 7 documents of the validation split are equal to some of the train split'
  ]
