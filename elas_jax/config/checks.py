"""What cannot run is refused by name: here what all kinds share, the rest by the kinds."""

import dataclasses
import math
import re
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, choice, divides, fraction
from elas_jax.common.limits import LARGEST, LARGEST_INTEGER, check_array, quoted, shown
from elas_jax.common.places import check_place
from elas_jax.config import schema
from elas_jax.config.config import (
  Config,
  DataConfig,
  ModelConfig,
  NetworkConfig,
  PairsConfig,
  RowsConfig,
)
from elas_jax.data.corpus import check_preparation
from elas_jax.ops.augment import AUGMENTATIONS
from elas_jax.systems.feed_forwards import FEED_FORWARDS
from elas_jax.systems.kinds import Kinds, about, by_name, is_phase, name_of, resolve_of
from elas_jax.systems.mixers import MIXERS


def check(config: Config) -> None:
  """Refuses values that cannot run, naming field, value and what is accepted."""
  at_least(1, 'train', config.train, 'steps')  # of which other fields may be shares
  CHECKS[type(config.model)](config.model)
  check_data(config.data)
  _check_phases(config)
  for where, _, kind in schema.kinds_in(config):
    about(kind, 'check', where, config)
  if isinstance(config.model, ModelConfig):
    _check_all_causal(config.model)
    _check_document_mask(config)
  if config.traits.reference and not config.restore:
    raise UserError(
      f"restore='': must be the workdir of a run, whose parameters task={config.task!r} "
      'starts from and compares with'
    )
  for name in ('restore', 'train.compilation_cache'):
    section, _, field = name.rpartition('.')
    check_place(name, getattr(getattr(config, section) if section else config, field))
  _check_loop(config)
  SIZES[type(config.model)](config)
  profile_window(config)


def _check_phases(config: Config) -> None:
  """A share of the steps has become a number of them, unless a kind was made by hand."""
  for path, value, field in schema.leaves(config):
    text = resolve_of(field) is not None  # of phases, which have become steps in it
    if is_phase(field) and not text and not isinstance(value, int):
      raise UserError(
        f'{path}={value!r}: must be a number of steps here; `filled` makes one of a share'
      )


def _check_decoder(model: ModelConfig) -> None:
  at_least(1, 'model', model, 'vocab_size width layers feed_forward_width unroll')
  if model.init_std <= 0:
    raise UserError(f'model.init_std={model.init_std!r}: must be above 0')
  at_least(0, 'model', model, 'embedding_std')
  _check_pattern(model)


def _check_pattern(model: ModelConfig) -> None:
  """Names of what there is, each used, in a cycle that fits into the layers."""
  if model.pattern:
    names = [name.partition('+') for name in model.pattern.split(',')]
    for named, field, own in (
      ({mixer for mixer, _, _ in names}, 'mixers', {'attention'}),
      ({x for _, plus, x in names if plus}, 'feed_forwards', set()),
    ):
      there = own | set(by_name(DICTS[field], getattr(model, field)))
      if unknown := sorted(named - there):
        accepted = f'one of {quoted(sorted(there))}' if there else 'named'
        raise UserError(
          f'model.pattern={shown(model.pattern)}: {unknown[0]!r} must be {accepted}; '
          f'--config.model.{field}=NAME adds those of {quoted(sorted(DICTS[field]))}'
        )
      if unused := sorted(there - own - named):
        raise UserError(
          f'model.{field}={",".join(sorted(there - own))}: {unused[0]!r} is in no layer; '
          'name it in model.pattern'
        )
    for own, names_it, field in (
      ('attention', any(mixer == 'attention' for mixer, _, _ in names), 'attention'),
      ('a layer without +', any(not plus for _, plus, _ in names), 'feed_forward'),
    ):
      if not names_it:
        raise UserError(
          f'model.pattern={shown(model.pattern)}: must have {own}, where model.{field} '
          'stands'
        )
    if model.layers % len(names):
      raise UserError(
        f'model.layers={model.layers}: must be a multiple of {len(names)}, the layers of '
        f'model.pattern={shown(model.pattern)}'
      )
    return
  for field in DICTS:
    if given := by_name(DICTS[field], getattr(model, field)):
      raise UserError(
        f'model.{field}={",".join(given)}: must be empty without a model.pattern that '
        'names them'
      )


def _check_document_mask(config: Config) -> None:
  if not config.data.document_mask:
    return
  for layer in config.model.cycle:
    if not about(layer.attention, 'segments', default=False):
      name = name_of(MIXERS, layer.attention)
      raise UserError(
        f'data.document_mask=True: must be False with the mixer {name!r}, which cannot '
        'keep the documents of a row apart'
      )


DICTS = {'mixers': MIXERS, 'feed_forwards': FEED_FORWARDS}


def _check_all_causal(model: ModelConfig) -> None:
  for where, kinds, kind in schema.kinds_in(model, 'model.'):
    _check_causal(where, kinds, kind)


def _check_causal(where: str, kinds: Kinds, kind: Any) -> None:
  """A kind says that it mixes rows, by True or the name of the field that makes it so."""
  mixes = lambda kind: about(kind, 'mixes_rows', default=False)
  field = mixes(kind)
  if not field:
    return
  if isinstance(field, str):
    said = f'{where}.{field}={getattr(kind, field)!r}'
    accepted = f'{getattr(type(kind)(), field)!r}, the default, does not'
  else:
    said = f'{where}={name_of(kinds, kind)!r}'
    accepted = f'{quoted(name for name, cls in kinds.items() if not mixes(cls()))} do not'
  raise UserError(f'{said}: would show a token those after it; {accepted}')


def _check_network(model: NetworkConfig) -> None:
  at_least(1, 'model', model, 'outputs width')
  at_least(0, 'model', model, 'depth')
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


CHECKS = {ModelConfig: _check_decoder, NetworkConfig: _check_network}


def check_data(data: DataConfig | RowsConfig | PairsConfig) -> None:
  """Refuses ways to read and cut that cannot be."""
  at_least(1, 'data', data, 'batch_size read_threads prefetch')
  if isinstance(data, DataConfig):
    check_preparation(data)
    return
  if not data.cache_dir:
    raise UserError("data.cache_dir='': must not be empty")
  check_place('data.cache_dir', data.cache_dir)
  if isinstance(data, PairsConfig):
    at_least(1, 'data', data, 'sequence_length')
    fraction('data', data, 'max_bad_share')
    return
  choice('data.augment', data.augment, AUGMENTATIONS)


def _check_decoder_sizes(config: Config) -> None:
  """Arrays that no machine could hold, and a sample that is longer than a sequence."""
  model, data = config.model, config.data
  vocabulary, layers, width, inner = (
    (f'model.{name}', getattr(model, name))
    for name in ('vocab_size', 'layers', 'width', 'feed_forward_width')
  )
  length = 'data.sequence_length', data.sequence_length
  rows = 'data.batch_size', data.batch_size
  micro = 'the rows of a micro-batch', data.batch_size // config.train.accumulation
  check_array(vocabulary, width)
  short = about(model.linear, 'short', default=width)
  bases = about(model.linear, 'bases', default=None)
  more = [('bases of an input', bases)] if bases else []
  check_array(layers, short, width, *more)
  check_array(layers, short, inner, *more)
  check_array(rows, length)
  check_array(micro, length, vocabulary)
  check_array(layers, micro, length, width)
  check_array(layers, micro, length, inner)
  if config.eval.sample_tokens > data.sequence_length:
    raise UserError(
      f'eval.sample_tokens={config.eval.sample_tokens}: must be at most '
      f'data.sequence_length={data.sequence_length}'
    )


def _check_network_sizes(config: Config) -> None:
  """Arrays that no machine could hold; what fits rows only, or images only."""
  model, rows = config.model, ('data.batch_size', config.data.batch_size)
  row = 'the entries of model.input_shape', math.prod(model.input_shape)
  width, outputs = ('model.width', model.width), ('model.outputs', model.outputs)
  bases = about(model.linear, 'bases', default=None)
  more = [('bases of an input', bases)] if bases else []
  for sizes in ((rows, row), (rows, width), (rows, outputs)):
    check_array(*sizes, *more)
  for sizes in ((row, width), (width, width), (width, outputs), (row, outputs)):
    check_array(*sizes, *more)
  if examples := getattr(config.data.source, 'examples', None):
    check_array(('data.source.examples', examples), row)
  if config.data.augment != 'none' and len(model.input_shape) != 3:
    raise UserError(
      f"data.augment={config.data.augment!r}: must be 'none' for rows of shape "
      f'{model.input_shape}, which are no images'
    )


SIZES = {ModelConfig: _check_decoder_sizes, NetworkConfig: _check_network_sizes}


def _check_loop(config: Config) -> None:
  train, data, mesh = config.train, config.data, config.mesh
  at_least(1, 'train', train, 'accumulation log_every')
  at_least(1, 'checkpoint', config.checkpoint, 'every keep_latest')
  at_least(0, 'checkpoint', config.checkpoint, 'keep_best')
  at_least(1, 'eval', config.eval, 'every batch_size')
  at_least(0, 'eval', config.eval, 'units sample_tokens')
  divides('train.accumulation', train.accumulation, 'data.batch_size', data.batch_size)
  try:
    config.eval.prompt.encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f'eval.prompt={config.eval.prompt!r}: is not Unicode text: {error.reason}'
    ) from None
  sizes = dataclasses.astuple(mesh)
  for name, size in zip(('data', 'fsdp', 'tensor'), sizes):
    if size < 1 and size != -1:
      raise UserError(f'mesh.{name}={size}: must be at least 1, or -1 for the rest')
  if sizes.count(-1) > 1:
    given = f'mesh.data={mesh.data}, mesh.fsdp={mesh.fsdp}, mesh.tensor={mesh.tensor}'
    raise UserError(f'{given}: at most one may be -1')
  if config.seed < 0:
    raise UserError(f'seed={config.seed}: must be between 0 and {LARGEST["seed"]}')


def profile_window(config: Config) -> tuple[int, int] | None:
  """The first and last traced step, or None."""
  text = config.profile_steps
  if not text:
    return None
  match = re.fullmatch('([0-9]{1,10}),([0-9]{1,10})', text)
  if not match or not 1 <= int(match[1]) <= int(match[2]) <= config.train.steps:
    raise UserError(
      f"profile_steps={shown(text)}: must be 'first,last' with "
      f'1 <= first <= last <= train.steps={config.train.steps}'
    )
  return int(match[1]), int(match[2])


def check_devices(config: Config, devices: int) -> tuple[int, int, int]:
  """Mesh sizes (data, fsdp, tensor) on this many devices; UserError if they cannot be."""
  sizes = list(dataclasses.astuple(config.mesh))
  fixed = math.prod(size for size in sizes if size != -1)
  if -1 in sizes and devices % fixed == 0:
    sizes[sizes.index(-1)] = devices // fixed
  if math.prod(sizes) != devices:
    raise UserError(
      f'mesh={dataclasses.astuple(config.mesh)} (mesh.data, mesh.fsdp, mesh.tensor): the '
      f'product must be the number of devices, {devices}'
    )
  ways = sizes[0] * sizes[1]
  for field, rows in (
    ('data.batch_size', config.data.batch_size),
    ('eval.batch_size', config.eval.batch_size),
  ):
    micro = config.train.accumulation if field == 'data.batch_size' else 1
    if rows % (micro * ways):
      raise UserError(
        f'{field}={rows}: must be a multiple of {micro * ways} '
        f'(mesh.data * mesh.fsdp = {ways}, micro-batches = {micro})'
      )
  return tuple(sizes)
