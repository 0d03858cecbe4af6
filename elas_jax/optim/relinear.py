"""ReLinear's two ways to keep quadratic terms small (arXiv 2110.06081).

Parameters belong to branch r, g or b of their layer by the end of their path; what is of
no quadratic layer counts as r. The rules are explicit: the published code looks for 'r.',
'g.' and 'b.' anywhere in a name, and so finds 'linear.' among the r.

Ordinary weight decay would pull b_g from 1 to 0: the rules of configs/default.py leave it
out, as a rule of your own in optimizer.decay_rules should.
"""

from typing import Any

import jax
import optax

from elas_jax.common.paths import match

BRANCHES = (
  (r'(^|/)(kernel|bias)_g$', 'g'),
  (r'(^|/)(kernel|bias)_b$', 'b'),
  ('', 'r'),
)
TARGETS = ((r'(^|/)bias_g$', 1.0), ('', 0.0))  # where ReLinear starts the terms


def shrink_gradients(
  inner: optax.GradientTransformation,
  *,
  gamma_g: float,
  gamma_b: float,
  rules: tuple[tuple[str, str], ...] = BRANCHES,
) -> optax.GradientTransformation:
  """ReLinear-sg: learning rate gamma_g lr for (W_g, b_g), gamma_b lr for (W_b, c).

  `inner` is the whole optimiser, learning rate, decay and clipping included. The factors
  act on its updates: Adam's do not change when gradients are scaled. In the end they are

    u_g = gamma_g inner_g,   u_b = gamma_b inner_b,   u_r = inner_r

  gamma = 1 is plain quadratic training; gamma_g = gamma_b = 0, from ReLinear's start, the
  training of the plain net exactly (compiled, up to the order of sums). For that the
  gradients of a branch whose gamma is 0 do not even reach `inner`, where a clip by the
  global norm would count them. Published: 1e-4 (CIFAR-10), 1e-2 (ReZero), and 0 to 0.35,
  as the task wants, in auto-encoders.
  """
  factors = {'g': gamma_g, 'b': gamma_b, 'r': 1.0}
  scaled = lambda tree, of: jax.tree.map(
    lambda x, branch: x if of[branch] == 1 else of[branch] * x,
    tree,
    match(tree, rules, 'relinear'),
  )
  seen = {branch: float(factor != 0) for branch, factor in factors.items()}

  def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    updates, state = inner.update(scaled(grads, seen), state, params)
    return scaled(updates, factors), state

  return optax.GradientTransformation(inner.init, update)


def shrink_weights(
  *,
  alpha_g: float,
  alpha_b: float,
  rules: tuple[tuple[str, str], ...] = BRANCHES,
  targets: tuple[tuple[str, float], ...] = TARGETS,
) -> optax.GradientTransformation:
  """ReLinear-sw: decoupled decay of the quadratic terms towards ReLinear's start.

    direction += alpha_branch (p - target),   target 1 for b_g and 0 for W_g, W_b and c

  Goes where optax.add_decayed_weights goes, between directions and learning rate, so that
  a step shrinks the distance by lr alpha. The exact published update, with two pairs of
  hyper-parameters, is not known to us: this is our reading of it.
  """
  alphas = {'g': alpha_g, 'b': alpha_b, 'r': 0.0}

  def update(directions: Any, state: Any, params: Any) -> tuple[Any, Any]:
    branches = match(params, rules, 'relinear')
    shrunk = lambda d, p, branch, target: (
      d + alphas[branch] * (p - target) if alphas[branch] else d
    )
    goals = match(params, targets, 'relinear')
    return jax.tree.map(shrunk, directions, params, branches, goals), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
