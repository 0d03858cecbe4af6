"""From ConfigDict to frozen dataclasses, once, at the door. Every check is here.

A config file in configs/ builds a ConfigDict with all fields; `parse` turns it into
the typed, hashable `Config` below and refuses what cannot run, before anything is
compiled or written. There are no defaults here: configs/default.py holds them all.
"""

import dataclasses
import json
import math
import re
import typing
from typing import Any, Literal

from elas_jax.errors import UserError

Rules = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The decoder. Letters as in the README: V, D, N, H, K, F, R."""

  vocab_size: int  # V, at least as large as the tokenizer's
  width: int  # D
  layers: int  # N
  heads: int  # H; the head size is K = D / H
  kv_heads: int  # key and value heads, a divisor of H (H itself: no grouping)
  feed_forward_width: int  # F
  linear: str  # a name of layers/linear.py:LINEARS
  rank: int  # R, of the low-rank kinds of linear
  factor_init: Literal['xavier', 'spectral']  # of low_rank; see layers/linear.py
  alpha: float  # lora, sltrain: the low-rank part counts alpha / R
  gamma: float  # lost: the low-rank part counts gamma, the sparse one 1 - gamma
  sparse_share: float  # sltrain: of the entries, lost: of the input columns
  feed_forward: str  # a name of layers/feed_forward.py:FEED_FORWARDS
  two_four_rule: str  # relu2_two_four: a name of pallas_kernels/two_four/rules.py:RULES
  two_four_backward: str  # a name of ops/two_four.py:BACKWARDS
  two_four_dense_steps: int  # the first steps of a run, without pruning
  two_four_refresh: int  # soft_activations: steps between estimates of its scale
  attention: str  # a name of layers/attention.py:ATTENTIONS
  rope_base: float
  norm_epsilon: float
  init_std: float  # of dense weights and of the embedding
  tied_head: bool  # the head reuses the embedding
  unroll: int  # layers the scan unrolls: 1 compiles one layer, N is fastest on a CPU
  remat: str  # a name of models/decoder.py:REMAT_POLICIES
  param_dtype: Literal['float32', 'bfloat16']
  compute_dtype: Literal['float32', 'bfloat16']

  @property
  def head_size(self) -> int:
    return self.width // self.heads


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """What is read, how it is tokenised and batched. Letters: L, B."""

  source: str  # python_source, text_files, or a prepared TFDS set ('c4/en', 'lm1b')
  path: str  # text_files: folder, file or glob. TFDS set: its data_dir ('' = TFDS's)
  validation_path: str  # text_files: validation files; '' = split by hash
  validation_share: float  # share of the documents that the hash sends to validation
  max_bad_share: float  # refuse a corpus with more unreadable records than this
  tokenizer: str  # 'bytes' or the path of a Hugging Face tokenizer.json
  protocol: Literal['packed', 'document']  # join and cut, or one document a row
  sequence_length: int  # L
  batch_size: int  # B, sequences of one optimiser step over all devices
  cache_dir: str  # prepared documents and token blocks
  processes: int  # worker processes of the preparation, 0 = all cores
  read_threads: int
  prefetch: int  # batches


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The optimiser and its schedule. Fractions are of learning_rate."""

  name: Literal['adamw', 'loro', 'galore']
  exact_every: int  # loro: steps between exact steps
  lazy_scale: float  # loro: factor of learning_rate in the other steps; R / D as published
  projection_rank: int  # galore: rank of the projected gradients
  projection_every: int  # galore: steps between new subspaces
  projection_scale: float  # galore: factor of learning_rate for projected gradients
  merge_every: int  # relora: steps between merges of lora's factors, 0 = never
  learning_rate: float  # peak
  schedule: str  # a name of optim/schedules.py:SCHEDULES
  warmup_steps: int
  warmup_fraction: float  # where the linear warm-up starts
  decay_steps: int  # wsd, wsdc: length of the decay
  decay_shape: Literal['linear', 'cosine', 'exponential', 'one_minus_sqrt']
  constant_steps: int  # wsdc: steps at the floor, at the end
  final_fraction: float  # the floor
  restart_every: int  # cosine_restarts: steps between restarts
  restart_warmup_steps: int  # cosine_restarts: linear re-warm-up after each restart
  b1: float
  b2: float
  epsilon: float
  weight_decay: float  # decoupled: p -= lr * weight_decay * factor * p
  decay_rules: Rules  # (regex on the parameter path, factor), first match wins
  clip_norm: float  # of the global gradient norm, 0 = off


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop."""

  steps: int
  accumulation: int  # micro-batches of one optimiser step
  z_loss: float  # coefficient of mean(log Z ** 2), 0 = off
  log_every: int  # steps
  tensorboard: bool
  compilation_cache: str  # folder of compiled programs, kept between runs; '' = off


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Devices per axis; their product is the number of devices. One may be -1: the rest."""

  data: int
  fsdp: int
  tensor: int


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  every: int  # steps; the last step is always saved
  keep_latest: int
  keep_best: int  # by eval/loss, of checkpoints at whose step there is an evaluation


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  every: int  # steps; the last step is always evaluated
  tokens: int  # validation tokens of an evaluation, 0 = the whole split
  batch_size: int  # sequences
  prompt: str  # continued after training
  sample_tokens: int  # length of that sample, 0 = none


@dataclasses.dataclass(frozen=True)
class Config:
  model: ModelConfig
  data: DataConfig
  optimizer: OptimizerConfig
  train: TrainConfig
  mesh: MeshConfig
  checkpoint: CheckpointConfig
  eval: EvalConfig
  seed: int
  restore: str  # workdir whose newest parameters a fresh run starts from, '' = scratch
  profile_steps: str  # 'first,last': trace these steps, '' = none


def parse(config: Any) -> Config:
  """The ConfigDict (or nested dict) as a checked `Config`; UserError if it cannot run."""
  tree = config.to_dict() if hasattr(config, 'to_dict') else config
  parsed = _build(Config, tree, '')
  check(parsed)
  return parsed


def at_step(config: Config, step: int) -> Config:
  """The config of one step (from 1): without pruning in the dense warm-up.

  Both have the same parameters; each is compiled on its own.
  """
  model = config.model
  if model.feed_forward != 'relu2_two_four' or step > model.two_four_dense_steps:
    return config
  return dataclasses.replace(config, model=dataclasses.replace(model, feed_forward='relu2'))


def to_json(config: Config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def _build(cls: type, tree: dict[str, Any], prefix: str) -> Any:
  """A dataclass from a nested dict that must have exactly its fields."""
  hints = typing.get_type_hints(cls)
  unknown = sorted(set(tree) - set(hints))
  if unknown:
    raise UserError(f'{prefix}{unknown[0]}: no such field; there are {sorted(hints)}')
  missing = sorted(set(hints) - set(tree))
  if missing:
    raise UserError(f'{prefix}{missing[0]}: missing from the config file')
  values = {}
  for name, kind in hints.items():
    field, value = prefix + name, tree[name]
    if dataclasses.is_dataclass(kind):
      if not isinstance(value, dict):
        raise UserError(f'{field}={value!r}: must be a section of fields')
      values[name] = _build(kind, value, field + '.')
    else:
      values[name] = _typed(kind, value, field)
  return cls(**values)


def _typed(kind: Any, value: Any, field: str) -> Any:
  if kind == Rules:
    return _rules(value, field)
  if typing.get_origin(kind) is Literal:
    if value not in typing.get_args(kind):
      raise UserError(f'{field}={value!r}: must be one of {_names(typing.get_args(kind))}')
    return value
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
    raise UserError(f'{field}={value!r}: must be of type {kind.__name__}')
  if kind is float and not math.isfinite(value):
    raise UserError(f'{field}={value!r}: must be finite')
  return value


def _rules(value: Any, field: str) -> Rules:
  """Pairs of (regex, number); also accepted flat lists as JSON gives them back."""
  rules = []
  for rule in value:
    pair = isinstance(rule, (tuple, list)) and len(rule) == 2
    if not (pair and isinstance(rule[0], str) and isinstance(rule[1], (int, float))):
      raise UserError(f'{field}: {rule!r} must be a pair (regex, number)')
    try:
      re.compile(rule[0])
    except re.error as error:
      raise UserError(f'{field}: {rule[0]!r} is not a regex: {error}') from None
    rules.append((rule[0], float(rule[1])))
  return tuple(rules)


def _names(names: Any) -> str:
  return ', '.join(repr(name) for name in names)


def check(config: Config) -> None:
  """Refuses values that cannot run, naming field, value and what is accepted."""
  _check_model(config.model)
  _check_data(config.data)
  _check_loop(config)
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
    raise UserError(f'{field}={value!r}: must be one of {_names(sorted(choices))}')


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
  from elas_jax.ops.two_four import BACKWARDS, RULES_OF_EXACT
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
  exact = model.two_four_backward in ('exact', 'split')
  if exact and model.two_four_rule not in RULES_OF_EXACT:
    raise UserError(
      f'model.two_four_backward={model.two_four_backward!r}: needs '
      f'model.two_four_rule one of {_names(RULES_OF_EXACT)}, not '
      f"{model.two_four_rule!r}, whose kept values are changed; 'straight_through' works"
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


def _check_optimizer(config: Config) -> None:
  from elas_jax.optim.schedules import SCHEDULES

  optimizer, steps, linear = config.optimizer, config.train.steps, config.model.linear
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
  SCHEDULES[optimizer.schedule](optimizer, steps)  # phases that do not fit raise


def _check_loop(config: Config) -> None:
  train, data, mesh = config.train, config.data, config.mesh
  _at_least(1, 'train', train, 'steps accumulation log_every')
  _at_least(0, 'train', train, 'z_loss')
  _at_least(1, 'checkpoint', config.checkpoint, 'every keep_latest')
  _at_least(0, 'checkpoint', config.checkpoint, 'keep_best')
  _at_least(1, 'eval', config.eval, 'every batch_size')
  model = config.model
  split = model.feed_forward == 'relu2_two_four' and model.two_four_backward == 'split'
  if split and data.sequence_length % 4:
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


def profile_window(config: Config) -> tuple[int, int] | None:
  """The first and last traced step, or None."""
  text = config.profile_steps
  if not text:
    return None
  match = re.fullmatch(r'(\d+),(\d+)', text)
  if not match or not 1 <= int(match[1]) <= int(match[2]) <= config.train.steps:
    raise UserError(
      f"profile_steps={text!r}: must be 'first,last' with "
      f'1 <= first <= last <= train.steps={config.train.steps}'
    )
  return int(match[1]), int(match[2])
