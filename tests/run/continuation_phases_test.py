"""A run that goes on with other numbers of steps: what may move, and what is said of it."""

import pathlib

import pytest

from configs import default
from elas_jax.common.errors import UserError
from elas_jax.config.config import to_tree
from elas_jax.config.overrides import set_field
from elas_jax.config.parsing import parse
from elas_jax.run.continuation import Past, check_config
from elas_jax.train import train
from tests.finished_runs import notes

WHERE = 'model.feed_forward'


@pytest.fixture
def elas(make_config):
  """make(steps, dense_steps, pruned_steps) of a pruned run."""

  def make(steps, dense, pruned=0):
    fields = {f'{WHERE}.dense_steps': dense, f'{WHERE}.pruned_steps': pruned}
    return make_config(**{WHERE: 'relu2_two_four', 'train.steps': steps} | fields)

  return make


def continued(old, done, new):
  """What is said of it after so many steps."""
  return check_config(Past(pathlib.Path('run'), done, to_tree(old), {}, None), new)


@pytest.mark.parametrize(
  'old, done, new, names, step, flags',
  [
    ((40, 4), 12, (41, 20), 'dense_steps=20', 5, 'dense_steps=4'),
    ((40, 4), 5, (41, 20), 'dense_steps=20', 5, 'dense_steps=4'),
    ((40, 4), 4, (36, 3), 'dense_steps=3', 4, 'dense_steps=4'),
    ((40, 4, 10), 20, (80, 4, 20), 'pruned_steps=20', 15, 'pruned_steps=10'),
    ((40, 4, 10), 20, (80, 4), 'pruned_steps=0', 15, 'pruned_steps=10'),
    ((100, 0.1), 100, (1000, 0.1), 'dense_steps=100', 11, 'dense_steps=10'),
  ],
)
def test_no_step_that_is_done_comes_into_another_phase(
  elas, old, done, new, names, step, flags
):
  with pytest.raises(UserError) as error:
    continued(elas(*old), done, elas(*new))
  assert str(error.value) == (
    f'{WHERE}.{names}: the run in run has done {done} steps, of which step {step} was in '
    f'another phase; give --config.{WHERE}.{flags}, what it was started with, or another '
    '--workdir'
  )


def test_both_numbers_are_named_where_both_moved(elas):
  with pytest.raises(UserError) as error:
    continued(elas(40, 4, 10), 20, elas(80, 8, 20))
  assert f'{WHERE}.dense_steps=8, {WHERE}.pruned_steps=20: the run' in str(error.value)
  flags = f'give --config.{WHERE}.dense_steps=4 --config.{WHERE}.pruned_steps=10, what'
  assert flags in str(error.value)


def test_phases_that_are_to_come_move_and_are_said(elas):
  moved = 'train.steps 40 -> 41, and with it model.feed_forward.dense_steps 4 -> 20'
  assert continued(elas(40, 4), 4, elas(41, 20)) == [moved]
  (said,) = continued(elas(40, 4, 30), 20, elas(80, 4, 50))
  assert said.endswith('model.feed_forward.pruned_steps 30 -> 50')
  # A finished run whose dense steps were a share goes on by their number.
  assert continued(elas(100, 0.1), 100, elas(1000, 10)) == []


def test_all_numbers_of_steps_of_a_short_run_may_move():
  """Also re-warm-ups, which are shorter where few steps lie between restarts."""
  short, longer = default.get_config('loro'), default.get_config('loro')
  short.train.steps, longer.train.steps = 12, 100
  short, longer = parse(short), parse(longer)
  (said,) = continued(short, 12, longer)
  assert 'schedule.restart_warmup_steps 1 -> 5' in said


def test_stages_that_are_shares_move_and_are_said():
  def staged(steps, stages):
    config = default.get_config('full')
    config.train.steps = steps
    at = 'train.objectives.l1_activations.schedule'
    set_field(config, 'train.objectives', 'l1_activations')
    set_field(config, at, 'half_sine_stages')
    set_field(config, f'{at}.stages', stages)
    return parse(config)

  short = staged(40, '0.1:0.5,1:1.0')
  assert short.train.objectives[0].schedule.stages == '0.1:20,1:40'
  (said,) = continued(short, 10, staged(120, '0.1:0.5,1:1.0'))
  assert 'schedule.stages 0.1:20,1:40 -> 0.1:60,1:120' in said
  (said,) = continued(short, 10, staged(120, '0.1:20,1:40'))
  assert 'stages' not in said


def test_what_moved_is_noted(make_config, corpus, tmp_path, capsys):
  train(make_config(**{'train.steps': 4}), tmp_path / 'run')
  train(make_config(**{'schedule.warmup_steps': 3}), tmp_path / 'run')
  said = 'train.steps 4 -> 8, and with it schedule.warmup_steps 2 -> 3'
  assert notes(tmp_path / 'run') == [(4, said)]
  assert said in capsys.readouterr().out
