"""How the truth of each folder's kinds is held against what they compute."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elas_jax.run.state import init_variables
from elas_jax.systems.kinds import room
from elas_jax.systems.seen import Seen
from elas_jax.systems.sown import asked
from elas_jax.tasks import task_of
from tests.conformance.hosts import batch, hosts, language
from tests.systems.optimizers import descent

STEPS = 20


def close(computed: Any, expected: Any) -> None:
  """Within 1e-4 of each entry, or 2e-5 of the largest."""

  def compare(a: Any, b: Any) -> None:
    size = np.abs(b).max()
    np.testing.assert_allclose(np.float64(a), b, rtol=1e-4, atol=2e-5 * size)

  jax.tree.map(compare, computed, expected)


def float64(tree: Any) -> Any:
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def drawn(module: Any, *inputs: Any, **options: Any) -> dict[str, Any]:
  """Variables in which no parameter is zero, as after some training."""
  variables = module.init(jax.random.key(1), *inputs, **options)
  random = np.random.default_rng(1)
  draw = lambda p: jnp.asarray(p + 0.3 * random.normal(size=p.shape), p.dtype)
  return variables | {'params': jax.tree.map(draw, variables.get('params', {}))}


def merged(variables: dict[str, Any]) -> dict[str, Any]:
  """Parameters and buffers as one tree in float64."""

  def join(a: Any, b: Any) -> Any:
    if not isinstance(a, dict) or not isinstance(b, dict):
      return a
    return {key: join(a.get(key, b.get(key)), b.get(key, {})) for key in {**a, **b}}

  return float64(join(variables.get('params', {}), variables.get('buffers', {})))


def rows(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def dense(x: np.ndarray, p: dict[str, Any]) -> np.ndarray:
  """The linear maps of the models in which a truth of something else is asked for."""
  return x @ p['kernel']


def of_linear(kind: Any) -> None:
  x = rows(3, 5, 8)
  for config in hosts('model.linear', kind)[:2]:  # without biases, and with
    parts = dataclasses.replace(config.model.parts, nested=False)
    module = kind.make(6, parts, name=None)
    variables = drawn(module, x)
    expected = room(kind).truth(kind, np.float64(x), merged(variables))
    assert np.abs(expected).max() > 0.01
    close(module.apply(variables, x), expected)
    if hasattr(kind, 'merged'):
      of_merged(kind, x, variables, expected)


def of_merged(kind: Any, x: np.ndarray, variables: dict, expected: np.ndarray) -> None:
  """The one matrix of a linear map gives what the map does, also of stacked layers."""
  p = variables['params'] | variables.get('buffers', {})
  w_IxO = float64(kind.merged(p))
  close(np.float64(x) @ w_IxO + float64(p.get('bias', 0)), expected)
  twice = jax.tree.map(lambda a: jnp.stack([a, a]), p)
  close(kind.merged(twice), np.stack([w_IxO, w_IxO]))


def of_activation(kind: Any) -> None:
  x = rows(4, 8) * 2
  function, parts = kind.make(language().model.parts, None), {}
  if not hasattr(function, 'init'):
    close(function(x), room(kind).truth(kind, np.float64(x), parts))
    return
  variables = drawn(function, x)
  close(
    function.apply(variables, x), room(kind).truth(kind, np.float64(x), merged(variables))
  )


def of_feed_forward(kind: Any) -> None:
  x, parts = rows(2, 8, 8), language().model.parts
  module = kind.make(parts, name=None)
  variables = drawn(module, x)
  y = module.apply(variables, x, rngs={'noise': jax.random.key(0)})
  expected = room(kind).truth(kind, np.float64(x), merged(variables), dense)
  if expected is None:  # drawn at random: its file says what is tested instead
    assert not hasattr(room(kind.recipe), 'prune') and y.shape == x.shape
    return
  close(y, expected)


def of_recipe(kind: Any) -> None:
  (config,) = hosts('model.feed_forward.recipe', kind)
  of_feed_forward(config.model.feed_forward)


def of_mixer(kind: Any) -> None:
  x, model = rows(2, 8, 8), language(attention=kind).model
  position = room(model.position)
  module = kind.make(model.parts, name=None)
  angles = model.position.angles(jnp.arange(8), kind.head_size(model.parts))
  variables = drawn(module, x, angles, None, 0)
  y, _ = module.apply(variables, x, angles, None, 0)
  turn = lambda heads: position.truth(model.position, heads)
  close(y, room(kind).truth(kind, np.float64(x), merged(variables), dense, turn))


def of_norm(kind: Any) -> None:
  x = rows(6, 8) * 2 + 1
  module = kind.make(language().model.parts, name=None)
  if not hasattr(module, 'init'):
    close(module(x), room(kind).truth(kind, np.float64(x), {}))
    return
  variables = drawn(module, x)
  close(
    module.apply(variables, x), room(kind).truth(kind, np.float64(x), merged(variables))
  )


def of_position(kind: Any) -> None:
  x = rows(2, 6, 3, 4)
  positions = 3 + jnp.arange(6)
  turned = kind.rotate(x, kind.angles(positions, 4))
  close(turned, room(kind).truth(kind, np.float64(x), 3))
  x, module = rows(2, 6, 8), kind.make(language().model.parts, name=None)
  if not hasattr(module, 'init'):
    close(module(x, positions), x)
    return
  variables = drawn(module, x, positions)
  expected = room(kind).added(kind, np.float64(x), merged(variables), 3)
  close(module.apply(variables, x, positions), expected)


def of_optimizer(kind: Any) -> None:
  params = descent.draw(0)
  narrow = jax.tree.map(lambda p: p.astype(np.float32), params)
  gradients = [descent.draw_gradient(seed) for seed in range(1, len(descent.RATES) + 1)]
  computed = descent.descend(kind, narrow, gradients, descent.RATES)
  expected = room(kind).truth(kind, params, gradients, descent.RATES)
  close(descent.determined(computed), descent.determined(expected))


def of_schedule(kind: Any) -> None:
  schedule = kind.build(0.5, STEPS)
  computed = [float(schedule(step)) for step in range(STEPS + 1)]
  close(computed, [room(kind).truth(kind, 0.5, STEPS, step) for step in range(STEPS + 1)])


def rows_of(config: Any) -> dict[str, Any]:
  """Drawn, the last row with a part of its units, or none."""
  rows = batch(config)
  rows['valid'][-1] = task_of(config).row_units(config) - 1
  return jax.tree.map(jnp.asarray, rows)


def fields(seen: Seen) -> dict[str, Any]:
  """What is left of it outside of a compiled function."""
  arrays = {field.name: getattr(seen, field.name) for field in dataclasses.fields(seen)}
  return arrays | {'config': None, 'again': None, 'matrices': seen.matrices()}


def in_float64(arrays: dict[str, Any], config: Any) -> Seen:
  arrays = float64(arrays)
  matrices = arrays.pop('matrices')
  return Seen(**arrays | {'config': config, 'matrices': lambda: matrices})


def of_objective(kind: Any) -> None:
  """Without its coefficient, in which cases mostly differ."""
  of_mean(dataclasses.replace(kind, coefficient=1.0, schedule=type(kind)().schedule))


@functools.cache
def of_mean(kind: Any) -> None:
  """And that, in one model, its gradient reaches parameters."""
  for number, config in enumerate(hosts('train.objectives', kind)):
    variables, rows = init_variables(config), rows_of(config)

    def loss(params, config=config, variables=variables, rows=rows):
      now, key = variables | {'params': params}, jax.random.key(0)
      seen = task_of(config).forward(config, now, rows, key, True, asked([kind]))
      return kind.loss(seen), fields(seen)

    if number:
      value, arrays = jax.jit(loss)(variables['params'])
    else:
      gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
      (value, arrays), gradients = gradient(variables['params'])
      gradients = jax.tree.leaves(gradients)
      assert all(np.isfinite(g).all() for g in gradients)
      assert any(np.abs(g).max() > 1e-6 for g in gradients)
    expected = room(kind).truth(kind, in_float64(arrays, config))
    close(value, expected)
    assert abs(expected) > 1e-6, (
      f'{kind}: {expected} is too near to 0 to tell: other CASES?'
    )


def of_preference(kind: Any) -> None:
  random = np.random.default_rng(0)
  log_p, reference = random.uniform(-9, -1, (2, 6, 2))
  tokens = random.integers(1, 9, (6, 2)).astype(float)
  answers = [x.astype(np.float32) for x in (log_p, reference, tokens)]
  found = kind.loss(*answers), kind.rewards(*answers)
  close(found, room(kind).truth(kind, log_p, reference, tokens))


def of_measure(kind: Any) -> None:
  for config in hosts('eval.measures', kind):

    @functools.partial(jax.jit, static_argnums=0)
    def look(config, variables, rows):
      key = jax.random.key(0)
      seen = task_of(config).forward(config, variables, rows, key, False, asked([kind]))
      return kind.measure(seen), fields(seen)

    values, arrays = look(config, init_variables(config), rows_of(config))
    if not hasattr(room(kind), 'truth'):  # its file says what is tested instead
      assert values and all(np.isfinite(x).all() for x in values.values())
      continue
    expected = room(kind).truth(kind, in_float64(arrays, config))
    assert expected and any(np.max(x) > 0.01 for x in expected.values())
    close(values, expected)


TRUTHS = {
  'model.linear': of_linear,
  'model.activation': of_activation,
  'model.feed_forward': of_feed_forward,
  'model.feed_forward.recipe': of_recipe,
  'model.attention': of_mixer,
  'model.norm': of_norm,
  'model.position': of_position,
  'optimizer': of_optimizer,
  'schedule': of_schedule,
  'train.objectives': of_objective,
  'train.preference': of_preference,
  'eval.measures': of_measure,
}
# Of these no formula says what comes out: networks are made of the kinds above, data and
# tokenizers are compared with files in tests/data, converters with what they were given.
WITHOUT = (
  *('model.architecture', 'data.source', 'data.source (rows)', 'data.source (pairs)'),
  *('data.tokenizer', 'converter'),
)
