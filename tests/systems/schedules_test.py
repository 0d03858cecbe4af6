"""Schedules against their formulas, in plain Python and in NumPy; what does not fit."""

import math
import types

import numpy as np
import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems.schedules import SCHEDULES, half_sine_stages

STEPS, PEAK = 100, 2.0
DISPLACED, STAGES = 'displaced_cosine_restarts', 'half_sine_stages'
FIELDS = {
  'warmup_steps': 10,
  'warmup_fraction': 0.1,
  'decay_steps': 30,
  'decay_shape': 'linear',
  'constant_steps': 20,
  'final_fraction': 0.05,
  'restart_every': 25,
  'restart_warmup_steps': 5,
}


def kind_of(name, **fields):
  """Of these fields, and of FIELDS those that it has."""
  own = {k: v for k, v in FIELDS.items() if hasattr(SCHEDULES[name], k)}
  return SCHEDULES[name](**own | fields)


def check(kind, steps=STEPS):
  kind.check('schedule', types.SimpleNamespace(train=types.SimpleNamespace(steps=steps)))


def rates(name, **fields):
  kind = kind_of(name, **fields)
  check(kind)
  return np.asarray(kind.build(PEAK, STEPS)(np.arange(STEPS + 1)))


@pytest.mark.parametrize('name', sorted(set(SCHEDULES) - {DISPLACED, STAGES}))
def test_warmup_is_linear_from_its_fraction(name):
  expected = 2.0 * (0.1 + 0.9 * np.arange(11) / 10)
  np.testing.assert_allclose(rates(name)[:11], expected, rtol=1e-6)
  assert rates(name, warmup_steps=0)[0] == 2.0


def test_constant():
  assert (rates('constant')[10:] == 2.0).all()


def test_cosine():
  u = np.arange(91) / 90
  expected = 2.0 * (0.05 + 0.95 * 0.5 * (1 + np.cos(math.pi * u)))
  np.testing.assert_allclose(rates('cosine')[10:], expected, rtol=1e-5)


WAYS_DOWN = {
  'linear': lambda u: u,
  'cosine': lambda u: 0.5 * (1 - np.cos(np.pi * u)),
  'one_minus_sqrt': np.sqrt,
}


@pytest.mark.parametrize('shape', [*WAYS_DOWN, 'exponential'])
def test_wsd_and_wsdc(shape):
  u = np.arange(31) / 30
  if shape == 'exponential':
    down = 2.0 * 0.05**u
  else:
    down = 2.0 + (0.1 - 2.0) * WAYS_DOWN[shape](u)
  wsd = rates('wsd', decay_shape=shape)
  assert (wsd[10:70] == 2.0).all()
  np.testing.assert_allclose(wsd[70:], down, rtol=1e-5)
  wsdc = rates('wsdc', decay_shape=shape)
  assert (wsdc[10:50] == 2.0).all()
  np.testing.assert_allclose(wsdc[50:81], down, rtol=1e-5)
  np.testing.assert_allclose(wsdc[80:], 0.1, rtol=1e-5)


def test_cosine_restarts():
  """Those of ReLoRA's code: shares of the cosine's value at the end of the re-warm-up."""
  plain, restarted = rates('cosine'), rates('cosine_restarts')
  expected = plain.copy()
  for restart in (25, 50, 75, 100):
    for j in range(min(5, STEPS + 1 - restart)):
      expected[restart + j] = j / 5 * plain[min(restart + 5, STEPS)]
  np.testing.assert_allclose(restarted, expected, rtol=1e-5)
  # One at the warm-up's end, where the cosine starts, none before.
  late = rates('cosine_restarts', warmup_steps=50)
  np.testing.assert_allclose(late[:50], 2.0 * (0.1 + 0.9 * np.arange(50) / 50), rtol=1e-6)
  assert late[50] == 0.0


def displaced(step, steps, w, every, displacement, length=5):
  """LORO's schedule at a step from 0, by the sheet; as a share of the peak."""
  cosine = lambda t: 0.5 * (1 + math.cos(math.pi * t / (steps - w)))
  if step < w:
    at, value = step, lambda s: 0.1 + (cosine(displacement) - 0.1) * s / w
  else:
    at, value = step - displacement, lambda s: 0.1 + 0.9 * cosine(s - w)
  number, j = divmod(at, every)
  if number > 0 and j < length:
    return 1e-6 + (value(number * every) - 1e-6) * j / length
  return value(at)


@pytest.mark.parametrize(
  'w, every, displacement', [(10, 25, 10), (30, 12, 30), (15, 10, 45), (20, 7, 0)]
)
def test_displaced_cosine_restarts(w, every, displacement):
  ours = rates(
    'displaced_cosine_restarts',
    warmup_steps=w,
    final_fraction=0.1,
    restart_every=every,
    decay_steps=STEPS - w - displacement,
  )
  golden = [displaced(step, STEPS, w, every, displacement) for step in range(STEPS + 1)]
  np.testing.assert_allclose(ours, 2.0 * np.array(golden), rtol=2e-5)


# Of LORO's public log of its run at 130m: iteration, from 1, and its learning rate. Its
# restart at the end of the warm-up is one that the public code no longer has.
LOGGED = {
  1: 0.001,
  100: 0.0014305739236445125,
  501: 1e-08,
  505: 0.0025396946207859082,
  1002: 0.0010698543103929545,
  2000: 0.009694113872377577,
  2006: 0.00972995829319036,
  2504: 0.005908003730980485,
  4000: 0.009999999931461081,
  4001: 1e-08,
  10000: 0.007750680140488675,
  15003: 0.0015843697420137967,
  20000: 0.0012716518928599786,
}


def test_loro_schedule_is_that_of_its_public_log():
  """With the fields' own defaults, but for the shares of the run."""
  kind = SCHEDULES['displaced_cosine_restarts'](warmup_steps=2_000, decay_steps=16_000)
  schedule = kind.build(0.01, 20_000)
  ours = [float(schedule(iteration - 1)) for iteration in LOGGED]
  np.testing.assert_allclose(ours, list(LOGGED.values()), rtol=2e-5)
  np.testing.assert_allclose(float(schedule(2_000)), 0.00972862, rtol=1e-5)


# Of ProSparse's 7B model: step, and lambda there, of stages that end at 5000, 6000, ...
PUBLISHED = (
  *((0, 0), (4999, 0), (5000, 5e-3), (6000, 5e-3), (8000, 27.5e-3), (10_000, 5e-2)),
  *((11_000, 5e-2), (12_000, 5e-2), (14_000, 125e-3), (16_000, 0.2), (16_500, 0.2)),
)


def test_stages_are_those_of_prosparse():
  """With the default, in shares; a quarter of a rise is 1 - sqrt(1 / 2) of its half."""
  kind = SCHEDULES[STAGES]()
  stages = half_sine_stages.in_steps(kind.stages, 'stages', int, 16_500)
  assert stages == '0:5000,0.025:6000,0.25:10000,0.25:12000,1:16000,1:16500'
  check(kind, 16_500)
  schedule = kind.build(0.2, 16_500)
  steps, expected = zip(*PUBLISHED)
  found = [float(schedule(step)) for step in steps]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
  quarter = 5e-2 + 75e-3 * (1 - math.sqrt(0.5))
  np.testing.assert_allclose(float(schedule(13_000)), quarter, rtol=1e-5)


PHASES = r'must be at most train\.steps=100$'
PAIRS = "must be pairs SHARE:END joined by commas, such as '0:500,0.5:0.8,1:1.0'$"
REFUSED = [
  *(
    (STAGES, {'stages': stages}, rf"^schedule\.stages='{stages}': {said}")
    for stages, said in {
      'x': PAIRS,
      '': PAIRS,
      '1:2:3': PAIRS,
      '1:b': PAIRS,
      '1:1.0e999': PAIRS,
      '0:5,2:9': 'its shares of the peak must be between 0 and 1$',
      '0:5,nan:9': 'its shares of the peak must be between 0 and 1$',
      '0:50,1:0.4': r'its ends 50, 40 must ascend and be at most train\.steps=100$',
      '0:50,1:101': r'its ends 50, 101 must ascend and be at most train\.steps=100$',
      '0:-5,1:10': r'its ends -5, 10 must ascend and be at most train\.steps=100$',
      '0:50,1:inf.': PAIRS,
    }.items()
  ),
  ('cosine', {'warmup_steps': 101}, rf'^schedule\.warmup_steps=101: {PHASES}'),
  ('constant', {'warmup_steps': -1}, r'schedule\.warmup_steps=-1: must be at least 0'),
  ('constant', {'warmup_fraction': 1.5}, r'schedule\.warmup_fraction=1\.5: must be betw'),
  (
    'wsd',
    {'decay_steps': 95},
    rf'^schedule\.warmup_steps=10 \+ schedule\.decay_steps=95: {PHASES}',
  ),
  (
    'wsdc',
    {'constant_steps': 61},
    r'^schedule\.warmup_steps=10 \+ schedule\.decay_steps=30 \+ '
    rf'schedule\.constant_steps=61: {PHASES}',
  ),
  ('wsd', {'decay_steps': -1}, r'schedule\.decay_steps=-1: must be at least 0'),
  ('wsdc', {'constant_steps': -1}, r'schedule\.constant_steps=-1: must be at least 0'),
  (DISPLACED, {'decay_steps': -1}, r'schedule\.decay_steps=-1: must be at least 0'),
  (DISPLACED, {'decay_steps': 91}, rf'schedule\.decay_steps=91: {PHASES}'),
  *(
    (name, {'final_fraction': -0.1}, r'schedule\.final_fraction=-0\.1: must be between')
    for name in sorted(set(SCHEDULES) - {'constant', STAGES})
  ),
  *(
    (name, {'decay_shape': 'exponential', 'final_fraction': 0.0}, 'final_fraction=0.0')
    for name in ('wsd', 'wsdc')
  ),
  *(
    (name, fields, said)
    for name in ('cosine_restarts', DISPLACED)
    for fields, said in (
      ({'restart_warmup_steps': 25}, r'restart_warmup_steps=25: must be below schedule\.'),
      ({'restart_warmup_steps': -1}, r'restart_warmup_steps=-1: must be at least 0'),
      ({'restart_every': 0}, r'restart_every=0: must be at least 1'),
    )
  ),
]


@pytest.mark.parametrize('name, fields, said', REFUSED)
def test_what_cannot_be_is_refused(name, fields, said):
  check(kind_of(name))
  with pytest.raises(UserError, match=said):
    check(kind_of(name, **fields))
