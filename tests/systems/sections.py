"""Small configs for tests of kinds: a decoder, a classifier, and a config around either."""

import dataclasses
from typing import Any

from elas_jax.config.config import Config, ModelConfig, NetworkConfig
from elas_jax.systems.activations import ACTIVATIONS
from elas_jax.systems.linears import LINEARS
from tests.conformance.hosts import language, network

LOW_RANK = LINEARS['low_rank'](rank=4)


def decoder(linear: Any = LOW_RANK, **fields: Any) -> ModelConfig:
  """A decoder of the letters V = 61, D = 8, F = 16, H = 2, N = 2."""
  return language(linear=linear, **{'vocab_size': 61} | fields).model


def classifier(architecture: Any = None, linear: Any = None, **more: Any) -> NetworkConfig:
  """Of images of 8 x 8 with one channel: three outputs, D = 8, two layers with SiLU."""
  given = {'architecture': architecture, 'linear': linear}
  fields = {'outputs': 3, 'depth': 2, 'activation': ACTIVATIONS['silu']()} | more
  return network(**fields | {n: x for n, x in given.items() if x is not None}).model


def config(model: Any = None) -> Config:
  """20 steps of 4 rows, of 8 tokens."""
  whole = network() if isinstance(model, NetworkConfig) else language()
  return dataclasses.replace(whole, model=model or decoder())


def with_data(whole: Config, **fields: Any) -> Config:
  return dataclasses.replace(whole, data=dataclasses.replace(whole.data, **fields))
