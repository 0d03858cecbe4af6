"""The log: what is read when, how speed is counted, and what stops a run."""

import math

import numpy as np
import pytest

from elas_jax.run.log import Log, NonFinite
from elas_jax.run.metrics import MetricsWriter, read_metrics
from elas_jax.tasks import LANGUAGE


class Clock:
  """Stands in for time.monotonic and moves only by hand."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr('elas_jax.run.log.time.monotonic', clock)
  return clock


@pytest.fixture
def make_log(tmp_path):
  """Opens a Log in tmp_path; closes it at the end."""
  logs = []

  def make(start=0, log_every=1, steps=6, peak_flops=None):
    log = Log(
      MetricsWriter(tmp_path, start, False),
      lambda step: step / 8,
      steps=steps,
      start=start,
      log_every=log_every,
      task=LANGUAGE,
      unit_flops=50.0,
      peak_flops=peak_flops,
    )
    logs.append(log)
    return log

  yield make
  for log in logs:
    log.close()


def metrics_of(loss=2.0, norm=1.0, tokens=10.0):
  values = {'loss': loss * tokens, 'count': tokens, 'bytes': 20.0, 'grad_norm': norm}
  return {name: np.float32(value) for name, value in values.items()}


class Number:
  """A metric that says when it is read."""

  def __init__(self, value, name, read):
    self._value, self._name, self._read = value, name, read

  def __float__(self):
    self._read.append(self._name)
    return float(self._value)


def test_step_is_read_when_the_next_one_is_pushed(make_log, tmp_path):
  log, read = make_log(), []
  watched = lambda step: {
    name: Number(value, step, read) for name, value in metrics_of().items()
  }
  steps = lambda: [line['step'] for line in read_metrics(tmp_path)[1]]
  log.push(1, watched(1))
  assert read == []
  log.push(2, watched(2))
  assert set(read) == {1}
  assert steps() == [1]
  with log.pause():
    assert set(read) == {1, 2}
  log.push(3, watched(3))
  log.sync()
  assert set(read) == {1, 2, 3}
  assert steps() == [1, 2, 3]
  log.flush()  # nothing is read twice
  assert len(read) == 12


def numbers(workdir):
  """The lines of values: a run that starts later than its file notes what is lost."""
  return [line for line in read_metrics(workdir)[1] if 'note' not in line]


def test_line_holds_what_follows_from_the_sums(make_log, tmp_path):
  log = make_log(start=3)
  log.push(4, metrics_of(loss=1.5, norm=0.25))
  log.flush()
  (line,) = numbers(tmp_path)
  assert line == {
    'step': 4,
    'train/loss': 1.5,
    'train/perplexity': pytest.approx(math.exp(1.5)),
    'train/bits_per_byte': pytest.approx(15.0 / 20.0 / math.log(2)),
    'train/grad_norm': 0.25,
    'train/learning_rate': 3 / 8,  # the schedule counts the steps done before
  }


@pytest.mark.parametrize('start, lines', [(0, [1, 3, 6, 8]), (1, [3, 6, 8])])
def test_lines_of_first_last_and_every_third_step(make_log, tmp_path, start, lines):
  log = make_log(start=start, log_every=3, steps=8)
  for step in range(start + 1, 9):
    log.push(step, metrics_of())
  log.flush()
  # A resumed run has no first line of its own: the uninterrupted one has none there.
  assert [line['step'] for line in numbers(tmp_path)] == lines


class Device:
  """Runs one step after another, each for 2 s of the clock.

  A call returns at once, or when the step is done. Reading a number waits for its step, or
  for the next one as well, as on a busy CPU.
  """

  def __init__(self, clock, mode):
    self.clock, self.mode, self.free = clock, mode, 0.0

  def step(self):
    self.free = max(self.free, self.clock.now) + 2.0
    if self.mode == 'returns when done':
      self.clock.now = self.free
    return {name: Awaited(value, self) for name, value in metrics_of().items()}


class Awaited:
  def __init__(self, value, device):
    self.value, self.device, self.done = value, device, device.free

  def __float__(self):
    late = self.device.mode == 'read late'
    there = self.device.free if late else self.done
    self.device.clock.now = max(self.device.clock.now, there)
    return float(self.value)


@pytest.fixture(params=['returns when done', 'returns at once', 'read late'])
def run(request, make_log, clock, tmp_path, monkeypatch):
  """run(seconds of waiting for data by step, after which steps to evaluate) -> lines."""

  monkeypatch.setattr('elas_jax.run.log.done_at', lambda metrics: metrics['loss'].done)

  def run(waits, evaluations=(), **options):
    log, device = make_log(steps=len(waits), **options), Device(clock, request.param)
    for step, wait in enumerate(waits, 1):
      with log.waiting():
        clock.now += wait
      if step == 1:
        clock.now += 50  # compilation
      log.push(step, device.step())
      if step in evaluations:
        with log.pause():
          clock.now += 30
    log.flush()
    return read_metrics(tmp_path)[1]

  return run


def test_speed_leaves_out_the_first_step_and_pauses(run):
  first, third, sixth = run([0] * 6, evaluations=(2, 3, 5), log_every=3)
  assert 'train/tokens_per_second' not in first
  for line in (third, sixth):
    assert line['train/tokens_per_second'] == pytest.approx(10 / 2)
    assert line['train/data_wait_share'] == 0.0
    assert 'train/model_flop_utilisation' not in line


def test_every_step_takes_its_time_also_those_before_an_evaluation_and_the_last(run):
  lines = run([0.01] * 8, evaluations=(2, 3, 6), log_every=1)
  speeds = [line.get('train/tokens_per_second') for line in lines]
  assert speeds == [None] + [pytest.approx(10 / 2, rel=0.02)] * 7


def test_no_step_is_faster_than_the_device_after_a_wait_for_data(run):
  lines = run([0, 0, 5, 0, 0, 5, 5, 0, 0], evaluations=(4,), log_every=1)[1:]
  seconds = [10 / line['train/tokens_per_second'] for line in lines]
  assert min(seconds) > 2 - 1e-6
  assert max(line['train/data_wait_share'] for line in lines) <= 1


def test_waiting_has_its_share(run, request):
  """3 s for each step of 2 s, which a device that runs meanwhile fits into them."""
  *_, last = run([3.0] * 6, log_every=6)
  shares = {'returns when done': 3 / 5, 'returns at once': 1.0, 'read late': 15 / 23}
  (expected,) = (x for name, x in shares.items() if name in request.node.name)
  assert last['train/data_wait_share'] == pytest.approx(expected)


def test_utilisation_where_the_peak_is_known(make_log, clock, tmp_path):
  log = make_log(peak_flops=1000.0)
  for step in (1, 2, 3):
    clock.now += 4.0
    log.push(step, metrics_of())
    log.flush()
  # 10 tokens of 50 FLOPs in 4 s are 125 of 1000 a second.
  assert read_metrics(tmp_path)[1][2]['train/model_flop_utilisation'] == 0.125


@pytest.mark.parametrize(
  'bad', [{'loss': math.nan}, {'loss': math.inf}, {'norm': math.inf}, {'norm': math.nan}]
)
def test_not_finite_stops_with_its_step(make_log, tmp_path, bad):
  log = make_log(log_every=5)
  log.push(1, metrics_of())
  log.push(2, metrics_of(**bad))  # not a step of a line, and checked all the same
  with pytest.raises(NonFinite, match='step 2: loss=.*(nan|inf)'):
    log.push(3, metrics_of())
  assert [line['step'] for line in read_metrics(tmp_path)[1]] == [1]


def test_step_without_tokens_has_loss_zero(make_log, tmp_path):
  log = make_log()
  log.push(1, metrics_of(tokens=0.0))
  log.flush()
  assert read_metrics(tmp_path)[1][0]['train/loss'] == 0.0


def test_large_loss_does_not_overflow(make_log, tmp_path, capsys):
  log = make_log()
  log.push(1, metrics_of(loss=1e5))
  log.flush()
  line = read_metrics(tmp_path)[1][0]
  assert line['train/loss'] == pytest.approx(1e5)
  assert line['train/perplexity'] is None  # infinite
  assert 'step 1/6  loss 100000.0000' in capsys.readouterr().out
