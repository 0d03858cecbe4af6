"""Configs of version 3: before heads that share keys were a mixer of their own."""

from typing import Any

Tree = dict[str, Any]


def lift(tree: Tree) -> Tree:
  """A tree of version 3 as one of version 4."""
  if 'model' not in tree:
    return tree
  model = dict(tree['model'])
  if 'attention' in model:
    model['attention'] = _of_section(model['attention'])
  architecture = model.get('architecture')
  if isinstance(architecture, dict) and 'attention' in architecture:
    attention = _of_section(architecture['attention'])
    model['architecture'] = architecture | {'attention': attention}
  mixers = model.get('mixers') or {}
  if 'mha' in mixers:
    fields = _of_section({'kind': 'mha'} | mixers['mha'])
    name = fields.pop('kind')
    model['mixers'] = {x: y for x, y in mixers.items() if x != 'mha'} | {name: fields}
    layers = model.get('pattern', '').split(',')
    model['pattern'] = ','.join(_renamed(layer, name) for layer in layers)
  return tree | {'model': model}


def _of_section(mixer: Any) -> Any:
  """Where mha had fewer heads of keys and values, gqa takes its place."""
  if not isinstance(mixer, dict) or mixer.get('kind') != 'mha':
    return mixer
  fields = dict(mixer)
  heads, kv_heads = fields.get('heads', 4), fields.pop('kv_heads', 0)
  if kv_heads in (0, heads):
    return fields
  return fields | {'kind': 'gqa', 'heads': heads, 'kv_heads': kv_heads}


def _renamed(layer: str, name: str) -> str:
  """A layer of the pattern, 'mha' or 'mha+feed_forward', with that name of the mixer."""
  mixer, plus, feed_forward = layer.partition('+')
  return f'{name if mixer == "mha" else mixer}{plus}{feed_forward}'
