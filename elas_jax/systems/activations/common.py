"""What activations share: those without parameters, and those with trained numbers."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

# Name of a parameter -> how it starts, and its shape.
Starts = dict[str, tuple[Callable, tuple[int, ...]]]


class Plain:
  """A kind whose whole doing is `function`: (...) -> (...), entry by entry."""

  function: ClassVar[Callable[[jax.Array], jax.Array]]

  def check(self, where: str, config: Any) -> None:
    """Any field that has the right type can run."""

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    return type(self).function


class Trained:
  """A kind with a few trained numbers, those of a layer shared by all of its entries."""

  def check(self, where: str, config: Any) -> None:
    """Any field that has the right type can run."""

  def starts(self) -> Starts:
    raise NotImplementedError

  def formula(self, x: jax.Array, **numbers: jax.Array) -> jax.Array:
    """Of x and the parameters by their names, all in float32."""
    raise NotImplementedError

  def make(self, parts: Any, name: str | None) -> nn.Module:
    return Module(self, parts.param_dtype, name=name)


class Module(nn.Module):
  """Computes in float32, since powers and products of bfloat16 lose too much.

  Saved for the backward pass: x and the numbers. The formula is computed again there, as
  PolyCom does it: autodiff would keep several arrays of x's size.
  """

  kind: Trained
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    numbers = {
      name: self.param(name, start, shape, self.dtype)
      for name, (start, shape) in self.kind.starts().items()
    }

    @jax.checkpoint
    def computed(x: jax.Array, numbers: dict[str, jax.Array]) -> jax.Array:
      wide = {name: value.astype(jnp.float32) for name, value in numbers.items()}
      return self.kind.formula(x.astype(jnp.float32), **wide).astype(x.dtype)

    return computed(x, numbers)


def constant(value: float) -> tuple[Callable, tuple[int, ...]]:
  """One number that starts there."""
  return nn.initializers.constant(value), ()


def coefficients(order: int) -> tuple[Callable, tuple[int, ...]]:
  """Of a polynomial, (order + 1,): 0, and then 1 / order each (PolyCom)."""
  start = lambda _, shape, dtype: jnp.full(shape, 1 / order, dtype).at[0].set(0)
  return start, (order + 1,)
