"""Configs of version 0, as they were before sections named their kind.

Flat sections, in which every field of every variant stood. This says what they looked like
and never looks at today's classes.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown

Tree = dict[str, Any]

# Fields that came late, with what runs of before them did.
LATE = {
  'model': {
    'factor_init': 'xavier',
    'alpha': 32.0,
    'gamma': 0.5,
    'sparse_share': 0.03,
    'quadratic_form': 'full',
    'quadratic_start': 'relinear',
    'rational_groups': 8,
    'two_four_rule': 'top2',
    'two_four_backward': 'exact',
    'two_four_dense_steps': 0,
    'two_four_refresh': 10,
    'two_four_implementation': 'auto',
  },
  'data': {'accept_changed': False, 'max_bad_share': 0.01},
  'optimizer': {
    'merge_every': 0,
    'relinear': 'none',
    'relinear_g': 1e-4,
    'relinear_b': 1e-4,
  },
}
# Both say the same of models that have neither biases nor rationals.
DECAY_RULES = [
  ['(norm[^/]*/scale|bias(_[rgb])?|numerator|denominator)$', 0.0],
  ['.*', 1.0],
]
OLDER_DECAY_RULES = [['norm/scale$', 0.0], ['.*', 1.0]]

RANGE = ('grid', 'grid_min', 'grid_max')
BASE = ('activation', 'data_norm', 'init_scale')
# Family -> the fields of `kan` that it read.
KANS = {
  'bspline': (*RANGE, 'order', *BASE),
  'chebyshev': ('order', 'data_norm', 'init_scale'),
  'polynomial': ('order', 'polynomial', 'data_norm', 'init_scale'),
  'fourier': ('grid', 'data_norm', 'init_scale'),
  'wavelet': (*RANGE, 'wavelet', 'data_norm', 'init_scale'),
  'fast': (*RANGE, *BASE),
  'faster': (*RANGE, 'data_norm', 'init_scale'),
  'bsrbf': (*RANGE, 'order', *BASE),
  'relu': (*RANGE, 'order', 'data_norm', 'init_scale'),
  'af': (*RANGE, 'order', *BASE, 'function', 'reduction', 'combine', 'function_norm'),
  'skan': ('edge', 'data_norm', 'init_scale'),
}
KANS['selectable'] = (
  *dict.fromkeys(name for names in KANS.values() for name in names),
  *('pool', 'selection', 'phase', 'top_k'),
)
LINEARS = {
  'dense': {},
  'low_rank': {'rank': 'rank', 'factor_init': 'factor_init'},
  'cola': {'rank': 'rank'},
  'lora': {'rank': 'rank', 'alpha': 'alpha'},
  'sltrain': {'rank': 'rank', 'alpha': 'alpha', 'sparse_share': 'sparse_share'},
  'lost': {'rank': 'rank', 'gamma': 'gamma', 'sparse_share': 'sparse_share'},
  'quadratic': {'form': 'quadratic_form', 'start': 'quadratic_start'},
  'rational': {'groups': 'rational_groups'},
}
WARMUP = ('warmup_steps', 'warmup_fraction')
RESTARTS = ('restart_every', 'restart_warmup_steps')
SCHEDULES = {
  'constant': WARMUP,
  'cosine': (*WARMUP, 'final_fraction'),
  'wsd': (*WARMUP, 'final_fraction', 'decay_steps', 'decay_shape'),
  'wsdc': (*WARMUP, 'final_fraction', 'decay_steps', 'decay_shape', 'constant_steps'),
  'cosine_restarts': (*WARMUP, 'final_fraction', *RESTARTS),
  'displaced_cosine_restarts': (*WARMUP, 'final_fraction', 'decay_steps', *RESTARTS),
}
NORMS = {
  'none': {'kind': 'none'},
  'layer': {'kind': 'layer', 'epsilon': 1e-5},
  'batch': {'kind': 'batch', 'epsilon': 1e-5, 'momentum': 0.9},
}
NORM_OF_VIT = {'kind': 'layer', 'epsilon': 1e-6}
FUNCTIONS = (
  *('bessel', 'exp_sin_square', 'product', 'mean_of_sines', 'sine_of_squares', 'runge'),
  'step',
)
SHAPES = ('two_spirals', 'rings')
ADAM = {'b1': 'b1', 'b2': 'b2', 'epsilon': 'epsilon'}
OPTIMIZERS = {
  'adamw': ADAM | {'weight_decay': 'weight_decay'},
  'sgd': {'momentum': 'b1', 'weight_decay': 'weight_decay'},
  'loro': ADAM | {'exact_every': 'exact_every', 'lazy_scale': 'lazy_scale'},
  'galore': ADAM
  | {
    'weight_decay': 'weight_decay',
    'rank': 'projection_rank',
    'every': 'projection_every',
    'scale': 'projection_scale',
  },
}
UNITS = {
  'swiglu': ('glu', 'silu'),
  'bilinear': ('glu', 'none'),
  'relu2': ('mlp', 'relu2'),
}
# The fields of each section.
_BOTH = ('quadratic_form', 'quadratic_start', 'rational_groups', 'kan', 'heads')
FIELDS = {
  'model': (
    *('vocab_size', 'width', 'layers', 'kv_heads', 'feed_forward_width', 'linear', 'rank'),
    *('factor_init', 'alpha', 'gamma', 'sparse_share', 'feed_forward', 'attention'),
    *('two_four_rule', 'two_four_backward', 'two_four_dense_steps', 'two_four_refresh'),
    *('two_four_implementation', 'rope_base', 'norm_epsilon', 'init_std', 'tied_head'),
    *('unroll', 'remat', 'param_dtype', 'compute_dtype', *_BOTH),
  ),
  'data': (
    *('source', 'path', 'validation_path', 'validation_share', 'max_bad_share'),
    *('tokenizer', 'protocol', 'sequence_length', 'batch_size', 'cache_dir', 'processes'),
    *('read_threads', 'prefetch', 'accept_changed'),
  ),
  'optimizer': (
    *('name', 'learning_rate', 'schedule', 'decay_rules', 'clip_norm', 'merge_every'),
    *('relinear', 'relinear_g', 'relinear_b'),
    *(old for names in OPTIMIZERS.values() for old in names.values()),
    *(name for names in SCHEDULES.values() for name in names),
  ),
  'eval': ('every', 'tokens', 'batch_size', 'prompt', 'sample_tokens'),
  'model.kan': (*KANS['selectable'], 'param_dtype'),
  '': (
    *('task', 'train', 'model', 'data', 'optimizer', 'mesh', 'checkpoint', 'eval', 'seed'),
    *('restore', 'profile_steps'),
  ),
}
# Of classifiers and regressors, and their data.
FIELDS_OF_ROWS = FIELDS | {
  'model': (
    *('architecture', 'input_shape', 'outputs', 'layer', 'width', 'depth', 'activation'),
    *('norm', 'use_bias', 'init', 'label_smoothing', 'patch', *_BOTH),
  ),
  'data': (
    *('source', 'path', 'validation_share', 'examples', 'noise', 'draw_seed', 'augment'),
    *('batch_size', 'cache_dir', 'read_threads', 'prefetch', 'accept_changed'),
  ),
}
# Fields that name a kind. One that nobody knows is refused where today's are read.
NAMES = {
  *('linear', 'layer', 'feed_forward', 'architecture', 'norm', 'source', 'tokenizer'),
  *('name', 'schedule', 'two_four_rule'),
}


class Section(dict):
  """A section of the old tree; a field that is missing is an error by its name."""

  def __init__(self, where: str, known: Iterable[str], values: Any, late: Tree):
    if not isinstance(values, Mapping):
      raise UserError(f'{where}={shown(values)}: must be a section of fields')
    super().__init__(late | dict(values))
    self.prefix = f'{where}.' if where else ''
    for name in set(values) - set(known):
      raise UserError(
        f'{self.prefix}{name}={shown(values[name])}: no such field of stored configs of '
        f'version 0; accepted: {", ".join(sorted(set(known)))}'
      )
    for name in NAMES & set(self):
      if not isinstance(self[name], str):
        raise UserError(f'{self.prefix}{name}={shown(self[name])}: must be of type str')

  def __missing__(self, name: str) -> Any:
    raise UserError(f'{self.prefix}{name}: missing from a stored config of version 0')


def lift(tree: Tree) -> Tree:
  """A tree of version 0 as one of version 1.

  Raises:
    UserError: fields are missing, or there never were such fields.
  """
  task = tree.get('task', 'language')
  language = task not in ('classification', 'regression')
  known = FIELDS if language else FIELDS_OF_ROWS
  if task not in ('language', 'classification', 'regression'):
    return tree  # for today's errors
  tree = Section('', known[''], tree, {})
  model, data, optimizer = (
    Section(name, known[name], tree[name], LATE[name])
    for name in ('model', 'data', 'optimizer')
  )
  linear = _linear(model, optimizer, language)
  lift_model, lift_data = (_decoder, _corpus) if language else (_network, _rows)
  optimizer['decay_rules'] = _decay_rules(optimizer['decay_rules'], model, language)
  if optimizer['name'] == 'loro':
    optimizer['decay_rules'] = []  # it has no weight decay, and read none
  evaluation = Section('eval', known['eval'], tree['eval'], {})
  evaluation['units'] = evaluation['tokens']
  del evaluation['tokens']
  if not language:
    evaluation['prompt'] = ''  # nothing of rows is continued
  rest = {name: tree[name] for name in ('train', 'mesh', 'checkpoint', 'seed')}
  return rest | {
    'task': task,
    'model': lift_model(model, linear),
    'data': lift_data(data),
    'optimizer': _section(
      optimizer['name'],
      optimizer,
      OPTIMIZERS.get(optimizer['name'], {})
      | {name: name for name in ('learning_rate', 'clip_norm', 'decay_rules')},
    ),
    'schedule': _section(
      optimizer['schedule'], optimizer, SCHEDULES.get(optimizer['schedule'], ())
    ),
    'eval': dict(evaluation),
    'restore': tree.get('restore', ''),
    'profile_steps': tree.get('profile_steps', ''),
  }


def _section(kind: str, pool: Tree, names: Mapping[str, str] | tuple[str, ...]) -> Tree:
  """A chosen section: its fields by their names in the old tree."""
  names = names if isinstance(names, Mapping) else dict.fromkeys(names)
  return {'kind': kind} | {name: pool[old or name] for name, old in names.items()}


def _linear(model: Tree, optimizer: Tree, language: bool) -> Tree:
  kind = model['linear' if language else 'layer']
  family = kind.removeprefix('kan_') if language else kind
  if (kind.startswith('kan_') or not language) and family in KANS:
    kan = Section('model.kan', FIELDS['model.kan'], model['kan'], {})
    found = _section(f'kan_{family}', kan, KANS[family])
    if 'activation' in found:
      found['activation'] = _activation(found['activation'], exact=True)
    return found
  found = _section(kind, model, LINEARS.get(kind, {}))
  if kind == 'lora':
    found['merge_every'] = optimizer['merge_every']
  if kind == 'quadratic':
    names = ('relinear', 'relinear_g', 'relinear_b')
    found |= {name: optimizer[name] for name in names}
  return found


def _activation(name: str, exact: bool = False) -> Tree:
  """GELU was exact in base branches of KANs, and approximate between layers."""
  more = {'approximate': not exact} if name == 'gelu' else {}
  return {'kind': name} | more


def _decay_rules(rules: list, model: Tree, language: bool) -> list:
  """None where they say what the kinds say of their own parameters."""
  if not isinstance(rules, list | tuple):
    return rules
  rules = [list(rule) if isinstance(rule, tuple) else rule for rule in rules]
  linear = model.get('linear', '')
  plain = (
    language
    and linear != 'quadratic'
    and not linear.startswith('kan_')
    and model['feed_forward'] != 'kat'
  )
  same = [DECAY_RULES, OLDER_DECAY_RULES] if plain else [DECAY_RULES]
  return [] if rules in same else rules


def _decoder(model: Tree, linear: Tree) -> Tree:
  same = (
    *('vocab_size', 'width', 'layers', 'feed_forward_width', 'init_std', 'tied_head'),
    *('unroll', 'remat', 'param_dtype', 'compute_dtype'),
  )
  heads, kv_heads = model['heads'], model['kv_heads']
  return {name: model[name] for name in same} | {
    'linear': linear,
    'feed_forward': _feed_forward(model),
    'attention': {
      'kind': 'mha',
      'heads': heads,
      'kv_heads': 0 if kv_heads == heads else kv_heads,
    },
    'norm': {'kind': 'rms', 'epsilon': model['norm_epsilon']},
    'position': {'kind': 'rope', 'base': model['rope_base']},
  }


def _feed_forward(model: Tree) -> Tree:
  kind = model['feed_forward']
  if kind == 'kat':
    return {'kind': 'kat', 'groups': model['rational_groups']}
  if kind != 'relu2_two_four':
    if kind not in UNITS:
      return {'kind': kind}
    unit, activation = UNITS[kind]
    return {'kind': unit, 'activation': _activation(activation)}
  rule = model['two_four_rule']
  recipe = {'kind': rule, 'backward': model['two_four_backward']}
  if rule == 'soft_activations':
    recipe['refresh'] = model['two_four_refresh']
  return {
    'kind': 'relu2_two_four',
    'recipe': recipe,
    'dense_steps': model['two_four_dense_steps'],
    'implementation': model['two_four_implementation'],
  }


def _network(model: Tree, linear: Tree) -> Tree:
  kind = model['architecture']
  same = ('input_shape', 'outputs', 'width', 'depth', 'use_bias', 'init', 'label_smoothing')
  of_kan = linear['kind'].startswith('kan_')
  if model['norm'] not in NORMS:
    raise UserError(f'model.norm={model["norm"]!r}: must be one of {quoted(NORMS)}')
  return {name: model[name] for name in same} | {
    'architecture': _section(kind, model, ('patch', 'heads') if kind == 'vit' else ()),
    'linear': linear,
    'activation': _activation(model['activation']),
    'norm': NORM_OF_VIT if kind == 'vit' else NORMS[model['norm']],
    'param_dtype': model['kan']['param_dtype'] if of_kan else 'float32',
  }


def _corpus(data: Tree) -> Tree:
  same = (
    *('max_bad_share', 'protocol', 'sequence_length', 'batch_size', 'cache_dir'),
    *('processes', 'read_threads', 'prefetch', 'accept_changed'),
  )
  source, tokenizer = data['source'], data['tokenizer']
  fields = {
    'python_source': ('validation_share',),
    'text_files': ('path', 'validation_path', 'validation_share'),
  }
  return {name: data[name] for name in same} | {
    'source': (
      _section(source, data, fields[source]) if source in fields else _tfds('tfds', data)
    ),
    'tokenizer': (
      {'kind': 'bytes'} if tokenizer == 'bytes' else {'kind': 'file', 'path': tokenizer}
    ),
  }


def _rows(data: Tree) -> Tree:
  same = (
    *('augment', 'batch_size', 'cache_dir', 'read_threads', 'prefetch'),
    'accept_changed',
  )
  source = data['source']
  drawn = ('examples', 'noise', 'draw_seed', 'validation_share')
  if source == 'digits':
    section = _section(source, data, ('validation_share',))
  elif source in FUNCTIONS:
    section = _section('function', data, drawn) | {'name': source}
  elif source in SHAPES:
    section = _section('shape', data, drawn) | {'name': source}
  else:
    section = _tfds('tfds_images', data)
  return {name: data[name] for name in same} | {'source': section}


def _tfds(kind: str, data: Tree) -> Tree:
  return {'kind': kind, 'name': data['source'], 'data_dir': data['path']}
