"""Checks of a wish for kernels: of the model's other fields, and of the devices here."""

from elas_jax.common.errors import UserError
from elas_jax.config.config import Config, ModelConfig


def check_kernels(model: ModelConfig) -> None:
  """Refuses 'mosaic' for models of which a 2:4 operation would run elsewhere."""
  from elas_jax.ops.two_four import HAVE_KERNELS, without_kernels

  field = "model.two_four_implementation='mosaic'"
  for name, accepted in (
    ('feed_forward', 'relu2_two_four'),
    ('compute_dtype', 'bfloat16'),
  ):
    if (value := getattr(model, name)) != accepted:
      raise UserError(f'{field}: needs model.{name}={accepted!r}, not {value!r}')
  lacking = without_kernels(model.two_four_rule, model.two_four_backward)
  if lacking:
    raise UserError(
      f"{field}: {lacking}; accepted are model.two_four_rule='top2' with "
      f"model.two_four_backward {' or '.join(map(repr, HAVE_KERNELS))}; 'auto' takes "
      'kernels where there are some'
    )


def lacking_kernels(config: Config) -> str:
  """Why the devices here cannot run the kernels that the config asks for, or ''."""
  if config.task != 'language' or config.model.two_four_implementation != 'mosaic':
    return ''
  from pallas_kernels.two_four import takes_kernels

  try:
    takes_kernels(implementation='mosaic')
  except NotImplementedError as error:  # it begins with implementation='mosaic'
    return f'model.two_four_{error}'
  return ''


def check_kernels_here(config: Config) -> None:
  if lacking := lacking_kernels(config):
    raise UserError(f"{lacking}; 'auto' and 'xla' run here")
