"""From ConfigDict to frozen dataclasses, once, at the door.

A config file in configs/ builds a ConfigDict with all fields; `parse` turns it into
the typed, hashable `Config` below and refuses what cannot run (config_checks.py), before
anything is compiled or written. There are no defaults here: configs/default.py holds them.
Only a field that is younger than some runs has one, so that their configs can be read.
"""

import dataclasses
import json
import re
import typing
from typing import Any, Literal

from elas_jax.common.errors import UserError
from elas_jax.common.limits import check_float, check_integer, quoted, shown

Rules = tuple[tuple[str, float], ...]
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class KanConfig:
  """Kolmogorov-Arnold layers (layers/kan.py). Letters: I, O, S bases of each input.

  S is grid + order in bspline, bsrbf, relu and af, grid in fast, faster and wavelet,
  2 grid in fourier, order + 1 in chebyshev and polynomial.
  """

  grid: int  # intervals of the range, or how many centres, wavelets or frequencies
  order: int  # of splines, relu and af (at most grid); degree of polynomials
  grid_min: float  # published: bspline -1, bsrbf -1.5, fast -2, faster -1.2, relu, af 0
  grid_max: float  # published: bspline 1, bsrbf 1.5, fast 2, faster 0.2, relu, af 1
  activation: str  # of af and of base branches; a name of ops/kan/base.py:ACTIVATIONS
  function: str  # af: a name of ops/kan/af.py:FUNCTIONS
  reduction: str  # af: names of ops/kan/af.py:REDUCTIONS, joined by commas
  combine: str  # af, several reductions: a name of ops/kan/af.py:COMBINATIONS
  function_norm: Literal['none', 'example', 'batch']  # af: what its min and max are over
  data_norm: Literal['layer', 'none']  # LayerNorm of the inputs (af: after its reduction)
  polynomial: str  # a name of ops/kan/polynomial.py:RECURRENCES
  wavelet: str  # a name of ops/kan/wavelet.py:WAVELETS
  edge: str  # skan: a name of ops/kan/skan.py:EDGES
  pool: str  # selectable: names of kan_checks.py:POOL, joined by commas
  selection: Literal['layer', 'node']  # selectable: one choice for all outputs, or each
  phase: Literal['full', 'selective', 'pruned']  # selectable: all families, some, the best
  top_k: int  # selectable: families of the phase 'selective'
  init_scale: float  # factor of the coefficients' published start; 0: the base branch alone
  param_dtype: Literal['float32', 'bfloat16']


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """A network on rows (models/classifier.py). Letters: D, C."""

  architecture: str  # a name of models/classifier.py:ARCHITECTURES
  input_shape: Shape  # of a row: (I,), or (H, W, C) of images
  outputs: int  # classes C, or values
  layer: str  # a name of models/classifier.py:LAYERS
  width: int  # D
  depth: int  # hidden layers; blocks of a vit; blocks in each of a resnet's three stages
  activation: str  # between layers; a name of models/classifier.py:ACTIVATIONS
  norm: Literal['none', 'layer', 'batch']  # of a vit always 'layer'
  use_bias: bool
  init: Literal[
    'lecun', 'he'
  ]  # dense: uniform within 1 / sqrt(I), normal of variance 2 / I
  quadratic_form: str  # a name of ops/quadratic.py:FORMS
  quadratic_start: Literal['relinear', 'random']  # see layers/quadratic.py
  rational_groups: int  # a divisor of the widths
  patch: int  # vit: side of a patch, a divisor of H and W
  heads: int  # vit: a divisor of D
  label_smoothing: float
  kan: KanConfig


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
  quadratic_form: str  # quadratic: a name of ops/quadratic.py:FORMS
  quadratic_start: Literal['relinear', 'random']  # see layers/quadratic.py
  kan: KanConfig  # kan_...
  alpha: float  # lora, sltrain: the low-rank part counts alpha / R
  gamma: float  # lost: the low-rank part counts gamma, the sparse one 1 - gamma
  sparse_share: float  # sltrain: of the entries, lost: of the input columns
  feed_forward: str  # a name of layers/feed_forward.py:FEED_FORWARDS
  rational_groups: int  # kat: a divisor of D and F
  two_four_rule: str  # relu2_two_four: a name of pallas_kernels/two_four/rules.py:RULES
  two_four_backward: str  # a name of ops/two_four.py:BACKWARDS
  two_four_dense_steps: int  # the first steps of a run, without pruning
  two_four_refresh: int  # soft_activations: micro-batches between estimates of its scale
  attention: str  # a name of layers/attention.py:ATTENTIONS
  rope_base: float
  norm_epsilon: float
  init_std: float  # of dense weights and of the embedding
  tied_head: bool  # the head reuses the embedding
  unroll: int  # layers the scan unrolls: 1 compiles one layer, N is fastest on a CPU
  remat: str  # a name of models/decoder.py:REMAT_POLICIES
  param_dtype: Literal['float32', 'bfloat16']
  compute_dtype: Literal['float32', 'bfloat16']
  # Of the 2:4 products: 'mosaic', the kernels, or an error where one cannot run; 'xla',
  # dense; 'auto', the kernels on the kinds of device that they were checked on.
  two_four_implementation: Literal['auto', 'xla', 'mosaic'] = 'auto'

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
  # Refuse a corpus with a larger share of unreadable records, or of their bytes, than
  # this. Files that break off are refused below 1: what they have lost is unknown.
  max_bad_share: float
  tokenizer: str  # 'bytes' or the path of a Hugging Face tokenizer.json
  protocol: Literal['packed', 'document']  # join and cut, or one document a row
  sequence_length: int  # L
  batch_size: int  # B, sequences of one optimiser step over all devices
  cache_dir: str  # prepared documents and token blocks
  processes: int  # worker processes of the preparation, 0 = all cores
  read_threads: int
  prefetch: int  # batches
  accept_changed: bool = False  # continue a run on other data than it was started with


@dataclasses.dataclass(frozen=True)
class RowsConfig:
  """Labelled rows (data/rows.py)."""

  source: str  # digits, a name of data/functions.py, or a prepared TFDS set ('mnist')
  path: str  # TFDS set: its data_dir ('' = TFDS's)
  validation_share: float  # digits, functions: of the rows
  examples: int  # functions: points of both splits together
  noise: float  # functions: standard deviation, of the train split
  draw_seed: int  # functions: of the points
  augment: str  # a name of ops/augment.py:AUGMENTATIONS
  batch_size: int  # B, of one optimiser step over all devices
  cache_dir: str  # decoded images
  read_threads: int
  prefetch: int  # batches
  accept_changed: bool = False  # continue a run on other data than it was started with


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The optimiser and its schedule. Fractions are of learning_rate."""

  name: Literal['adamw', 'sgd', 'loro', 'galore']
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
  decay_steps: int  # wsd, wsdc, displaced_cosine_restarts: length of the decay
  decay_shape: Literal['linear', 'cosine', 'exponential', 'one_minus_sqrt']
  constant_steps: int  # wsdc: steps at the floor, at the end
  final_fraction: float  # the floor
  restart_every: int  # ..._restarts: steps between restarts
  restart_warmup_steps: int  # ..._restarts: linear re-warm-up after each restart
  relinear: Literal['none', 'gradients', 'weights']  # quadratic layers: optim/relinear.py
  relinear_g: float  # gradients: factor of learning_rate for (W_g, b_g); weights: decay
  relinear_b: float  # the same for (W_b, c)
  b1: float  # sgd: momentum
  b2: float
  epsilon: float  # loro and galore add it before Adam's bias correction
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
  tokens: int  # validation tokens (of rows: examples) of an evaluation, 0 = all
  batch_size: int  # sequences or examples
  prompt: str  # continued after training
  sample_tokens: int  # length of that sample, at most L, 0 = none


@dataclasses.dataclass(frozen=True)
class Config:
  task: str  # a name of SECTIONS
  train: TrainConfig  # checked first, since fields of others may follow its steps
  model: ModelConfig | NetworkConfig  # by task, see SECTIONS
  data: DataConfig | RowsConfig
  optimizer: OptimizerConfig
  mesh: MeshConfig
  checkpoint: CheckpointConfig
  eval: EvalConfig
  seed: int
  restore: str  # workdir whose newest parameters a fresh run starts from, '' = scratch
  profile_steps: str  # 'first,last': trace these steps, '' = none


# Sections whose fields depend on the task.
SECTIONS = {
  'language': {'model': ModelConfig, 'data': DataConfig},
  'classification': {'model': NetworkConfig, 'data': RowsConfig},
  'regression': {'model': NetworkConfig, 'data': RowsConfig},
}


def parse(config: Any) -> Config:
  """The ConfigDict (or nested dict) as a checked `Config`; UserError if it cannot run."""
  tree = config.to_dict() if hasattr(config, 'to_dict') else config
  from elas_jax.config.checks import check  # it needs the classes above

  task = _typed(Literal[tuple(SECTIONS)], tree.get('task'), 'task')
  parsed = build(Config, tree, '', SECTIONS[task])
  check(parsed)
  return parsed


def at_step(config: Config, step: int) -> Config:
  """The config of one step (from 1): without pruning in the dense warm-up.

  Both have the same parameters; each is compiled on its own.
  """
  model = config.model
  if config.task != 'language' or model.feed_forward != 'relu2_two_four':
    return config
  if step > model.two_four_dense_steps:
    return config
  return dataclasses.replace(config, model=dataclasses.replace(model, feed_forward='relu2'))


def to_json(config: Config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2, allow_nan=False) + '\n'


def filled(tree: dict[str, Any]) -> dict[str, Any]:
  """A stored config with the fields that are younger than it, at their defaults.

  What else it lacks or has too much stays as it is; `parse` refuses that.
  """
  return _filled(Config, tree, SECTIONS.get(tree.get('task'), {}))


def _filled(cls: type, tree: dict[str, Any], chosen: dict[str, type]) -> dict[str, Any]:
  result = dict(tree)
  for field in dataclasses.fields(cls):
    kind = chosen.get(field.name, field.type)
    if dataclasses.is_dataclass(kind) and isinstance(tree.get(field.name), dict):
      result[field.name] = _filled(kind, tree[field.name], {})
    elif field.name not in tree and field.default is not dataclasses.MISSING:
      result[field.name] = _typed(kind, field.default, field.name)
  return result


def build(
  cls: type, tree: dict[str, Any], prefix: str, chosen: dict[str, type] | None = None
) -> Any:
  """A dataclass from a nested dict that must have exactly its fields.

  `chosen` says which class a field has that may have several.
  """
  hints = typing.get_type_hints(cls) | (chosen or {})
  unknown = sorted(set(tree) - set(hints))
  if unknown:
    raise UserError(f'{prefix}{unknown[0]}: no such field; there are {sorted(hints)}')
  defaults = {
    field.name: field.default
    for field in dataclasses.fields(cls)
    if field.default is not dataclasses.MISSING
  }
  tree = defaults | tree
  missing = sorted(set(hints) - set(tree))
  if missing:
    raise UserError(f'{prefix}{missing[0]}: missing from the config file')
  values = {}
  for name, kind in hints.items():
    field, value = prefix + name, tree[name]
    if dataclasses.is_dataclass(kind):
      if not isinstance(value, dict):
        raise UserError(f'{field}={shown(value)}: must be a section of fields')
      values[name] = build(kind, value, field + '.')
    else:
      values[name] = _typed(kind, value, field)
  return cls(**values)


def _typed(kind: Any, value: Any, field: str) -> Any:
  if kind == Rules:
    return _rules(value, field)
  if kind == Shape:
    if not isinstance(value, (tuple, list)) or not all(type(x) is int for x in value):
      raise UserError(f'{field}={shown(value)}: must be a tuple of integers')
    for size in value:
      check_integer(field, size)
    return tuple(value)
  if typing.get_origin(kind) is Literal:
    if value not in typing.get_args(kind):
      accepted = quoted(typing.get_args(kind))
      raise UserError(f'{field}={shown(value)}: must be one of {accepted}')
    return value
  if kind is float:
    return _number(value, field)
  if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
    raise UserError(f'{field}={shown(value)}: must be of type {kind.__name__}')
  if kind is int:
    check_integer(field, value)
  return value


def _number(value: Any, field: str) -> float:
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    raise UserError(f'{field}={shown(value)}: must be of type float')
  check_float(field, value)
  return float(value)


def _rules(value: Any, field: str) -> Rules:
  """Pairs of (regex, factor of at least 0); also flat lists as JSON gives them back."""
  if not isinstance(value, (tuple, list)):
    raise UserError(f'{field}={shown(value)}: must be pairs (regex, number)')
  rules = []
  for rule in value:
    if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and type(rule[0]) is str):
      raise UserError(f'{field}: {shown(rule)} must be a pair (regex, number)')
    regex, factor = rule
    if type(factor) not in (int, float):
      raise UserError(f'{field}: {shown(rule)} must be a pair (regex, number)')
    try:
      re.compile(regex)
    # The last two: a repetition of too many, brackets of too many levels.
    except (re.error, OverflowError, RecursionError) as error:
      raise UserError(f'{field}: {shown(regex)} is not a regex: {error}') from None
    where = f'{field}: factor of {shown(regex)}'
    factor = _number(factor, where)
    if factor < 0:
      raise UserError(f'{where}={factor!r}: must be at least 0')
    rules.append((regex, factor))
  return tuple(rules)


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
