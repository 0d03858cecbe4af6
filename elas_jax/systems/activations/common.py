"""What activations share that have no parameters: (...) -> (...), entry by entry."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax


class Plain:
  """A kind whose whole doing is `function`."""

  function: ClassVar[Callable[[jax.Array], jax.Array]]

  def check(self, where: str, config: Any) -> None:
    """Any field that has the right type can run."""

  def make(self, parts: Any, name: str | None) -> Callable[[jax.Array], jax.Array]:
    return type(self).function
