"""What a running training shows and writes: pending metrics, speed, a progress line."""

import contextlib
import math
import pathlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

from elas_jax.config.config import Config
from elas_jax.run import measures, objectives
from elas_jax.run.metrics import MetricsWriter
from elas_jax.run.notes import notes
from elas_jax.run.optimizer import learning_rate
from elas_jax.run.peak_flops import peak_flops
from elas_jax.tasks import task_of
from elas_jax.tasks.task import Task


class NonFinite(Exception):
  """The loss, the gradient or the parameters of a step are NaN or infinite."""

  def __init__(self, step: int, what: str):
    super().__init__(f'step {step}: {what}')
    self.step = step


class Pending(NamedTuple):
  """Metrics that are not read yet, and the seconds of waiting and of pauses before them."""

  step: int
  metrics: dict[str, jax.Array]
  done: Future[float]
  waited: float
  paused: float


class Window(NamedTuple):
  """From when on speed is counted, and the seconds of waiting and of pauses before."""

  start: float
  waited: float
  paused: float


def done_at(metrics: dict[str, jax.Array]) -> float:
  """The time at which these are there; waits for it."""
  jax.block_until_ready(metrics)
  return time.monotonic()


class Log:
  """Takes the metrics of each step and reads them one step later.

  Reading a number from a device waits until it is there. `push` therefore keeps the
  metrics of the newest step and reads those of the step before it, while the device is
  already busy with the newest. When a number was read says little of when its step was
  done: on a busy CPU the reading waits for the next one too. A thread waits for each step,
  and speed is counted between the times that it finds.

  Args:
    writer: of metrics.jsonl.
    schedule: the learning rate by step.
    steps: of the whole run; `start` of them are done.
    log_every: steps between lines.
    task: says what the sums of a step mean.
    unit_flops: model FLOPs for one of its units, for the utilisation.
    peak_flops: of all devices together, None if unknown.
  """

  def __init__(
    self,
    writer: MetricsWriter,
    schedule: Any,
    *,
    steps: int,
    start: int,
    log_every: int,
    task: Task,
    unit_flops: float,
    peak_flops: float | None,
  ):
    self._writer, self._schedule = writer, schedule
    self._steps, self._start, self._log_every = steps, start, log_every
    self._task, self._unit_flops, self._peak_flops = task, unit_flops, peak_flops
    self._pending = None
    self._line = ProgressLine(start, steps)
    self._waited = self._paused = 0.0
    self._watch = ThreadPoolExecutor(1)
    self._begin_window(Window(time.monotonic(), 0.0, 0.0))

  def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of `step`, reads and checks those of the step before."""
    self.flush()
    done = self._watch.submit(done_at, metrics)
    self._pending = Pending(step, metrics, done, self._waited, self._paused)

  def flush(self) -> None:
    """Reads what is pending; raises NonFinite."""
    if self._pending is None:
      return
    step, metrics, done, waited, paused = self._pending
    self._pending = None
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    loss = values['loss'] / max(values['count'], 1.0)
    if not (math.isfinite(loss) and math.isfinite(values['grad_norm'])):
      raise NonFinite(step, f'loss={loss}, grad_norm={values["grad_norm"]}')
    self._window_count += values['count']
    end = Window(done.result(), waited, paused)
    first = step == self._start + 1
    # A resumed run writes the lines that an uninterrupted one has, and no others.
    if step % self._log_every == 0 or step == 1 or step == self._steps:
      self._write(step, values, None if first else end)
    if first:  # its time is that of the compilation
      self._line.print(f'first step after {end.start - self._window.start:.1f} s')
      self._begin_window(end)

  def _write(self, step: int, values: dict, end: Window | None) -> None:
    """With the speed since the last line, where that of this one is given."""
    line = {f'train/{name}': x for name, x in self._task.train_values(values).items()}
    line |= {f'train/{name}': x for name, x in objectives.values(values).items()}
    line |= {
      'train/grad_norm': values['grad_norm'],
      'train/learning_rate': float(self._schedule(step - 1)),
    }
    if end:
      whole, waited, paused = (now - before for now, before in zip(end, self._window))
      seconds = whole - paused
      rate = self._window_count / seconds
      line[f'train/{self._task.unit}_per_second'] = rate
      # Of the next step's data a part may have been waited for before this one was done.
      line['train/data_wait_share'] = min(waited / seconds, 1.0)
      if self._peak_flops:
        used = rate * self._unit_flops
        line['train/model_flop_utilisation'] = used / self._peak_flops
      self._begin_window(end)
    self._writer.write(step, line)
    self._line.show(step, line)

  def write(self, step: int, values: dict[str, float]) -> None:
    """Writes and prints further metrics of a step, such as an evaluation's."""
    self._writer.write(step, values)
    self._line.print(f'step {step}  ' + _short(values))

  def sync(self) -> None:
    """Everything up to the newest step is on the disk when this returns."""
    self.flush()
    self._writer.sync()

  def _begin_window(self, start: Window) -> None:
    self._window, self._window_count = start, 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside as waiting for data."""
    start = time.monotonic()
    yield
    self._waited += time.monotonic() - start

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Reads what is pending, and leaves the time inside out of the speed."""
    self.flush()
    start = time.monotonic()
    yield
    self._paused += time.monotonic() - start

  def close(self) -> None:
    self._watch.shutdown()
    self._line.close()
    self._writer.close()


def open_log(config: Config, workdir: pathlib.Path, state: Any, past: list[str]) -> Log:
  """Of a run that stands at `state`; begins with its notes and those on its past."""
  start, steps, task = int(state.step), config.train.steps, task_of(config)
  writer = MetricsWriter(workdir, start, config.train.tensorboard)
  for note in [*notes(config), *past]:
    print_once(note)
    writer.note(start, note)
  return Log(
    writer,
    learning_rate(config),
    steps=steps,
    start=start,
    log_every=config.train.log_every,
    task=task,
    unit_flops=task.unit_flops(config, state.params),
    peak_flops=peak_flops(),
  )


class Trace:
  """Profiles the steps of a window; a run that resumes inside it traces the rest."""

  def __init__(self, window: tuple[int, int] | None, folder: pathlib.Path):
    self._window, self._folder, self._running = window, folder, False

  def before(self, step: int) -> None:
    if self._window and not self._running and self._window[0] <= step <= self._window[1]:
      jax.profiler.start_trace(str(self._folder))
      self._running = True

  def after(self, step: int, state: Any) -> None:
    if self._running and step == self._window[1]:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False


def print_once(text: str) -> None:
  """Prints on process 0 only."""
  if not jax.process_index():
    print(text, flush=True)


class ProgressLine:
  """A live line on a terminal, plain lines elsewhere; process 0 only."""

  def __init__(self, start: int, steps: int):
    self._steps, self._rich = steps, None
    self._first = None  # the first step that was shown, and when
    self._quiet = jax.process_index() > 0
    if sys.stdout.isatty() and not self._quiet:
      from rich import progress

      self._rich = progress.Progress(
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn('{task.description}'),
        progress.TimeRemainingColumn(),
      )
      self._task = self._rich.add_task('', total=steps, completed=start)
      self._rich.start()

  def show(self, step: int, values: dict[str, float]) -> None:
    """The newest training metrics."""
    if self._rich:
      self._rich.update(self._task, completed=step, description=_short(values))
      return
    text, now = f'step {step}/{self._steps}  {_short(values)}', time.monotonic()
    if self._first is None:  # most of the time up to here was compilation
      self._first = step, now
    elif step > self._first[0]:
      left = (now - self._first[1]) / (step - self._first[0]) * (self._steps - step)
      text += f'  left {left:.0f} s'
    self.print(text)

  def print(self, text: str) -> None:
    if self._rich:
      self._rich.console.print(text, highlight=False, markup=False)
    elif not self._quiet:
      print(text, flush=True)

  def close(self) -> None:
    if self._rich:
      self._rich.stop()
      self._rich = None


SHORT_NAMES = {
  'train/loss': 'loss {:.4f}',
  'train/bits_per_byte': 'bits/byte {:.3f}',
  'train/grad_norm': 'grad {:.2f}',
  'train/learning_rate': 'lr {:.2e}',
  'train/accuracy': 'accuracy {:.1%}',
  'train/tokens_per_second': '{:,.0f} tokens/s',
  'train/examples_per_second': '{:,.0f} examples/s',
  'train/pairs_per_second': '{:,.1f} pairs/s',
  'train/model_flop_utilisation': 'MFU {:.1%}',
  'train/data_wait_share': 'data wait {:.1%}',
  'eval/loss': 'validation loss {:.4f}',
  'eval/perplexity': 'perplexity {:.3f}',
  'eval/bits_per_byte': 'bits/byte {:.4f}',
  'eval/accuracy': 'accuracy {:.2%}',
  'eval/margin': 'margin {:.3g}',
  'eval/rmse': 'RMSE {:.3g}',
}


def _short(values: dict[str, float]) -> str:
  # Of the sources of a mixture.
  own = [name for name in values if name.startswith('eval/loss_')]
  formats = SHORT_NAMES | {x: x.removeprefix('eval/loss_') + ' {:.4f}' for x in own}
  formats |= objectives.formats(values) | measures.formats(values)
  return '  '.join(
    text.format(values[name]) for name, text in formats.items() if name in values
  )
