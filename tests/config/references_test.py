"""Fields of a config file that follow others, and flags that set one of them."""

import pytest

from elas_jax.common.errors import UserError
from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse

SHARED = """
from elas_jax.configs import default

def get_config():
  config = default.base()
  config.eval.every = config.train.get_ref('steps')
  return config
"""


def test_a_flag_sets_one_field(tmp_path):
  """Fields that follow another keep what they are given, and leave that one as it is."""
  given = lambda *flags: parse(load_config('configs/proxy.py:elas', flags))
  config = given('--config.eval.every=100', '--config.schedule.restart_every=70')
  assert (config.eval.every, config.train.steps) == (100, 2500)
  assert (config.schedule.restart_every, config.optimizer.exact_every) == (70, 500)
  config = given('--config.train.steps=500')
  assert (config.eval.every, config.train.steps) == (500, 500)
  path = tmp_path / 'shared.py'
  path.write_text(SHARED)
  said = f'^--config={path}: eval.every and train.steps are one reference, .*'
  with pytest.raises(UserError, match=said):
    load_config(str(path), ())
