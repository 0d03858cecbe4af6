"""y = (x W_r + b_r) (x W_g + b_g) + (x * x) W_b + c, quadratic (arXiv 2110.06081).

x (..., I); kernels 'kernel_r', 'kernel_g', 'kernel_b' (I, O), on images (h, w, I, O), and
'bias_r', 'bias_g', 'bias_b' (the c of the formula) (O,); the product and the square are
entrywise. `form` says which branches r, g, b there are: ops/quadratic.py:FORMS. The
activation that follows is the caller's.

`start` is how they begin:

  relinear   W_g = 0, b_g = 1, W_b = 0, c = 0, and W_r, b_r as in a plain layer: at its
             start the layer is the plain one, bit for bit
  random     every branch as a plain layer, for the nets that ReLinear is compared with

Kernels of a plain layer are normal, of standard deviation init_std, or sqrt(2 / fan-in)
(Kaiming) where that is None; biases are zero. Without use_bias there is no b_r and no c,
but b_g stays, since ReLinear needs its 1. In bfloat16 that 1 moves in steps of 1/128 (up)
and 1/256 (down): keep parameters in float32. Squares make deep stacks explode that have no
normalisation before the activation.

`relinear` is how quadratic terms are kept small in training, by `shrink_gradients`, the
paper's ReLinear-sg, or `shrink_weights`, its ReLinear-sw. Parameters belong to branch r, g
or b of their layer by the end of their path; what is of no quadratic layer counts as r. The
rules are explicit: the published code looks for 'r.', 'g.' and 'b.' anywhere in a name, and
so finds 'linear.' among the r.

Ordinary weight decay would pull b_g from 1 to 0: NO_DECAY leaves it out, as a rule of your
own in optimizer.decay_rules should.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import numpy as np
import optax

from elas_jax.common.errors import UserError
from elas_jax.common.fields import fraction
from elas_jax.common.limits import quoted
from elas_jax.common.paths import match
from elas_jax.ops.quadratic import FORMS, convolve, quadratic
from elas_jax.systems.kinds import Axes, Parts


@dataclasses.dataclass(frozen=True)
class Quadratic:
  nested: ClassVar[str] = 'quadratic'  # the inner module of a decoder's linear maps

  form: Literal['full', 'compact', 'hadamard', 'square'] = 'full'  # r g + b, r + b, r g, b
  start: Literal['relinear', 'random'] = 'relinear'  # as the plain layer, or all at random
  relinear: Literal['none', 'gradients', 'weights'] = 'none'  # what shrinks in training
  relinear_g: float = 1e-4  # gradients: factor of the rate for (W_g, b_g); weights: decay
  relinear_b: float = 1e-4  # the same for (W_b, c)

  def check(self, where: str, config: Any) -> None:
    if self.form == 'square' and config.traits.text:
      others = quoted(form for form in FORMS if form != 'square')
      raise UserError(
        f"{where}.form='square': has no linear branch; accepted with "
        f"task='language' are the others, {others}"
      )
    if self.form == 'square' and self.start != 'random':
      raise UserError(
        f"{where}.start={self.start!r}: must be 'random' with {where}.form='square', "
        'which has no linear branch to start from'
      )
    self._check_relinear(where, config.optimizer.learning_rate)

  def _check_relinear(self, where: str, learning_rate: float) -> None:
    """Factors of gradients are shares; decay must not overshoot its target in one step."""
    if self.relinear != 'weights':
      fraction(where, self, 'relinear_g relinear_b')
      return
    most = 1 / learning_rate if learning_rate > 0 else math.inf
    for name in ('relinear_g', 'relinear_b'):
      value = getattr(self, name)
      if not 0 <= value <= most:
        raise UserError(
          f'{where}.{name}={value!r}: must be between 0 and {most:g}, '
          '1 / optimizer.learning_rate, since a step shrinks by their product'
        )

  def make(self, features: int, parts: Parts, name: str) -> nn.Module:
    module = Nested if parts.nested else Module
    return module(features, self, parts, name=name)

  def convolve(
    self, features: int, kernel: tuple[int, int], stride: int, parts: Parts, name: str
  ) -> nn.Module:
    """Of so many pixels, odd numbers, with zeros beyond the border."""
    return Convolution(features, self, parts, kernel, stride, name=name)

  def around_clipping(
    self, inner: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    if self.relinear != 'gradients':
      return inner
    return shrink_gradients(inner, gamma_g=self.relinear_g, gamma_b=self.relinear_b)

  def extra(self) -> list[optax.GradientTransformation]:
    if self.relinear != 'weights':
      return []
    return [shrink_weights(alpha_g=self.relinear_g, alpha_b=self.relinear_b)]


class Module(nn.Module):
  features: int
  kind: Quadratic
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return quadratic(x, _parameters(self, (x.shape[-1], self.features)))


class Nested(nn.Module):
  features: int
  kind: Quadratic
  parts: Parts

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return Module(self.features, self.kind, self.parts, name=self.kind.nested)(x)


class Convolution(nn.Module):
  """(B, H, W, I) to (B, H / stride, W / stride, features)."""

  features: int
  kind: Quadratic
  parts: Parts
  kernel: tuple[int, int]
  stride: int

  @nn.compact
  def __call__(self, x_BxHxWxI: jax.Array) -> jax.Array:
    shape = (*self.kernel, x_BxHxWxI.shape[-1], self.features)
    border = [(side // 2, side // 2) for side in self.kernel]
    linear = functools.partial(convolve, stride=(self.stride, self.stride), padding=border)
    return quadratic(x_BxHxWxI, _parameters(self, shape), linear)


def _parameters(
  module: Module | Convolution, shape: tuple[int, ...]
) -> dict[str, jax.Array]:
  """Declares the kernels of `shape` and biases of the form. That of r comes first, so that
  it is drawn as the kernel of a plain layer of that name."""
  kind, parts = module.kind, module.parts
  std = parts.init_std
  if std is None:
    std = math.sqrt(2 / math.prod(shape[:-1]))
  plain, zeros, ones = (
    nn.initializers.normal(std),
    nn.initializers.zeros,
    nn.initializers.ones,
  )
  relinear, dtype, parameters = kind.start == 'relinear', parts.param_dtype, {}
  for branch in FORMS[kind.form]:
    init = plain if branch == 'r' or not relinear else zeros
    parameters[f'kernel_{branch}'] = module.param(f'kernel_{branch}', init, shape, dtype)
    if parts.use_bias or branch == 'g':
      init = ones if branch == 'g' and relinear else zeros
      name = f'bias_{branch}'
      parameters[name] = module.param(name, init, shape[-1:], dtype)
  return parameters


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


def AXES(kind: Quadratic) -> Axes:
  branches = FORMS[kind.form]
  return {f'kernel_{branch}': ('in', 'out') for branch in branches} | {
    f'bias_{branch}': (None,) for branch in branches
  }


def NO_DECAY(kind: Quadratic) -> tuple[str, ...]:
  return tuple(f'bias_{branch}' for branch in FORMS[kind.form])


def MATRICES(kind: Quadratic) -> tuple[str, ...]:
  return tuple(f'kernel_{branch}' for branch in FORMS[kind.form])


CASES = (
  Quadratic(),
  Quadratic('compact', 'random', relinear='weights', relinear_g=0.3, relinear_b=0.7),
  Quadratic('hadamard', relinear='gradients', relinear_g=0.01),
  Quadratic('square', 'random'),
)


def truth(kind: Quadratic, x: np.ndarray, p: dict) -> np.ndarray:
  linear = lambda x, branch: x @ p[f'kernel_{branch}'] + p.get(f'bias_{branch}', 0)
  r, g, b = (
    functools.partial(linear, x, 'r'),
    functools.partial(linear, x, 'g'),
    functools.partial(linear, x**2, 'b'),
  )
  return {
    'full': lambda: r() * g() + b(),
    'compact': lambda: r() + b(),
    'hadamard': lambda: r() * g(),
    'square': b,
  }[kind.form]()
