"""Shares of train.steps that come to no step, and limits of what follows a field."""

import pytest
from ml_collections import ConfigDict

from configs import default
from elas_jax.config.overrides import apply, at_least, at_most
from elas_jax.config.parsing import parse

WHERE = 'model.feed_forward'


def phases(config, *flags):
  """(Dense steps, pruned steps) of 12 steps."""
  apply(config, [f'--config.{flag}' for flag in ('train.steps=12', *flags)])
  kind = parse(config).model.feed_forward
  return kind.dense_steps, kind.pruned_steps


@pytest.mark.parametrize('share', [0.0001, 0.08])
def test_a_share_of_steps_is_at_least_one_of_them(share):
  """None with pruning would be all, and none of warm-up no warm-up."""
  flags = f'{WHERE}=relu2_two_four', f'{WHERE}.pruned_steps={share}'
  assert phases(default.get_config(), *flags) == (1, 1)
  kind = {'kind': 'relu2_two_four', 'pruned_steps': share}
  assert phases(ConfigDict({'model': {'feed_forward': kind}})) == (1, 1)
  config = default.get_config()
  config.train.steps = 5
  assert parse(config).schedule.warmup_steps == 1


def test_limits_of_what_follows_another_field():
  config = ConfigDict({'x': 0})
  large, small = at_least(3, config.get_ref('x')), at_most(3, config.get_ref('x'))
  for x in (-2, 0, 2, 3, 4, 90):
    config.x = x
    assert (large.get(), small.get()) == (max(x, 3), min(x, 3))
