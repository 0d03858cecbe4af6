"""The timers: what they divide by what, which stands in for which, and a loop's program."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pallas_kernels.bench import loop, timing

A, B = jnp.ones((32, 48)), jnp.ones((48, 64))


def test_sets_exceed_the_cache():
  assert timing.sets_needed(jnp.ones(1 << 24)) == 2  # 67 MB: two exceed 60 MB twice


# The program of the loop


@pytest.fixture
def optimised():
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', True)


def products(text: str) -> dict[str, int]:
  """Of a compiled program: products in the body of its loop, and in its entry."""
  computation = r'^(?:ENTRY )?%(\S+) \(.*?\{\n(.*?)^\}'
  computations = dict(re.findall(computation, text, re.M | re.S))

  def count(name):
    found = computations[name]
    inner = re.findall(r'(?:calls|to_apply)=%([\w.-]+)', found)
    return len(re.findall(r' dot\(', found)) + sum(map(count, inner))

  [body] = re.findall(r' while\(.*body=%([\w.-]+)', text)
  return {'body': count(body), 'entry': count(re.search(r'^ENTRY %(\S+)', text, re.M)[1])}


def test_the_product_is_made_in_every_turn_of_the_loop(optimised):
  calls = [(jnp.dot, (A, B)), (jnp.dot, (2 * A, B))]
  program = loop.looped(calls)
  assert products(program.as_text()) == {'body': 2, 'entry': 0}
  first, second = program([args for _, args in calls], loop.results(calls))
  np.testing.assert_array_equal(first, np.full((32, 64), 48.0))
  np.testing.assert_array_equal(second, np.full((32, 64), 96.0))


def test_no_memory_is_filled_or_copied_around_the_loop(optimised):
  text = loop.looped([(lambda x: x + 1, (A,))]).as_text()
  made = re.findall(r'= f32\[32,48\]\S* ([\w-]+)\(', text[text.index('\nENTRY') :])
  assert sorted(made) == ['get-tuple-element', 'parameter', 'parameter']


def test_without_the_barrier_the_product_leaves_the_loop(optimised):
  """So the test above can fail."""

  def hoisted(a, b):
    turn = lambda _, out: jnp.dot(a, b) + out
    return lax.fori_loop(0, loop.TURNS, turn, jnp.zeros((32, 64)))

  text = jax.jit(hoisted).lower(A, B).compile().as_text()
  assert products(text) == {'body': 0, 'entry': 1}


# Arithmetic, by a clock that goes by calls


class Clock:
  """Every run of a program takes 3 us a call; a measurement takes 61 us besides."""

  def __init__(self, microseconds: float = 3.0):
    self.now, self.each = 0.0, microseconds

  def __call__(self):
    self.now += 2**-14
    return self.now

  def program(self, every, outs):
    self.now += self.each * 1e-6 * loop.TURNS * len(every)
    return outs


def test_a_loop_is_timed_by_a_difference():
  clock, calls = Clock(), [(jnp.dot, (A, B))] * 2
  assert loop.microseconds(clock.program, calls, 5, clock) == pytest.approx(3.0)
  with pytest.raises(RuntimeError, match='no longer'):
    loop.microseconds(Clock(0.0).program, calls, 5, Clock(0.0))


def calls_of(function):
  timed = timing.Timed(jax.jit(function).lower(A).compile(), [(A,)], function)
  return {'a': timed, 'b': timed}


def broken(*_):
  raise RuntimeError('no kernels')


@pytest.mark.parametrize(
  ('fails', 'used'), [({'_kernels'}, 'loop'), ({'_kernels', 'loop'}, 'wall'), (set(), None)]
)
def test_a_timer_that_fails_is_replaced_by_the_next(fails, used, monkeypatch):
  monkeypatch.setattr(timing, '_count', lambda call: 3)
  monkeypatch.setattr(timing, '_wall', lambda call, count: 30.0)
  monkeypatch.setattr(
    timing, '_kernels', broken if '_kernels' in fails else lambda *_: 10.0
  )
  monkeypatch.setattr(loop, 'microseconds', broken if 'loop' in fails else lambda *_: 20.0)
  found = timing.in_turns(calls_of(lambda a: a + 1), 2, 'cupti')
  us = {None: 10.0, 'loop': 20.0, 'wall': 30.0}[used]
  for entry in found.values():
    assert entry['us'] == {'median': us, 'min': us, 'max': us}
    assert entry['wall_us']['median'] == 30.0 and entry.get('timer') == used
    assert ('timer_failed' in entry) == bool(fails)


def test_a_call_takes_one_set_after_the_other():
  timed = timing.Timed(lambda x: x, [(0,), (1,), (2,)], None)
  assert [timed(i) for i in range(4)] == [0, 1, 2, 0]


def test_a_peer_that_hangs_while_it_is_timed_is_named(monkeypatch):
  """So the others are timed without it; what is timed as one part is left out as one."""
  notes = []
  monkeypatch.setattr(timing, 'note', lambda text, seconds=None: notes.append(text))
  monkeypatch.setattr(timing, '_kernels', lambda *_: 10.0)
  calls, told = calls_of(lambda a: a + 1), []
  for name, call in calls.items():

    def program(a, name=name, call=call):
      told.append((name, notes[-1]))
      return call.program(a)

    calls[name] = timing.Timed(program, call.sets, None)
  timing.in_turns(calls, 1, 'cupti')
  assert all(name == note for name, note in told) and {x for x, _ in told} == {'a', 'b'}
  assert notes[-1] == 'timing'
  told.clear()
  timing.in_turns(calls, 1, 'cupti', part='peaks')
  assert {note for _, note in told} == {'peaks'}
