"""What language tables say of the configs of their runs."""

from experiments.language import recipe


def test_optimisers_without_second_moments_are_described_too(make_config):
  plain = make_config(**{'optimizer': 'sgd', 'optimizer.clip_norm': 0.0})
  adam = make_config(**{'optimizer': 'adamw', 'optimizer.b2': 0.9})
  assert '; b2 none and gradients clipped at norm 0 for all' in recipe([plain])
  assert '; b2 0.9 and gradients clipped at norm 0 or 1 for all' in recipe([plain, adam])
