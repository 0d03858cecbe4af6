"""When a run stops early: after the step during which SIGTERM or SIGINT came."""

import contextlib
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[int], bool]]:
  """Yields stop(step): whether the run must save after this step, and end.

  Inside, SIGTERM and SIGINT only set a flag; a SIGINT after either interrupts. Of several
  processes some may get the signal, at different steps, and all must stop after the
  same one: there JAX catches SIGTERM and agrees on a step, if asked at every step.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  received = []

  def handle(number, _):
    received.append(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)

  old = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield lambda step: bool(received)
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)
