"""The recipe of preference learning: what is published of DPO, and what is refused."""

import pytest

from configs import preference
from elas_jax.common.errors import UserError
from elas_jax.config.overrides import set_fields
from elas_jax.config.parsing import parse
from elas_jax.systems.preferences import PREFERENCES


def config_of(**fields):
  config = preference.get_config()
  set_fields(config, {'data.source.path': 'pairs.jsonl', 'restore': 'runs/sft'} | fields)
  return parse(config)


def test_what_is_published():
  config = config_of()
  assert config.train.preference == PREFERENCES['dpo'](beta=0.1, nll=1.0)
  assert PREFERENCES['dpo']() == PREFERENCES['dpo'](0.1, 0.0, False, 0.0)
  assert (config.data.batch_size, config.optimizer.clip_norm) == (64, 10.0)
  assert type(config.schedule).__name__ == 'Constant'


def test_a_run_and_pairs_must_be_given():
  with pytest.raises(UserError, match=r"^restore='': must be the workdir of a run, whose "):
    config_of(restore='')
  with pytest.raises(UserError, match=r"^data.source.path='': pairs needs a folder"):
    parse(preference.get_config())
