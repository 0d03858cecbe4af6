"""The memory table at tiny sizes, by hand."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import table2_memory as table2
from configs import c4
from elas_jax.common.errors import UserError
from elas_jax.systems.feed_forwards.mlp import MLP
from elas_jax.systems.linears.low_rank import LowRank

B, L = 2, 96
T, D, F, R = B * L, 128, 528, 32  # of the size tiny
I = 352  # F of SwiGLU


def kept(row):
  return table2.residual_bytes(table2.config_of('tiny', row, B, L).model, B, L)


def test_bytes_counted_by_hand():
  assert table2.config_of('tiny', 'ELAS exact', B, L).model.feed_forward_width == F
  x, x_a, z_a = 2 * T * D, 2 * T * R, 2 * T * R
  wide = 2 * T * F
  # F pads to 5 tiles of 128 entries, T to 3 of 64 rows; a tile has 256 words.
  packed = wide // 2 + 5 * 3 * 256 * 4
  assert kept('low-rank relu2') == {'wide': 2 * wide, 'rest': x + x_a + z_a}
  assert kept('ELAS exact') == {'wide': packed, 'rest': x + x_a + z_a}
  assert kept('ELAS transposable') == kept('ELAS exact')
  assert kept('ELAS split')['wide'] == packed + 4 * F
  assert kept('ELAS straight_through')['wide'] == packed + wide
  assert kept('ELAS straight_through_dense')['wide'] == wide
  # gate, up and their product; x once, though two maps read it.
  gated = 2 * T * I
  assert kept('dense SwiGLU') == {'wide': 3 * gated, 'rest': x}
  assert kept('low-rank SwiGLU') == {'wide': 3 * gated, 'rest': x + 3 * x_a}


def test_arrays_count_once_and_reshapes_as_what_they_reshape():
  def vjp(x):
    y = jnp.sin(x)
    return x, x.reshape(-1), y, y.reshape(4, 2), y, jnp.cos(x)

  jaxpr = jax.make_jaxpr(vjp)(jnp.ones((2, 4))).jaxpr
  saved = table2.saved_arrays(jaxpr)
  assert saved == [jaxpr.invars[0], jaxpr.outvars[2], jaxpr.outvars[5]]


def test_a_width_that_cannot_be_told_apart_is_refused():
  model = table2.config_of('tiny', 'ELAS exact', B, L).model
  with pytest.raises(UserError, match='feed_forward_width equals'):
    table2.residual_bytes(dataclasses.replace(model, feed_forward_width=D), B, L)


def run(tmp_path, *arguments):
  """Exit code of the command."""
  options = ['--sizes=tiny', '--batch=4', '--length=64', f'--output={tmp_path}']
  with pytest.raises(SystemExit) as exit:
    table2.main([*options, *arguments])
  return exit.value.code


def test_files_exit_code_and_last_line(tmp_path, monkeypatch, capsys):
  assert run(tmp_path, '--no_step') == 0
  output = capsys.readouterr().out
  # Half of one of two tensors, and a bit for each of F = 528 entries padded to 640.
  ratio = 1 / 4 + 640 / 528 / 32
  assert output.splitlines()[-1] == f'worst exact/dense residual ratio {ratio:.4f}'
  stem = 'cpu_batch4_length64'
  assert {path.name for path in tmp_path.iterdir()} == {
    f'{stem}.json',
    f'{stem}.md',
    f'{stem}.png',
  }
  result = json.loads((tmp_path / f'{stem}.json').read_text())
  assert set(result['cells']['tiny']) == set(table2.ROWS)
  assert result['run']['commit']
  text = (tmp_path / f'{stem}.md').read_text()
  assert "[S: from a third party's summary" in text and 'dense warm-up' in text
  assert text in output and f'| tiny | ELAS exact | 0.16 | 0.10 | {ratio:.3f} |' in text
  monkeypatch.setattr(table2, 'LARGEST_RATIO', ratio - 1e-3)
  assert run(tmp_path, '--no_step') == 1


def test_finished_cells_are_kept_unless_the_code_changed(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(
    table2, 'temporary_bytes', lambda config: {'step': 7, 'step_remat': 5}
  )
  monkeypatch.setattr(table2, 'residual_bytes', lambda *_: {'wide': 8, 'rest': 1})
  run(tmp_path)
  rows = len(table2.ROWS)
  assert capsys.readouterr().err.count('\n') == 2 * rows
  run(tmp_path)
  assert not capsys.readouterr().err
  path = tmp_path / 'cpu_batch4_length64.json'
  result = json.loads(path.read_text())
  del result['cells']['tiny']['ELAS split']['step']
  result['cells']['60m'] = {'dense SwiGLU': {}}  # another size, cut short
  path.write_text(json.dumps(result))
  run(tmp_path)
  assert capsys.readouterr().err == f'[{rows + 6}/{2 * rows}] step tiny ELAS split\n'
  monkeypatch.setattr(table2, 'code_hash', lambda: 'another')
  run(tmp_path, '--no_step')
  assert capsys.readouterr().err.count('\n') == rows


def test_steps_are_compiled_without_and_with_remat(monkeypatch):
  compiled = lambda config, mesh, state, step: (config.model.remat, config.model.linear)
  low_rank = LowRank(rank=R)
  monkeypatch.setattr(table2, 'step_bytes', compiled)
  config = table2.config_of('tiny', 'ELAS split', 4, 64)
  expected = {'step': ('none', low_rank), 'step_remat': ('full', low_rank)}
  assert table2.temporary_bytes(config) == expected
  # Nothing but the feed-forward differs between rows of the same linear maps.
  base = table2.config_of('tiny', 'low-rank relu2', 4, 64)
  assert dataclasses.replace(config.model, feed_forward=MLP()) == base.model
  assert dataclasses.replace(config, model=base.model) == base


def test_sizes_are_checked():
  with pytest.raises(UserError, match='unrecognized arguments: --size=60m'):
    table2.main(['--size=60m'])
  with pytest.raises(UserError, match='--sizes=60m,2b: must be of'):
    table2.main(['--sizes=60m,2b'])
  with pytest.raises(UserError, match="--batch: '0': must be an integer from 1"):
    table2.main(['--batch=0'])
  assert set(c4.SIZES) >= {'60m', '130m', '350m', '1b'}
