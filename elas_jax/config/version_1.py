"""Configs of version 1: before objectives, measures and a transformer's parts had names.

The coefficient of the z-loss stood in `train`; what 2:4 does to activations was measured in
every language model that had some; the layers of a vision transformer were its own, and
each lay on a path of its own. This never looks at today's classes.
"""

import re
from collections.abc import Callable
from typing import Any

Tree = dict[str, Any]
Shape = tuple[int, ...]
# (path, shape) of an array today -> those that it was, one a layer.
Moved = Callable[[str, Shape], list[tuple[str, Shape]]]

CONSTANT = {'kind': 'constant', 'warmup_steps': 0, 'warmup_fraction': 0.0}


def lift(tree: Tree) -> Tree:
  """A tree of version 1 as one of version 2."""
  train, evaluation = dict(tree.get('train', {})), dict(tree.get('eval', {}))
  coefficient = train.pop('z_loss', 0.0)
  z_loss = {'z_loss': {'coefficient': coefficient, 'schedule': CONSTANT}}
  train['objectives'] = z_loss if coefficient else {}
  evaluation['measures'] = {} if _of_rows(tree) else {'activations': {}}
  lifted = tree | {'train': train, 'eval': evaluation}
  if _transformer(tree) is not None:
    lifted['model'] = _with_parts(dict(tree['model']))
  elif 'model' in tree and not _of_rows(tree):  # all layers were alike
    alike = {'pattern': '', 'mixers': {}, 'feed_forwards': {}}
    lifted['model'] = tree['model'] | alike
  return lifted


def moved_arrays(tree: Tree) -> Moved | None:
  """Where the arrays of a run of version 1 are; None: where they are today."""
  architecture = _transformer(tree)
  if architecture is None:
    return None
  heads = architecture.get('heads', 4)
  return lambda path, shape: _of_transformer(path, shape, heads)


def _of_rows(tree: Tree) -> bool:
  return tree.get('task', 'language') in ('classification', 'regression')


def _transformer(tree: Tree) -> Tree | None:
  """The section of a vision transformer, if the run is of one."""
  if not _of_rows(tree):
    return None
  found = tree.get('model', {}).get('architecture', {})
  found = {'kind': found} if isinstance(found, str) else found
  return found if found.get('kind') == 'vit' else None


def _with_parts(model: Tree) -> Tree:
  """Attention was plain and had biases, and the activation was the feed-forward's."""
  old = model['architecture'] if isinstance(model['architecture'], dict) else {}
  dense = model.get('linear', 'dense') in ('dense', {'kind': 'dense'})
  model['architecture'] = {
    'kind': 'vit',
    'patch': old.get('patch', 4),
    'attention': {'kind': 'mha', 'heads': old.get('heads', 4), 'kv_heads': 0},
    'feed_forward': {'kind': 'mlp', 'activation': model.get('activation', 'none')},
    'position': {'kind': 'learned', 'length': 0},
    'expansion': 4,
    'linear_in': 'all' if dense else 'feed_forward',  # the same, where all are dense
    'attention_bias': True,
  }
  model['activation'] = {'kind': 'none'}
  return model


def _of_transformer(path: str, shape: Shape, heads: int) -> list[tuple[str, Shape]]:
  """Layers were numbered, where now they are stacked; heads had axes of their own."""
  before, network, below = path.partition('network/')
  if not network:
    return [(path, shape)]
  if below == 'position/table':
    return [(f'{before}network/positions', (1, *shape))]
  part = re.fullmatch(r'layers/([^/]+)/(.+)', below)
  if not part:
    return [(path, shape)]
  module, rest = part.groups()
  own = shape[1:]
  if module == 'attention':
    name, _, kind = rest.partition('/')
    own = _by_head(name, kind, own, heads)
    rest = f'{"out" if name == "output" else name}/{kind}'
    old = 'attention_{}/' + rest
  elif module.endswith('_norm'):
    old = f'norm_{module.removesuffix("_norm")}_{{}}/{rest}'
  else:  # feed_forward/up/...
    name, _, rest = rest.partition('/')
    old = f'{name}_{{}}/{rest}'
  return [(f'{before}network/{old.format(i)}', own) for i in range(shape[0])]


def _by_head(name: str, kind: str, shape: Shape, heads: int) -> Shape:
  """Of flax's attention: kernels (D, H, K) and, of the output, (H, K, D)."""
  split = lambda size: (heads, size // heads)
  if name == 'output':
    return (*split(shape[0]), shape[1]) if kind == 'kernel' else shape
  return (shape[0], *split(shape[1])) if kind == 'kernel' else split(shape[0])
