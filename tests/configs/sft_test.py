"""The recipe of fine-tuning: what one published script of PLM sets, and what is refused."""

import pytest

from configs import sft
from elas_jax.common.errors import UserError
from elas_jax.config.overrides import set_fields
from elas_jax.config.parsing import parse


def test_what_the_script_sets():
  first, second = (config_of(phase) for phase in ('1', '2'))
  for config in (first, second):
    adamw = config.optimizer
    assert (adamw.b1, adamw.b2, adamw.weight_decay, adamw.clip_norm) == (0.9, 0.999, 0.1, 1)
    assert type(config.schedule).__name__ == 'Constant'
    assert config.data.batch_size == 16
    assert config.data.source.counted == 'answers'
  assert second.optimizer.learning_rate < first.optimizer.learning_rate


def config_of(phase):
  config = sft.get_config(phase)
  set_fields(config, {'data.source.path': 'talks.jsonl'})
  return parse(config)


def test_other_phases_are_refused():
  with pytest.raises(UserError, match=r"^configs/sft.py:'3': must be one of '1', '2'$"):
    sft.get_config('3')
