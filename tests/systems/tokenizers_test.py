"""Kinds of data.tokenizer."""

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.tokenizers import bytes as bytes_room
from elas_jax.systems.tokenizers import file as file_room
from elas_jax.systems.tokenizers.bytes import Bytes
from elas_jax.systems.tokenizers.file import File


def test_bytes_are_utf8():
  text = 'Zoë 水 🙂\n'
  ids, lengths = Bytes().load().encode(text)
  np.testing.assert_array_equal(ids, bytes_room.truth(Bytes(), text))
  assert lengths.tolist() == [1] * 14


def test_a_file_is_the_tokenizer_that_it_holds(tmp_path):
  kinds = file_room.CASES(tmp_path)
  for kind in kinds:
    assert kind.is_there()
    assert kind.load().encode('fox the dog')[0].tolist() == [4, 2, 0]
  (tmp_path / 'tokenizer.json').unlink()
  assert not any(kind.is_there() for kind in kinds)
  with pytest.raises(UserError, match='^data.tokenizer.path=.* cannot be read'):
    kinds[0].load()


def test_a_file_of_the_name_bytes_is_a_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'bytes').mkdir()
  file_room.CASES(tmp_path / 'bytes')
  assert File('bytes').load().vocab_size == 5


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('', "data.tokenizer.path='': file needs the path of a tokenizer.json"),
    ('gs://x/t.json', "data.tokenizer.path='gs://x/t.json': gs:// addresses are not"),
  ],
)
def test_what_cannot_be_is_refused(path, message):
  with pytest.raises(UserError) as error:
    File(path).check('data.tokenizer', None)
  assert str(error.value).startswith(message)
