"""Whether the devices here have the kernels that a config asks for."""

import dataclasses

from elas_jax.common.errors import UserError
from elas_jax.config.config import Config
from elas_jax.config.schema import kinds_in, replaced


def lacking_kernels(config: Config) -> str:
  """Why the devices here cannot run the kernels that the config asks for, or ''."""
  wanting = [
    where
    for where, _, kind in kinds_in(config)
    if getattr(kind, 'implementation', None) == 'mosaic'
  ]
  if not wanting:
    return ''
  from pallas_kernels.two_four import takes_kernels

  try:
    takes_kernels(implementation='mosaic')
  except NotImplementedError as error:  # it begins with implementation='mosaic'
    return f'{wanting[0]}.{error}'
  return ''


def check_kernels_here(config: Config) -> None:
  if lacking := lacking_kernels(config):
    raise UserError(f"{lacking}; 'auto' and 'xla' run here")


def with_kernels(config: Config, implementation: str) -> Config:
  """The config with another choice of what its 2:4 products run on."""

  def change(kind):
    chooses = hasattr(kind, 'implementation')
    return dataclasses.replace(kind, implementation=implementation) if chooses else kind

  return replaced(config, change)
