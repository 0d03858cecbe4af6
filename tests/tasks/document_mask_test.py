"""data.document_mask: a packed row is its documents, each as if it stood alone."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from elas_jax.config.config import to_json
from elas_jax.config.overrides import choose, set_fields
from elas_jax.config.parsing import parse, parse_stored
from elas_jax.data.packing import segments
from elas_jax.models.decoder import Decoder
from elas_jax.systems.kinds import room
from elas_jax.systems.mixers import MIXERS
from elas_jax.systems.positions import POSITIONS
from elas_jax.tasks.language import LANGUAGE, forward
from tests.conftest import thinned

EOS = 256


def config_of(**kinds):
  config = default.get_config()
  small = {'width': 16, 'layers': 2, 'unroll': 1, 'feed_forward_width': 32, 'init_std': 0.3}
  set_fields(config, {f'model.{name}': value for name, value in small.items()})
  choose(config, 'model.linear', 'dense')
  for name, kind in kinds.items():
    fields = {}
    if name == 'attention':  # in sizes of tests
      fields = dataclasses.asdict(room(MIXERS[kind]).CASES[0])
    choose(config, f'model.{name}', kind, **fields)
  return parse(config)


def row():
  """(1, 129) of six documents, an empty one and two that are cut among them."""
  random = np.random.default_rng(0)
  ids = [random.integers(0, EOS, length) for length in (20, 37, 0, 1, 60, 30)]
  tokens = np.concatenate([[EOS, *document] for document in ids])[1:130]
  return tokens[None].astype(np.int32)


def variables_of(config):
  init = jax.jit(Decoder(config.model).init)
  return {'buffers': {}} | init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))


def batch_of(tokens, valid, numbers=None):
  batch = {'tokens': jnp.asarray(tokens), 'valid': jnp.asarray(valid)}
  batch['bytes'] = batch['valid']
  return batch if numbers is None else batch | {'segments': jnp.asarray(numbers)}


@functools.partial(jax.jit, static_argnums=0)
def loss_of(config, variables, batch):
  return forward(config, variables, batch, jax.random.key(0), False).sums['loss']


def documents_of(tokens, numbers):
  """Each document of a row in a row of its own, filled up, and how many targets it has."""
  rows = np.full((numbers.max() + 1, tokens.shape[1]), EOS, np.int32)
  valid = np.bincount(numbers[0])
  for number, count in enumerate(valid):
    (places,) = np.nonzero(numbers[0] == number)
    rows[number, : count + 1] = tokens[0, places[0] : places[0] + count + 1]
  return rows, valid


def test_segments_by_hand():
  tokens = np.array([[7, 8, EOS, 9, EOS, EOS, 5], [EOS, 1, 2, 3, 4, 5, EOS]])
  # The end of a document is where the next one begins, and as a target its own.
  assert segments(tokens, EOS).tolist() == [[0, 0, 1, 1, 2, 3], [1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize(
  'mixer, position',
  thinned(
    [(mixer, position) for mixer in MIXERS for position in POSITIONS],
    *(('mha', 'rope'), ('linear_attention', 'learned')),
  ),
)
def test_a_packed_row_has_the_loss_of_its_documents_alone(mixer, position):
  config, tokens = config_of(attention=mixer, position=position), row()
  variables, numbers = variables_of(config), segments(row(), EOS)
  whole = float(loss_of(config, variables, batch_of(tokens, [128], numbers)))
  alone, valid = documents_of(tokens, numbers)
  assert valid.tolist() == [20, 38, 1, 2, 61, 6]
  apart = float(loss_of(config, variables, batch_of(alone, valid)))
  assert whole == pytest.approx(apart, 1e-5)
  joined = float(loss_of(config, variables, batch_of(tokens, [128])))
  assert abs(joined - whole) > 1e-3 * whole


@pytest.mark.parametrize('mixer', MIXERS)
def test_no_document_has_a_gradient_by_another(mixer):
  config, tokens = config_of(attention=mixer), row()
  model, numbers = config.model, segments(row(), EOS)
  parameters = variables_of(config)['params']

  def logits_by_table(table):  # (positions, V, D): which rows of the table a position sees
    now = {'params': parameters | {'embedding': table}}
    logits, _ = Decoder(model).apply(now, tokens[:, :-1], segments_BxL=numbers)
    return logits[0].sum(-1)

  seen = np.abs(jax.jit(jax.jacrev(logits_by_table))(parameters['embedding'])).sum(-1)
  for place, number in enumerate(numbers[0]):
    before = tokens[0, : place + 1][numbers[0, : place + 1] == number]
    assert set(np.flatnonzero(seen[place])) == set(before.tolist())


def test_positions_beyond_a_table_are_those_of_the_document():
  """With learned positions a document may stand anywhere in a row."""
  config = config_of(position='learned')
  variables, document = variables_of(config), row()[:, 20:40]
  apply = jax.jit(
    lambda tokens, numbers: Decoder(config.model).apply(
      variables, tokens, segments_BxL=numbers
    )[0]
  )
  alone = apply(document, np.zeros((1, 20), np.int32))
  behind = np.concatenate([row()[:, :50], document], axis=1)
  numbers = np.repeat([[0, 1]], [50, 20], axis=1)
  np.testing.assert_allclose(apply(behind, numbers)[:, 50:], alone, rtol=1e-4, atol=1e-4)


def test_prepared_rows_say_their_documents(tmp_path):
  (tmp_path / 'text').mkdir()
  for number in range(60):
    (tmp_path / f'text/{number}.txt').write_text(f'document {number} ' * (number % 7 + 1))
  config = default.get_config()
  choose(config, 'data.source', 'text_files', path=str(tmp_path / 'text'))
  fields = {'data.cache_dir': str(tmp_path / 'cache'), 'data.source.validation_share': 0.3}
  set_fields(config, fields | {'data.processes': 1})
  masked = parse(config)
  assert masked.data.document_mask
  data = LANGUAGE.prepare(masked)
  for blocks in (data.train, data.validation):
    batch = blocks.read(range(len(blocks)))
    assert (batch['segments'] == segments(batch['tokens'], EOS)).all()
    assert batch['segments'].max() > 1
    assert {x: v.shape[1:] for x, v in batch.items()} == {
      name: x.shape[1:] for name, x in LANGUAGE.rows(masked, 2).items()
    }
  set_fields(config, {'data.document_mask': False})
  plain = LANGUAGE.prepare(parse(config)).train
  assert 'segments' not in plain.read([0])
  assert plain.fingerprint == data.train.fingerprint
  # The blocks are the same files, whatever is said of them.
  assert len([x for x in (tmp_path / 'cache/blocks').iterdir() if x.is_dir()]) == 1


def test_one_document_a_row_has_nothing_to_hide():
  config = default.get_config()
  config.data.protocol = 'document'
  assert not parse(config).data.document_mask
  assert 'segments' not in LANGUAGE.rows(parse(config), 2)


def test_runs_of_before_saw_across_documents():
  new = parse(default.get_config())
  tree = json.loads(to_json(new))
  del tree['data']['document_mask']
  old = parse_stored(tree | {'version': 2})
  assert not old.data.document_mask
  assert dataclasses.replace(old, data=new.data) == new
  assert parse_stored(json.loads(to_json(new))) == new
