"""Every check of a config's values: what cannot run is refused by name."""

import dataclasses
import math

import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import at_least, choice, divides, fraction
from elas_jax.common.limits import LARGEST, LARGEST_INTEGER, check_array, check_float, shown
from elas_jax.common.places import check_place
from elas_jax.config.config import (
  Config,
  DataConfig,
  ModelConfig,
  OptimizerConfig,
  profile_window,
)
from elas_jax.run.kernel_checks import check_kernels

# Kinds of linear maps that have a rank.
LOW_RANKS = ('low_rank', 'cola', 'lora', 'sltrain', 'lost')


def check(config: Config) -> None:
  """Refuses values that cannot run, naming field, value and what is accepted."""
  if config.task == 'language':
    _check_model(config.model)
    check_data(config.data)
    _check_pruning(config)
  else:
    from elas_jax.config.network_checks import check_network

    check_network(config)
  _check_places(config)
  _check_loop(config)
  if config.task == 'language':
    _check_lengths(config)
  _check_method(config)
  _check_optimizer(config)
  profile_window(config)


def _check_model(model: ModelConfig) -> None:
  # The tables of names live with the layers; importing them here, not above, keeps
  # this module light for the data preparation's worker processes.
  from elas_jax.layers.attention import ATTENTIONS
  from elas_jax.layers.feed_forward import FEED_FORWARDS
  from elas_jax.layers.linear import LINEARS
  from elas_jax.models.decoder import REMAT_POLICIES

  at_least(
    1,
    'model',
    model,
    'vocab_size width layers heads kv_heads feed_forward_width rank unroll',
  )
  choice('model.linear', model.linear, LINEARS)
  choice('model.feed_forward', model.feed_forward, FEED_FORWARDS)
  choice('model.attention', model.attention, ATTENTIONS)
  choice('model.remat', model.remat, REMAT_POLICIES)
  if model.feed_forward == 'kat':
    groups = 'model.rational_groups', model.rational_groups
    divides(*groups, 'model.width', model.width)
    divides(*groups, 'model.feed_forward_width', model.feed_forward_width)
  _check_linear(model)
  _check_two_four(model)
  divides('model.heads', model.heads, 'model.width', model.width)
  divides('model.kv_heads', model.kv_heads, 'model.heads', model.heads)
  if model.head_size % 2:
    raise UserError(
      f'model.heads={model.heads}: model.width / model.heads = {model.head_size} must '
      'be even, since rotary embeddings turn pairs of entries'
    )
  full = min(model.width, model.feed_forward_width)
  if model.linear in LOW_RANKS and model.rank > full:
    raise UserError(
      f'model.rank={model.rank}: must be at most {full}, the smaller of model.width and '
      'model.feed_forward_width'
    )
  for name in ('rope_base', 'norm_epsilon', 'init_std'):
    if getattr(model, name) <= 0:
      raise UserError(f'model.{name}={getattr(model, name)!r}: must be above 0')


def _check_linear(model: ModelConfig) -> None:
  from elas_jax.config.kan_checks import check_kan
  from elas_jax.ops.quadratic import FORMS

  if model.factor_init == 'spectral' and model.linear != 'low_rank':
    raise UserError(
      f"model.factor_init='spectral': needs model.linear='low_rank', not {model.linear!r}"
    )
  if not 0 < model.sparse_share < 1:
    raise UserError(
      f'model.sparse_share={model.sparse_share!r}: must be above 0 and below 1'
    )
  fraction('model', model, 'gamma')
  choice('model.quadratic_form', model.quadratic_form, FORMS)
  if model.linear == 'quadratic' and model.quadratic_form == 'square':
    raise UserError(
      "model.quadratic_form='square': has no linear branch; accepted with "
      "model.linear='quadratic' are the others"
    )
  if model.linear.startswith('kan_'):
    check_kan(model.kan, model.linear.removeprefix('kan_'))
    if model.kan.param_dtype != model.param_dtype:
      raise UserError(
        f'model.kan.param_dtype={model.kan.param_dtype!r}: must be '
        f'model.param_dtype={model.param_dtype!r}'
      )
    families = model.kan.pool.split(',') if model.linear == 'kan_selectable' else []
    with_af = model.linear == 'kan_af' or 'af' in families
    if with_af and model.kan.function_norm == 'batch':
      raise UserError(
        "model.kan.function_norm='batch': would show a token those after it; 'example' "
        "and 'none' do not"
      )


def _check_two_four(model: ModelConfig) -> None:
  from elas_jax.ops.two_four import BACKWARDS, NEED_TOP2
  from pallas_kernels.two_four import RULES

  choice('model.two_four_rule', model.two_four_rule, RULES)
  choice('model.two_four_backward', model.two_four_backward, BACKWARDS)
  at_least(0, 'model', model, 'two_four_dense_steps')
  at_least(1, 'model', model, 'two_four_refresh')
  if model.two_four_implementation == 'mosaic':
    check_kernels(model)
  if model.feed_forward != 'relu2_two_four':
    return
  if model.linear not in ('dense', 'low_rank'):
    raise UserError(
      f"model.linear={model.linear!r}: must be 'dense' or 'low_rank' with "
      "model.feed_forward='relu2_two_four'"
    )
  if model.feed_forward_width % 4:
    raise UserError(
      f'model.feed_forward_width={model.feed_forward_width}: must be a multiple of 4 '
      "with model.feed_forward='relu2_two_four'"
    )
  if model.two_four_rule == 'transposable':
    raise UserError(
      "model.two_four_rule='transposable': would show a token those after it, since its "
      "mask is chosen over four tokens; model.two_four_backward='transposable' does not"
    )
  if model.two_four_backward in NEED_TOP2 and model.two_four_rule != 'top2':
    raise UserError(
      f'model.two_four_backward={model.two_four_backward!r}: needs model.two_four_rule='
      f"'top2', not {model.two_four_rule!r}, whose kept values are changed; "
      "'straight_through' works"
    )


def check_data(data: DataConfig) -> None:
  """Refuses a corpus, or a way to cut it, that cannot be."""
  at_least(1, 'data', data, 'sequence_length batch_size read_threads prefetch')
  at_least(0, 'data', data, 'processes')
  fraction('data', data, 'max_bad_share')
  if not 0 < data.validation_share < 1:
    raise UserError(
      f'data.validation_share={data.validation_share!r}: must be between 0 and 1'
    )
  if data.source == 'text_files' and not data.path:
    raise UserError("data.path='': text_files needs a folder, a file or a glob")
  for name in ('source', 'tokenizer', 'cache_dir'):
    if not getattr(data, name):
      raise UserError(f"data.{name}='': must not be empty")


def _check_places(config: Config) -> None:
  check_place('restore', config.restore)
  check_place('train.compilation_cache', config.train.compilation_cache)
  for field in dataclasses.fields(config.data):
    if field.name in ('path', 'validation_path', 'tokenizer', 'cache_dir'):
      check_place(f'data.{field.name}', getattr(config.data, field.name))


def _check_method(config: Config) -> None:
  """Optimisers and the linear maps that they are for."""
  optimizer = config.optimizer
  if config.task != 'language':
    if optimizer.name not in ('adamw', 'sgd') or optimizer.merge_every:
      raise UserError(
        f'optimizer.name={optimizer.name!r}, optimizer.merge_every='
        f"{optimizer.merge_every}: must be 'adamw' or 'sgd', and 0, with "
        f'task={config.task!r}: the others are for the linear maps of a decoder'
      )
    return
  linear = config.model.linear
  if optimizer.name == 'galore' and linear != 'dense':
    raise UserError(
      f"optimizer.name='galore': needs model.linear='dense', not {linear!r}, whose "
      'gradients are small already'
    )
  if optimizer.name == 'loro' and linear != 'low_rank':
    raise UserError(
      f"optimizer.name='loro': needs model.linear='low_rank', not {linear!r}, since its "
      'steps are of pairs of factors'
    )
  narrowest = config.model.kv_heads * config.model.head_size
  if optimizer.name == 'loro' and config.model.rank > narrowest:
    raise UserError(
      f'model.rank={config.model.rank}: must be at most {narrowest} with '
      "optimizer.name='loro', the width of the keys: factors need full rank"
    )
  if optimizer.merge_every and linear != 'lora':
    raise UserError(
      f"optimizer.merge_every={optimizer.merge_every}: needs model.linear='lora', not "
      f'{linear!r}; 0 turns it off'
    )
  if optimizer.name == 'loro' and optimizer.weight_decay:
    raise UserError(
      f'optimizer.weight_decay={optimizer.weight_decay!r}: must be 0 with '
      "optimizer.name='loro', which has none"
    )


def _check_optimizer(config: Config) -> None:
  from elas_jax.optim.schedules import SCHEDULES

  optimizer = config.optimizer
  choice('optimizer.schedule', optimizer.schedule, SCHEDULES)
  at_least(
    0,
    'optimizer',
    optimizer,
    'warmup_steps decay_steps constant_steps weight_decay clip_norm restart_warmup_steps '
    'lazy_scale merge_every projection_scale',
  )
  at_least(
    1,
    'optimizer',
    optimizer,
    'restart_every exact_every projection_rank projection_every',
  )
  fraction('optimizer', optimizer, 'warmup_fraction final_fraction')
  for name in ('learning_rate', 'epsilon'):
    if getattr(optimizer, name) <= 0:
      raise UserError(f'optimizer.{name}={getattr(optimizer, name)!r}: must be above 0')
  for name in ('b1', 'b2'):
    # As Adam computes: 1 - b^t divides.
    if not 0 <= np.float32(getattr(optimizer, name)) < 1:
      raise UserError(
        f'optimizer.{name}={getattr(optimizer, name)!r}: must be at least 0 and, in '
        'float32, below 1'
      )
  for regex, factor in optimizer.decay_rules:
    product = f'optimizer.weight_decay * factor of {shown(regex)} in optimizer.decay_rules'
    check_float(product, optimizer.weight_decay * factor)
  _check_relinear(optimizer)
  SCHEDULES[optimizer.schedule](
    optimizer, config.train.steps
  )  # phases that do not fit raise


def _check_relinear(optimizer: OptimizerConfig) -> None:
  """Factors of gradients are shares; decay must not overshoot its target in one step."""
  if optimizer.relinear != 'weights':
    fraction('optimizer', optimizer, 'relinear_g relinear_b')
    return
  most = 1 / optimizer.learning_rate
  for name in ('relinear_g', 'relinear_b'):
    value = getattr(optimizer, name)
    if not 0 <= value <= most:
      raise UserError(
        f'optimizer.{name}={value!r}: must be between 0 and {most:g}, '
        '1 / optimizer.learning_rate, since a step shrinks by their product'
      )


def _check_pruning(config: Config) -> None:
  model, steps, length = config.model, config.train.steps, config.data.sequence_length
  if model.feed_forward != 'relu2_two_four':
    return
  if model.two_four_dense_steps >= steps:
    raise UserError(
      f'model.two_four_dense_steps={model.two_four_dense_steps}: must be below '
      f'train.steps={steps}, or nothing is ever pruned'
    )
  if model.two_four_backward == 'split' and length % 4:
    raise UserError(
      f'data.sequence_length={length}: must be a multiple of 4 with '
      "model.two_four_backward='split', which permutes the positions of a sequence and "
      'prunes them by fours'
    )


def _check_lengths(config: Config) -> None:
  """Arrays that no machine could hold, and a sample that is longer than a sequence."""
  model, data = config.model, config.data
  vocabulary, layers, width, inner, rank, heads = (
    (f'model.{name}', getattr(model, name))
    for name in ('vocab_size', 'layers', 'width', 'feed_forward_width', 'rank', 'heads')
  )
  length = 'data.sequence_length', data.sequence_length
  rows = 'data.batch_size', data.batch_size
  micro = 'the rows of a micro-batch', data.batch_size // config.train.accumulation
  short = rank if model.linear in ('low_rank', 'cola') else width
  check_array(vocabulary, width)
  bases = 'bases of an input', 2 * model.kan.grid + model.kan.order
  bases = [bases] if model.linear.startswith('kan_') else []
  check_array(layers, short, width, *bases)
  check_array(layers, short, inner, *bases)
  check_array(rows, length)
  check_array(micro, length, vocabulary)
  check_array(layers, micro, length, width)
  check_array(layers, micro, length, inner)
  check_array(layers, micro, heads, length, length)
  entries = model.width * max(model.width, model.feed_forward_width)
  if model.linear == 'sltrain' and entries > LARGEST_INTEGER:
    raise UserError(
      f'model.width={model.width}, model.feed_forward_width={model.feed_forward_width}: a '
      f'map has {entries} entries; must be at most {LARGEST_INTEGER} with '
      "model.linear='sltrain', which numbers them"
    )
  if config.eval.sample_tokens > data.sequence_length:
    raise UserError(
      f'eval.sample_tokens={config.eval.sample_tokens}: must be at most '
      f'data.sequence_length={data.sequence_length}'
    )


def _check_loop(config: Config) -> None:
  train, data, mesh = config.train, config.data, config.mesh
  at_least(1, 'train', train, 'steps accumulation log_every')
  at_least(0, 'train', train, 'z_loss')
  at_least(1, 'checkpoint', config.checkpoint, 'every keep_latest')
  at_least(0, 'checkpoint', config.checkpoint, 'keep_best')
  at_least(1, 'eval', config.eval, 'every batch_size')
  at_least(0, 'eval', config.eval, 'tokens sample_tokens')
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
