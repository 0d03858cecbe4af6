"""Configs of version 1: before objectives and measures had names.

The coefficient of the z-loss stood in `train`, and what 2:4 does to activations was
measured in every language model that had some. This never looks at today's classes.
"""

from typing import Any

Tree = dict[str, Any]

CONSTANT = {'kind': 'constant', 'warmup_steps': 0, 'warmup_fraction': 0.0}


def lift(tree: Tree) -> Tree:
  """A tree of version 1 as one of version 2."""
  train, evaluation = dict(tree.get('train', {})), dict(tree.get('eval', {}))
  coefficient = train.pop('z_loss', 0.0)
  z_loss = {'z_loss': {'coefficient': coefficient, 'schedule': CONSTANT}}
  train['objectives'] = z_loss if coefficient else {}
  rows = tree.get('task', 'language') in ('classification', 'regression')
  evaluation['measures'] = {} if rows else {'activations': {}}
  return tree | {'train': train, 'eval': evaluation}
