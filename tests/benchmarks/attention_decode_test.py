"""The benchmark of decoding: equal outputs both ways, caches by hand, and its table."""

import json

import jax
import numpy as np
import pytest

from benchmarks import attention_decode, microbenchmark
from elas_jax.common.memory import tree_bytes


def test_both_ways_of_latent_attention_give_the_same():
  outputs = []
  for name in ('mla', 'mla, formed'):
    kind, parts = attention_decode.kinds(True)[name], attention_decode.parts(True)
    step = attention_decode.Decoding(kind, parts, 2, 32)
    assert kind.absorbs(parts, 1) == (name == 'mla')
    outputs.append(step())
    np.testing.assert_array_equal(step(), outputs[-1])  # with the state that it has written
  assert np.ptp(outputs[0]) > 0.01
  np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5 * np.abs(outputs[0]).max())


@pytest.fixture
def optimised():
  """The other tests do without XLA's optimisations; what it fuses is what memory is."""
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


@pytest.mark.conformance
def test_a_step_copies_no_cache_and_forms_no_keys(optimised):
  """Beside its scores, and their exponentials, of 2 rows, 16 heads and 2048 positions."""
  scores = 4 * 2 * 16 * 2048
  kinds, parts = attention_decode.kinds(True), attention_decode.parts(True)
  temporary = {}
  for name in ('mla', 'mla, formed', 'mha'):
    step = attention_decode.Decoding(kinds[name], parts, 2, 2048)
    temporary[name] = microbenchmark.temporary_bytes(step.program)
  assert tree_bytes(step.state) == 8 * scores  # of mha: keys and values of four entries
  few = 2.2 * scores
  assert temporary['mla'] < few and temporary['mha'] < few
  assert temporary['mla, formed'] > 10 * scores  # keys of six entries, values of four


# Numbers of a token in the caches of 16 heads of 128.
CACHES = {'mla': 512 + 64, 'mha': 2 * 16 * 128, 'gqa': 2 * 4 * 128, 'sqa': 2 * 4 * 128}


@pytest.mark.parametrize('name', CACHES)
def test_caches_of_the_measured_sizes(name):
  kind, parts = attention_decode.kinds(False)[name], attention_decode.parts(False)
  state = jax.eval_shape(lambda: kind.empty_state(parts, 1, 1))
  assert sum(x.size for x in state.values()) == CACHES[name]


def test_a_smoke_run_writes_its_table(tmp_path, monkeypatch):
  few = {name: attention_decode.kinds(True)[name] for name in ('mla', 'mha')}
  monkeypatch.setattr(attention_decode, 'kinds', lambda smoke: few)
  attention_decode.main(['--smoke', '--repetitions=1', f'--output={tmp_path}'])
  (path,) = tmp_path.glob('*.json')
  (case,) = json.loads(path.read_text())['cases']
  # Two rows of 32 positions in float32.
  assert case['cache_bytes'] == {'mla': 2 * 32 * 4 * (16 + 2), 'mha': 2 * 32 * 4 * 2 * 64}
  text = path.with_suffix('.md').read_text()
  assert 'A smoke run' in text and '| batch 2 | mla | ' in text and ' | 0.141 | ' in text
