"""Every kind of every dict: truth, axes, round trip, a step of training.

What takes longer is marked `conformance` (`make conformance [ONLY=name]`): further cases,
bfloat16, loss, several devices, resumption, and mixers token by token.
"""

import contextlib
import dataclasses
import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elas_jax.catalogue import SYSTEMS
from elas_jax.common.errors import UserError
from elas_jax.common.paths import path_name
from elas_jax.config.checks import check
from elas_jax.config.config import to_json
from elas_jax.config.parsing import parse_stored
from elas_jax.config.schema import kinds_in
from elas_jax.models import layout
from elas_jax.models.decoder import Decoder, empty_cache
from elas_jax.models.flops import flops
from elas_jax.run.checkpoint import Checkpoints
from elas_jax.run.conversion import check_variables
from elas_jax.run.sharding import state_shardings
from elas_jax.run.state import (
  abstract_state,
  abstract_variables,
  create_state,
  state_from,
)
from elas_jax.run.step import jit_train_step
from elas_jax.systems.kinds import axes, matrices, room
from elas_jax.tasks import task_of
from tests.conformance.hosts import (
  all_cases,
  batch,
  cases,
  first_cases,
  given,
  hosts,
  label,
  language,
  mesh_of,
  network,
)
from tests.conformance.truths import TRUTHS, WITHOUT

KINDS = [(section, name) for section, kinds in SYSTEMS.items() for name in kinds]
OF_DATA = ('data.source', 'data.source (rows)', 'data.source (pairs)', 'data.tokenizer')
UNTRAINED = (*OF_DATA, 'eval.measures', 'converter')
FIRST = first_cases()
TRAINED_FIRST = [case for case in FIRST if case[0] not in UNTRAINED]
TRUE = [case for case in all_cases() if case[0] in TRUTHS]
every_case = pytest.mark.parametrize('case', all_cases(), ids=label)
every_trained = pytest.mark.parametrize(
  'case', [case for case in all_cases() if case[0] not in UNTRAINED], ids=label
)


def in_make_test(found, taken):
  """The cases, of which those that are not taken wait for make conformance."""
  later = pytest.mark.conformance
  return [case if taken(case) else pytest.param(case, marks=later) for case in found]


@pytest.mark.parametrize('section, name', KINDS)
def test_a_kind_has_a_room(section, name):
  """A line that says what it is, cases, and a truth or the reason why there is none."""
  module = room(SYSTEMS[section][name])
  line = (module.__doc__ or '').strip().splitlines()[0]
  assert 4 < len(line) <= 92, f'{module.__name__}: its first line is {line!r}'
  assert inspect.isfunction(module.CASES) or module.CASES
  recipes = 'prune' if section.endswith('.recipe') else 'truth'
  explained = '# No truth' in inspect.getsource(module)
  assert hasattr(module, recipes) or explained or section == 'model.architecture'


@pytest.mark.parametrize('section, name', KINDS)
def test_what_a_base_refuses_is_refused(section, name):
  """A check of one's own calls that of its base, whose fields all kinds have."""
  kind = SYSTEMS[section][name]
  if inspect.isfunction(room(kind).CASES):
    return  # of files, which share no check
  case = room(kind).CASES[0]
  (config, *_) = hosts(section, case)
  for base in kind.__mro__[1:]:
    if 'check' not in vars(base) or not dataclasses.is_dataclass(base):
      continue
    for field in dataclasses.fields(base):
      if type(getattr(case, field.name)) in (int, float):
        bad = dataclasses.replace(case, **{field.name: -1e9})
        if refuses(functools.partial(base.check, bad), config):
          assert refuses(bad.check, config), f'{field.name}={-1e9} is taken: no super()'


def refuses(check, config):
  try:
    check('section', config)
  except UserError:
    return True
  return False


def test_every_section_has_its_truths():
  assert {*TRUTHS, *WITHOUT} == set(SYSTEMS)


@every_case
def test_round_trip_through_json(case):
  section, _, kind = case
  found = hosts(section, kind)
  assert found, f'{label(case)}: no model takes it'
  for config in found:
    assert parse_stored(json.loads(to_json(config))) == config


@pytest.mark.parametrize('section', OF_DATA)
def test_cases_of_files(section, tmp_path):
  """Those that read what they write: the configs round trip, and the data open."""
  for _, _, kind in cases(section, tmp_path):
    (config,) = hosts(section, kind)
    assert parse_stored(json.loads(to_json(config))) == config
    if section == 'data.tokenizer':
      ids = kind.load().encode('the quick fox')[0]
      assert kind.load().decode([int(i) for i in ids])


@pytest.mark.parametrize('case', in_make_test(TRUE, FIRST.__contains__), ids=label)
def test_truth(case):
  section, _, kind = case
  TRUTHS[section](kind)


def smallest(found):
  """The quickest to compile: the first network, if it can stand in one."""
  return next((config for config in found if config.task != 'language'), found[0])


@pytest.mark.parametrize('case', TRAINED_FIRST, ids=label)
def test_every_parameter_has_a_place(case):
  """In the smallest model that takes it."""
  assert_placed(smallest(hosts(case[0], case[2])))


def assert_placed(config):
  """Axes, decay and FLOPs name each parameter."""
  variables = abstract_variables(config)
  placed = layout.axes(config.model)
  for part in variables.values():
    for path, leaf in jax.tree_util.tree_leaves_with_path(part):
      name = path_name(path)
      # All dimensions but those of the stacked layers and of a convolution's pixels.
      own = leaf.ndim - layout.stacked(name)
      assert len(placed[name]) == own or (leaf.ndim, len(placed[name])) == (4, 2), name
  params = jax.tree_util.tree_leaves_with_path(variables['params'])
  names = {path_name(path) for path, _ in params}
  assert layout.no_decay(config.model) <= names
  assert flops(config.model, variables['params'], config.length) > 0
  mesh = mesh_of(config)
  state_shardings(config, mesh, abstract_state(config, mesh))


@pytest.mark.parametrize('case', list(cases('model.linear')), ids=label)
def test_every_matrix_counts_for_flops(case):
  """What has inputs, outputs or a rank on two sides multiplies activations."""
  kind = case[2]
  two_sided = {path for path, roles in axes(kind).items() if sum(map(bool, roles)) > 1}
  assert hasattr(kind, 'flops') or two_sided <= set(matrices(kind))


@functools.cache
def step_of(config):
  return jit_train_step(config, mesh_of(config))


@functools.cache
def start(config):
  """The state at step 0, on the host."""
  return jax.device_get(create_state(config, mesh_of(config)))


def trained(config, steps, state=None, of=None):
  """(state, losses) after steps on one batch.

  Args:
    state: from where; by default the start.
    of: the config whose start it is, if it is that of another mesh.
  """
  mesh, rows, losses = mesh_of(config), batch(config), []
  shardings = jax.tree.map(lambda x: x.sharding, abstract_state(config, mesh))
  # Copied: a step takes the memory of the state that it is given.
  state = jax.device_put(state or start(of or config), shardings, may_alias=False)
  with jax.set_mesh(mesh):
    for _ in range(steps):
      state, metrics = step_of(config)(state, jax.tree.map(jnp.asarray, rows))
      losses.append(float(metrics['loss'] / metrics['count']))
  return state, losses


def in_a_stack(case):
  """Takes half a second to compile; a step of a decoder or a ViT takes seconds."""
  model = smallest(hosts(case[0], case[2])).model
  return getattr(model, 'architecture', None) == network().model.architecture


@pytest.mark.parametrize('case', in_make_test(TRAINED_FIRST, in_a_stack), ids=label)
def test_a_step_of_training(case):
  config = smallest(hosts(case[0], case[2]))
  state, losses = trained(config, 1)
  assert np.isfinite(losses).all()
  different = lambda a, b: not np.array_equal(a, b)
  moved = jax.tree.map(different, start(config).params, state.params)
  assert any(jax.tree.leaves(moved))


FEED_FORWARDS = ('model.feed_forward', 'model.feed_forward.recipe')


@pytest.mark.parametrize('case', [x for x in FIRST if x[0] in FEED_FORWARDS], ids=label)
def test_gradients_of_a_feed_forward(case):
  """Finite, and they reach every parameter: what a step of a decoder needs of it."""
  model = hosts(case[0], case[2])[0].model
  module, x = model.feed_forward.make(model.parts, name=None), jnp.ones((2, 8, 8))
  x = x + jax.random.normal(jax.random.key(0), x.shape)
  variables = jax.jit(module.init)(jax.random.key(1), x)

  def loss(params):
    noise = {'noise': jax.random.key(2)}
    now = variables | {'params': params}
    y, _ = module.apply(now, x, rngs=noise, mutable=['buffers'])
    return jnp.square(y - 1).sum()

  for slope in jax.tree.leaves(jax.jit(jax.grad(loss))(variables['params'])):
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


@pytest.mark.parametrize('case', list(cases('model.attention')), ids=label)
def test_mixers_are_causal(case):
  """The gradient of an output by later inputs is zero."""
  model = language(attention=case[2]).model
  module, x = case[2].make(model.parts, name=None), jnp.ones((1, 8, 8))
  x = x + jax.random.normal(jax.random.key(0), x.shape)
  angles = model.position.angles(jnp.arange(8), case[2].head_size(model.parts))
  init = jax.jit(lambda: module.init(jax.random.key(1), x, angles, None, 0))
  variables = init()
  y = lambda x: module.apply(variables, x, angles, None, 0)[0][0].sum(-1)
  by_input = np.abs(jax.jit(jax.jacobian(y))(x)[:, 0]).sum(-1)  # (output, input)
  assert not by_input[np.triu_indices(8, 1)].any()
  assert by_input[np.tril_indices(8)].all()


def converted(case, config):
  """(config, variables) after a conversion of drawn parameters, checked."""
  _, name, converter = case
  random = np.random.default_rng(0)
  draw = lambda p: p + jnp.asarray(0.2 * random.normal(size=p.shape), p.dtype)
  variables = start(config).variables
  variables |= {'params': jax.tree.map(draw, variables['params'])}
  told, rows = given(config, variables, []), batch(config)
  new_config, new = converter.convert(told)
  check(new_config)
  check_variables(new_config, new, name)
  assert parse_stored(json.loads(to_json(new_config))) == new_config
  before, after = (
    np.asarray(told.outputs(*model, rows)[0])
    for model in ((config, variables), (new_config, new))
  )
  assert np.isfinite(after).all() and np.ptp(before) > 0.1
  if converter.equal:
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * np.abs(before).max())
  return new_config, new


@pytest.mark.parametrize(
  'case', [case for case in FIRST if case[0] == 'converter'], ids=label
)
def test_a_conversion(case):
  converted(case, smallest(hosts(case[0], case[2])))


# --- the rest takes longer: make conformance ---


@pytest.mark.conformance
@pytest.mark.parametrize('case', list(cases('converter')), ids=label)
def test_what_is_converted_trains_on(case):
  """In every model that the converter takes; a further case in the smallest."""
  found = hosts(case[0], case[2])
  for config in found if case in FIRST else [smallest(found)]:
    config, variables = converted(case, config)
    _, losses = trained(config, 2, jax.device_get(state_from(config, variables)))
    assert np.isfinite(losses).all()


@pytest.mark.conformance
@every_trained
def test_every_parameter_has_a_place_in_every_model(case):
  for config in hosts(case[0], case[2]):
    assert_placed(config)


@pytest.mark.conformance
@every_trained
def test_training_in_full(case, tmp_path):
  """The loss of a repeated batch falls, a resumed run is the uninterrupted one, four
  devices are one, and bfloat16 is close to float32: one test, since they share programs.

  The first case of a kind is trained like that in the first model that takes it, and for
  the loss in the others; a further case in the smallest model.
  """
  found = hosts(case[0], case[2])
  further = case not in FIRST
  for number, config in enumerate([smallest(found)] if further else found):
    whole, losses = trained(config, config.train.steps)
    assert np.isfinite(losses).all()
    assert min(losses[-3:]) < losses[0], losses
    if not number:
      assert_resumes(config, whole, tmp_path)
      assert_same_on_four_devices(config, losses)
      assert_close_in_bfloat16(config, start(config).variables, losses[0])


def assert_resumes(config, whole, folder):
  """Training for two steps, saved and restored, and then for the rest ends in `whole`."""

  class Position:
    get_state, set_state = (lambda self: {'at': 2}), (lambda self, state: None)

  half, _ = trained(config, 2)
  with contextlib.closing(Checkpoints(folder, config.checkpoint)) as checkpoints:
    tree = json.loads(to_json(config))
    checkpoints.save(half, Position(), tree, {'name': 'bytes'}, {}, None)
    checkpoints.wait()
    restored = checkpoints.restore(abstract_state(config, mesh_of(config)), Position())
  resumed, _ = trained(config, config.train.steps - 2, restored)
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def assert_same_on_four_devices(config, losses):
  """Closer than what rounding the parameters once changes, of which some make much."""
  if kinds_that_draw(config):
    return
  sizes = {'data': 1, 'fsdp': 2, 'tensor': 2}
  mesh = dataclasses.replace(config.mesh, **sizes)
  _, found = trained(dataclasses.replace(config, mesh=mesh), 2, of=config)
  rounding = [trained(config, 2, rounded(config, seed))[1] for seed in range(3)]
  most = np.abs(np.subtract(rounding, losses[:2])).max(0)
  assert (np.abs(np.subtract(found, losses[:2])) <= 2e-4 * losses[0] + 5 * most).all()


def rounded(config, seed):
  """The start with float32's error of one rounding in every parameter."""
  random, state = np.random.default_rng(seed), start(config)
  change = lambda x: x * (1 + random.uniform(-1, 1, x.shape) * 2.0**-23)
  params = jax.tree.map(lambda x: change(x).astype(x.dtype), state.params)
  return dataclasses.replace(state, params=params)


def kinds_that_draw(config):
  """Whether a layer draws numbers, whose order differs with the devices."""
  recipes = [kind for where, _, kind in kinds_in(config) if where.endswith('.recipe')]
  return any(not hasattr(room(recipe), 'prune') for recipe in recipes)


def assert_close_in_bfloat16(config, variables, loss):
  """Of the first step; classifiers compute in float32."""
  if not hasattr(config.model, 'compute_dtype'):
    return
  model = dataclasses.replace(config.model, compute_dtype='bfloat16')
  config = dataclasses.replace(config, model=model)

  @jax.jit
  def loss_of(variables, rows):
    key = jax.random.fold_in(jax.random.key(config.seed), 0)  # as train_step has it
    return task_of(config).forward(config, variables, rows, key, True).sums

  sums = loss_of(variables, batch(config))
  assert abs(sums['loss'] / sums['count'] - loss) < 0.03 * abs(loss)


@pytest.mark.conformance
@pytest.mark.parametrize('case', list(cases('model.attention')), ids=label)
def test_token_by_token_equals_parallel(case):
  model = language(attention=case[2]).model
  decoder, tokens = Decoder(model), jnp.arange(12).reshape(2, 6) % 17
  variables = decoder.init(jax.random.key(0), tokens)
  whole, _ = decoder.apply(variables, tokens)
  state, parts = empty_cache(model, 2, 6), []
  for t in range(6):
    logits, state = decoder.apply(variables, tokens[:, t : t + 1], state, t)
    parts.append(logits)
  np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-4, atol=1e-5)
