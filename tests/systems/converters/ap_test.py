"""A cycle of AP against sorted lists, and cycles of a run by the command."""

import dataclasses

import jax
import numpy as np
import pytest

from elas_jax import convert
from elas_jax.common.errors import UserError
from elas_jax.config.config import to_json
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import create_state
from elas_jax.run.workdir import open_run
from elas_jax.systems.converters.ap import AP, cycle
from elas_jax.systems.linears import LINEARS
from elas_jax.train import train
from tests.conformance.hosts import language, network
from tests.conftest import thinned
from tests.systems.converters.drawn import at, converted, drawn
from tests.systems.converters.extend_grid_test import config_of


def by_lists(w, w0, alive, share, activating):
  """As the cycle is said, one weight after the other."""
  places = [(path, i) for path in w for i in np.ndindex(w[path].shape) if alive[path][i]]
  count = len(places)
  first = sorted(places, key=lambda p: abs(w[p[0]][p[1]]))
  left = first[round(1e6 * (share - activating) * count) // 10**6 :]
  negative = [p for p in left if w[p[0]][p[1]] < 0]
  by_move = sorted(negative, key=lambda p: abs(w[p[0]][p[1]] - w0[p[0]][p[1]]))
  gone = set(by_move[: round(1e6 * activating * count) // 10**6])
  kept = {path: np.zeros(x.shape, bool) for path, x in w.items()}
  for path, i in left:
    kept[path][i] = (path, i) not in gone
  return kept


@pytest.mark.parametrize(('share', 'activating'), [(0.2, 0.02), (0.5, 0.0), (0.9, 0.6)])
def test_a_cycle_by_lists(share, activating):
  random = np.random.default_rng(0)
  shapes = {'a': (7, 5), 'b': (2, 4, 6)}
  draw = lambda: {path: random.normal(size=shape) for path, shape in shapes.items()}
  w, w0 = draw(), draw()
  alive = {path: random.uniform(size=shape) > 0.3 for path, shape in shapes.items()}
  found = cycle(w, w0, alive, share, activating)
  expected = by_lists(w, w0, alive, share, activating)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  if (share, activating) == (0.2, 0.02):  # all of the negative ones are not enough above
    count = sum(x.sum() for x in alive.values())
    gone = count - sum(x.sum() for x in found.values())
    assert gone == int(0.18 * count) + int(0.02 * count)


@pytest.mark.parametrize('model', thinned([language, network], network))
def test_what_survives_is_at_its_start(model):
  config = model()
  new_config, new, said = converted(AP(0.5, 0.1), config, drawn(config))
  fresh = jax.jit(lambda: create_state(config, make_mesh(config, jax.devices()[:1])).params)
  changed = 0
  for path, start in jax.tree_util.tree_leaves_with_path(fresh()):
    *parents, name = (key.key for key in path)
    p = at(new['params'], '/'.join((*parents, name)))
    mask = at(new['buffers'], '/'.join(parents))['mask'] if name == 'kernel' else True
    np.testing.assert_array_equal(p, np.where(mask, start, 0))
    changed += name == 'kernel'
  assert changed and said[0].endswith('all set to their start')
  assert new_config.model.linear == LINEARS['masked']()


@pytest.mark.parametrize(
  ('converter', 'linear', 'message'),
  [
    (AP(share=1.0), 'dense', '^converter.share=1.0: must be between 0 and 1$'),
    (AP(activating=0.3), 'dense', '^converter.activating=0.3: must be between 0 and conv'),
    (AP(), 'low_rank', "^model.linear='low_rank': must be 'dense' or 'masked', whose"),
  ],
)
def test_what_cannot_be_is_refused(converter, linear, message):
  with pytest.raises(UserError, match=message):
    converter.check('converter', language(linear=LINEARS[linear]()))


def command(workdir, output, name, *options):
  places = f'--workdir={workdir}', f'--output={output}'
  convert.main([*places, f'--converter={name}', *options])


def variables_of(workdir):
  run = open_run(workdir, None, {'eval.batch_size': 4})
  return run.past.parsed, jax.device_get(run.variables)


@pytest.mark.usefixtures('four_devices')
def test_cycles_begin_at_the_first_start(tmp_path, capsys):
  """Train, convert, train on there, convert again: zeros grow, survivors are rewound."""
  first, second, third = (tmp_path / name for name in ('first', 'second', 'third'))
  config = config_of('mlp', **{'model.width': 8, 'train.steps': 3})
  train(config, first)
  masks = []
  start = jax.device_get(create_state(config, make_mesh(config)).variables)
  for old, new in ((first, second), (second, third)):
    command(old, new, 'ap', '--converter.share=0.4', '--converter.activating=0.1')
    now, variables = variables_of(new)
    for name in ('layer_0', 'head'):
      mask = variables['buffers']['network'][name]['mask']
      whole = start['params']['network'][name]
      p = variables['params']['network'][name]
      np.testing.assert_array_equal(p['kernel'], np.where(mask, whole['kernel'], 0))
      np.testing.assert_array_equal(p['bias'], whole['bias'])
    masks.append(variables['buffers'])
    if new is second:
      train(now, second)
      trained = variables_of(second)[1]
      jax.tree.map(np.testing.assert_array_equal, trained['buffers'], masks[0])
  pairs = zip(*map(jax.tree.leaves, masks))
  assert all((before >= after).all() for before, after in pairs)
  assert sum(x.sum() for x in jax.tree.leaves(masks[1])) < 0.7 * sum(
    x.sum() for x in jax.tree.leaves(masks[0])
  )
  assert 'weights alive -> ' in capsys.readouterr().out

  command(first, tmp_path / 'pruned', 'prune')
  with pytest.raises(UserError, match="^--workdir=.*pruned: made by the converter 'prune'"):
    command(tmp_path / 'pruned', tmp_path / 'fourth', 'ap')
  restored = dataclasses.replace(now, restore=str(second))
  train(restored, tmp_path / 'restored')
  assert to_json(variables_of(tmp_path / 'restored')[0]) == to_json(restored)
  with pytest.raises(UserError, match="^restore='.*second': must be empty, since the run"):
    command(tmp_path / 'restored', tmp_path / 'fourth', 'ap')
  (second / 'conversion.json').write_text('{"converter": ')
  with pytest.raises(UserError, match='second/conversion.json: is damaged: JSONDecode'):
    command(second, tmp_path / 'fourth', 'ap')
  assert not (tmp_path / 'fourth').exists()
