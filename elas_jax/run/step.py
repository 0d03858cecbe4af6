"""One optimiser step: the loss and its gradient over micro-batches, and the update."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from elas_jax.config.config import Config
from elas_jax.run import objectives
from elas_jax.run.optimizer import apply_updates
from elas_jax.run.state import TrainState, abstract_state, optimizer_of, with_kept
from elas_jax.systems.sown import asked
from elas_jax.tasks import task_of
from elas_jax.tasks.task import Batch


def gradients(
  config: Config,
  variables: dict[str, Any],
  batch: Batch,
  key: jax.Array,
  step: jax.Array,
  kept: dict[str, Any] | None = None,
) -> tuple[Any, dict, Any]:
  """Gradient of the mean loss over the batch's units, its sums, new buffers.

  The loss is that of the task and, with their coefficients at `step` (from 0), what
  train.objectives add, with what they have `kept` so far.

  With train.accumulation > 1 the rows go through in that many micro-batches, one after
  the other; since each is divided by the units of the whole batch, the result is that
  of one pass, up to rounding.
  """
  task, sown = task_of(config), asked(config.train.objectives)
  count = jnp.maximum(batch['valid'].sum(), 1).astype(jnp.float32)

  def loss(params, buffers, rows, key):
    variables = {'params': params, 'buffers': buffers}
    seen = task.forward(config, variables, rows, key, True, sown)
    added, sums = objectives.added(config, seen, step, kept or {})
    return (seen.sums['loss'] + added) / count, (seen.sums | sums, seen.changed)

  def grad(buffers, rows, key):
    grads, (sums, buffers) = jax.grad(loss, has_aux=True)(
      variables['params'], buffers, rows, key
    )
    wide = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
    return buffers, (wide(grads), sums)

  parts = config.train.accumulation
  if parts == 1:
    buffers, (grads, sums) = grad(variables['buffers'], batch, key)
    return grads, sums, buffers
  # Row i goes to micro-batch i mod parts: every device then keeps its own rows.
  split = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
  batch, keys = jax.tree.map(split, batch), jax.random.split(key, parts)

  def add(carry, part):
    buffers, total = carry
    buffers, one = grad(buffers, *part)
    return (buffers, jax.tree.map(jnp.add, total, one)), None

  first = jax.tree.map(lambda x: x[0], (batch, keys))
  one = jax.eval_shape(grad, variables['buffers'], *first)[1]
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), one)
  carry = (variables['buffers'], zeros)
  (buffers, (grads, sums)), _ = jax.lax.scan(add, carry, (batch, keys))
  return grads, sums, buffers


def train_step(
  config: Config, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimiser step; the metrics are those of the parameters before it."""
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  variables, kept = state.variables, state.kept
  grads, sums, buffers = gradients(config, variables, batch, key, state.step, kept)
  buffers = with_kept(buffers, objectives.next_kept(config, kept, sums, state.step))
  optimizer = optimizer_of(config)
  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = apply_updates(state.params, updates)
  metrics = sums | {'grad_norm': optax.tree.norm(grads)}
  return TrainState(state.step + 1, params, buffers, opt_state), metrics


def jit_train_step(config: Config, mesh: Mesh, now: Config | None = None) -> Callable:
  """(state, batch) -> (state, metrics) on this mesh; the state is donated.

  `now` is the config of the phase, at_step(config, step); `config` itself unless given. The
  state is that of `config` in all phases.
  """
  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))
  step = functools.partial(train_step, now or config)
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
