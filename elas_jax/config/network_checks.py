"""Checks of networks on rows and of their data."""

import math

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, choice, divides
from elas_jax.common.limits import LARGEST, LARGEST_INTEGER, check_array, shown
from elas_jax.config.config import Config, NetworkConfig, RowsConfig


def check_network(config: Config) -> None:
  """Refuses values that cannot run, naming field, value and what is accepted."""
  _check_model(config.model)
  _check_rows(config.data)
  _check_sizes(config)
  if config.train.z_loss and config.task == 'regression':
    raise UserError(
      f"train.z_loss={config.train.z_loss!r}: must be 0 with task='regression', which has "
      'no normaliser'
    )
  if config.optimizer.relinear != 'none' and config.model.layer != 'quadratic':
    raise UserError(
      f'optimizer.relinear={config.optimizer.relinear!r}: needs '
      f"model.layer='quadratic', not {config.model.layer!r}"
    )
  images = len(config.model.input_shape) == 3
  if config.data.augment != 'none' and not images:
    raise UserError(
      f"data.augment={config.data.augment!r}: must be 'none' for rows of shape "
      f'{config.model.input_shape}, which are no images'
    )


def _check_model(model: NetworkConfig) -> None:
  from elas_jax.config.kan_checks import check_kan
  from elas_jax.layers.kan import KANS
  from elas_jax.models.classifier import ACTIVATIONS, ARCHITECTURES, CONVOLUTIONS, LAYERS
  from elas_jax.ops.quadratic import FORMS

  at_least(1, 'model', model, 'outputs width rational_groups patch heads')
  at_least(0 if model.architecture == 'stack' else 1, 'model', model, 'depth')
  choice('model.architecture', model.architecture, ARCHITECTURES)
  convolutional = model.architecture in ('convnet', 'resnet')
  choice('model.layer', model.layer, CONVOLUTIONS if convolutional else LAYERS)
  choice('model.activation', model.activation, ACTIVATIONS)
  choice('model.quadratic_form', model.quadratic_form, FORMS)
  if (
    model.layer == 'quadratic'
    and model.quadratic_form == 'square'
    and model.quadratic_start != 'random'
  ):
    raise UserError(
      f"model.quadratic_start={model.quadratic_start!r}: must be 'random' with "
      "model.quadratic_form='square', which has no linear branch to start from"
    )
  if not 0 <= model.label_smoothing < 1:
    raise UserError(
      f'model.label_smoothing={model.label_smoothing!r}: must be at least 0 and below 1'
    )
  shape = model.input_shape
  if len(shape) not in (1, 3) or min(shape) < 1:
    raise UserError(
      f'model.input_shape={shown(shape)}: must be (I,) or (H, W, C), positive'
    )
  if math.prod(shape) > LARGEST_INTEGER:
    raise UserError(
      f'model.input_shape={shape}: must have at most {LARGEST_INTEGER} entries'
    )
  if model.architecture != 'stack' and len(shape) != 3:
    raise UserError(
      f'model.architecture={model.architecture!r}: needs images, model.input_shape of '
      f"(H, W, C), not {shape}; 'stack' takes any row"
    )
  if model.architecture == 'vit':
    divides('model.heads', model.heads, 'model.width', model.width)
    for side in shape[:2]:
      divides('model.patch', model.patch, 'a side of model.input_shape', side)
  if model.layer == 'rational':
    divides('model.rational_groups', model.rational_groups, 'model.width', model.width)
    if model.architecture == 'stack':
      entries = shape[0] * (shape[1] * shape[2] if len(shape) == 3 else 1)
      name = 'the entries of model.input_shape'
      divides('model.rational_groups', model.rational_groups, name, entries)
  if model.layer in KANS:
    check_kan(model.kan, model.layer)


def _check_sizes(config: Config) -> None:
  """Refuses arrays that no machine could hold."""
  model, rows = config.model, ('data.batch_size', config.data.batch_size)
  row = 'the entries of model.input_shape', math.prod(model.input_shape)
  width, outputs = ('model.width', model.width), ('model.outputs', model.outputs)
  bases = ('bases of an input', 2 * model.kan.grid + model.kan.order)
  check_array(('data.examples', config.data.examples), row)
  for sizes in ((rows, row), (rows, width), (rows, outputs)):
    check_array(*sizes, bases)
  for sizes in ((row, width), (width, width), (width, outputs), (row, outputs)):
    check_array(*sizes, bases)


def _check_rows(data: RowsConfig) -> None:
  from elas_jax.ops.augment import AUGMENTATIONS

  at_least(1, 'data', data, 'batch_size read_threads prefetch')
  at_least(2, 'data', data, 'examples')
  at_least(0, 'data', data, 'noise')
  if data.draw_seed < 0:
    raise UserError(
      f'data.draw_seed={data.draw_seed}: must be between 0 and {LARGEST["data.draw_seed"]}'
    )
  choice('data.augment', data.augment, AUGMENTATIONS)
  if not 0 < data.validation_share < 1:
    raise UserError(
      f'data.validation_share={data.validation_share!r}: must be between 0 and 1'
    )
  for name in ('source', 'cache_dir'):
    if not getattr(data, name):
      raise UserError(f"data.{name}='': must not be empty")
