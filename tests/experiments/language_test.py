"""What language tables say of the configs of their runs."""

from elas_jax.config.cli import load_config
from elas_jax.config.parsing import parse
from experiments.language import recipe


def test_optimisers_without_second_moments_are_described_too(make_config):
  plain = make_config(**{'optimizer': 'sgd', 'optimizer.clip_norm': 0.0})
  adam = make_config(**{'optimizer': 'adamw', 'optimizer.b2': 0.9})
  assert '; b2 none and gradients clipped at norm 0 for all' in recipe([plain])
  assert '; b2 0.9 and gradients clipped at norm 0 or 1 for all' in recipe([plain, adam])


def test_it_is_said_which_text_is_easy():
  flag = '--config.eval.units={}'.format
  units = lambda count: parse(load_config('configs/proxy.py:full', [flag(count)]))
  assert 'order_trials' in recipe([units(1_048_576), units(131_072)])
  assert 'order_trials' not in recipe([units(1_048_576), units(0)])
