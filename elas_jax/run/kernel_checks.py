"""Whether the devices here have the kernels that a config asks for."""

import dataclasses

from elas_jax.common.errors import UserError
from elas_jax.config.config import Config


def _wanted(config: Config) -> str | None:
  """What model.feed_forward wants its products to run on, if it can choose."""
  return getattr(getattr(config.model, 'feed_forward', None), 'implementation', None)


def lacking_kernels(config: Config) -> str:
  """Why the devices here cannot run the kernels that the config asks for, or ''."""
  if _wanted(config) != 'mosaic':
    return ''
  from pallas_kernels.two_four import takes_kernels

  try:
    takes_kernels(implementation='mosaic')
  except NotImplementedError as error:  # it begins with implementation='mosaic'
    return f'model.feed_forward.{error}'
  return ''


def check_kernels_here(config: Config) -> None:
  if lacking := lacking_kernels(config):
    raise UserError(f"{lacking}; 'auto' and 'xla' run here")


def with_kernels(config: Config, implementation: str) -> Config:
  """The config with another choice of what its 2:4 products run on."""
  model = config.model
  feed_forward = dataclasses.replace(model.feed_forward, implementation=implementation)
  model = dataclasses.replace(model, feed_forward=feed_forward)
  return dataclasses.replace(config, model=model)
