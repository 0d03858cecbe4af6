"""Every check of a config's values: what cannot run is refused by name."""

import dataclasses
import math
from typing import Any

from elas_jax.config import Config, DataConfig, ModelConfig, profile_window, quoted
from elas_jax.errors import UserError


def check(config: Config) -> None:
  """Refuses values that cannot run, naming field, value and what is accepted."""
  _check_model(config.model)
  _check_data(config.data)
  _check_loop(config)
  _check_method(config)
  _check_optimizer(config)
  profile_window(config)


def _at_least(minimum: float, section: str, fields: Any, names: str) -> None:
  for name in names.split():
    value = getattr(fields, name)
    if value < minimum:
      raise UserError(f'{section}.{name}={value!r}: must be at least {minimum}')


def _fraction(section: str, fields: Any, names: str) -> None:
  for name in names.split():
    value = getattr(fields, name)
    if not 0 <= value <= 1:
      raise UserError(f'{section}.{name}={value!r}: must be between 0 and 1')


def _choice(field: str, value: str, choices: Any) -> None:
  if value not in choices:
    raise UserError(f'{field}={value!r}: must be one of {quoted(sorted(choices))}')


def _divides(field: str, value: int, whole_name: str, whole: int) -> None:
  if whole % value:
    divisors = [d for d in range(1, whole + 1) if whole % d == 0]
    shown = divisors if len(divisors) <= 12 else divisors[:11] + ['...', whole]
    raise UserError(
      f'{field}={value}: must divide {whole_name}={whole}; '
      f'accepted: {", ".join(map(str, shown))}'
    )


def _check_model(model: ModelConfig) -> None:
  # The tables of names live with the layers; importing them here, not above, keeps
  # this module light for the data preparation's worker processes.
  from elas_jax.layers.attention import ATTENTIONS
  from elas_jax.layers.feed_forward import FEED_FORWARDS
  from elas_jax.layers.linear import LINEARS
  from elas_jax.models.decoder import REMAT_POLICIES

  _at_least(
    1,
    'model',
    model,
    'vocab_size width layers heads kv_heads feed_forward_width rank unroll',
  )
  _choice('model.linear', model.linear, LINEARS)
  _choice('model.feed_forward', model.feed_forward, FEED_FORWARDS)
  _choice('model.attention', model.attention, ATTENTIONS)
  _choice('model.remat', model.remat, REMAT_POLICIES)
  _check_linear(model)
  _check_two_four(model)
  _divides('model.heads', model.heads, 'model.width', model.width)
  _divides('model.kv_heads', model.kv_heads, 'model.heads', model.heads)
  if model.head_size % 2:
    raise UserError(
      f'model.heads={model.heads}: model.width / model.heads = {model.head_size} must '
      'be even, since rotary embeddings turn pairs of entries'
    )
  full = min(model.width, model.feed_forward_width)
  if model.linear != 'dense' and model.rank > full:
    raise UserError(f'model.rank={model.rank}: must be at most {full}, the full rank')
  for name in ('rope_base', 'norm_epsilon', 'init_std'):
    if getattr(model, name) <= 0:
      raise UserError(f'model.{name}={getattr(model, name)!r}: must be above 0')


def _check_linear(model: ModelConfig) -> None:
  if model.factor_init == 'spectral' and model.linear != 'low_rank':
    raise UserError(
      f"model.factor_init='spectral': needs model.linear='low_rank', not {model.linear!r}"
    )
  if not 0 < model.sparse_share < 1:
    raise UserError(
      f'model.sparse_share={model.sparse_share!r}: must be above 0 and below 1'
    )
  _fraction('model', model, 'gamma')


def _check_two_four(model: ModelConfig) -> None:
  from elas_jax.ops.two_four import BACKWARDS, NEED_TOP2
  from pallas_kernels.two_four import RULES

  _choice('model.two_four_rule', model.two_four_rule, RULES)
  _choice('model.two_four_backward', model.two_four_backward, BACKWARDS)
  _at_least(0, 'model', model, 'two_four_dense_steps')
  _at_least(1, 'model', model, 'two_four_refresh')
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


def _check_data(data: DataConfig) -> None:
  _at_least(1, 'data', data, 'sequence_length batch_size read_threads prefetch')
  _at_least(0, 'data', data, 'processes')
  _fraction('data', data, 'max_bad_share')
  if not 0 < data.validation_share < 1:
    raise UserError(
      f'data.validation_share={data.validation_share!r}: must be between 0 and 1'
    )
  if data.source == 'text_files' and not data.path:
    raise UserError("data.path='': text_files needs a folder, a file or a glob")
  for name in ('source', 'tokenizer', 'cache_dir'):
    if not getattr(data, name):
      raise UserError(f"data.{name}='': must not be empty")


def _check_method(config: Config) -> None:
  """Optimisers and the linear maps that they are for."""
  optimizer, linear = config.optimizer, config.model.linear
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
  _choice('optimizer.schedule', optimizer.schedule, SCHEDULES)
  _at_least(
    0,
    'optimizer',
    optimizer,
    'warmup_steps decay_steps constant_steps weight_decay clip_norm restart_warmup_steps '
    'lazy_scale merge_every projection_scale',
  )
  _at_least(
    1,
    'optimizer',
    optimizer,
    'restart_every exact_every projection_rank projection_every',
  )
  _fraction('optimizer', optimizer, 'warmup_fraction final_fraction')
  for name in ('learning_rate', 'epsilon'):
    if getattr(optimizer, name) <= 0:
      raise UserError(f'optimizer.{name}={getattr(optimizer, name)!r}: must be above 0')
  for name in ('b1', 'b2'):
    if not 0 <= getattr(optimizer, name) < 1:
      raise UserError(
        f'optimizer.{name}={getattr(optimizer, name)!r}: must be at least 0 and below 1'
      )
  SCHEDULES[optimizer.schedule](
    optimizer, config.train.steps
  )  # phases that do not fit raise


def _check_loop(config: Config) -> None:
  train, data, mesh = config.train, config.data, config.mesh
  _at_least(1, 'train', train, 'steps accumulation log_every')
  _at_least(0, 'train', train, 'z_loss')
  _at_least(1, 'checkpoint', config.checkpoint, 'every keep_latest')
  _at_least(0, 'checkpoint', config.checkpoint, 'keep_best')
  _at_least(1, 'eval', config.eval, 'every batch_size')
  model = config.model
  pruned = model.feed_forward == 'relu2_two_four'
  if pruned and model.two_four_dense_steps >= train.steps:
    raise UserError(
      f'model.two_four_dense_steps={model.two_four_dense_steps}: must be below '
      f'train.steps={train.steps}, or nothing is ever pruned'
    )
  if pruned and model.two_four_backward == 'split' and data.sequence_length % 4:
    raise UserError(
      f'data.sequence_length={data.sequence_length}: must be a multiple of 4 with '
      "model.two_four_backward='split', which permutes the positions of a sequence and "
      'prunes them by fours'
    )
  _at_least(0, 'eval', config.eval, 'tokens sample_tokens')
  _divides('train.accumulation', train.accumulation, 'data.batch_size', data.batch_size)
  sizes = dataclasses.astuple(mesh)
  for name, size in zip(('data', 'fsdp', 'tensor'), sizes):
    if size < 1 and size != -1:
      raise UserError(f'mesh.{name}={size}: must be at least 1, or -1 for the rest')
  if sizes.count(-1) > 1:
    raise UserError(f'mesh={sizes}: at most one axis may be -1')
  if not 0 <= config.seed < 1 << 32:
    raise UserError(f'seed={config.seed}: must be between 0 and {(1 << 32) - 1}')


def check_devices(config: Config, devices: int) -> tuple[int, int, int]:
  """Mesh sizes (data, fsdp, tensor) on this many devices; UserError if they cannot be."""
  sizes = list(dataclasses.astuple(config.mesh))
  fixed = math.prod(size for size in sizes if size != -1)
  if -1 in sizes and devices % fixed == 0:
    sizes[sizes.index(-1)] = devices // fixed
  if math.prod(sizes) != devices:
    raise UserError(
      f'mesh={dataclasses.astuple(config.mesh)} (data, fsdp, tensor): the product must '
      f'be the number of devices, {devices}'
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
