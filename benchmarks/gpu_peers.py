"""Models side by side on one device, each with its training step: compiled, then timed.

What a worker of gpu_steps.py and gpu_proxy.py does. `build` compiles every peer's step and
keeps them in this process; `turns` makes their states and runs the steps.
"""

import concurrent.futures as futures
import contextlib
import functools
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from configs import c4
from elas_jax.common.paths import path_name
from elas_jax.config.config import Config, at_step
from elas_jax.config.overrides import of_another_kind, set_field, set_fields
from elas_jax.config.parsing import parse
from elas_jax.run.evaluation import put_batch
from elas_jax.run.sharding import make_mesh
from elas_jax.run.state import abstract_state, create_state, parameter_count
from elas_jax.run.step import jit_train_step
from elas_jax.tasks import task_of
from pallas_kernels.bench.workers import note, reason
from pallas_kernels.two_four import dispatch

WARMUP = 2  # steps that are not counted
KERNEL = 'custom_call_target="mosaic_gpu'  # in a compiled program
LOWERED_KERNEL = '@mosaic_gpu'


def config_of(
  size: str, method: str, implementation: str, rows: int, fields: dict[str, Any]
) -> Config:
  """Of configs/c4.py, for random tokens, and with 2:4 from the first step on."""
  tree = c4.get_config(f'{size},{method}')
  own = {
    'data.source': 'python_source',  # neither text nor tokenizer is read
    'data.tokenizer': 'bytes',
    'data.batch_size': rows,
    'model.feed_forward.dense_steps': 0,
  }
  wanted = (own | fields).items()
  set_fields(tree, {x: value for x, value in wanted if not of_another_kind(tree, x)})
  if implementation != 'auto':
    set_field(tree, 'model.feed_forward.implementation', implementation)
  return parse(tree)


def random_batch(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
  rows, L = config.data.batch_size, config.data.sequence_length
  tokens = np.random.default_rng(seed).integers(0, config.model.vocab_size, (rows, L + 1))
  whole = np.full(rows, L, np.int32)
  return {'tokens': tokens.astype(np.int32), 'valid': whole, 'bytes': whole}


class Peer:
  """A model and its step; the state is made by `start`.

  Args:
    config: of the model; on one device.
    lower_only: the step is lowered for an H200 and not compiled.
  """

  def __init__(self, config: Config, lower_only: bool = False):
    self.config, self.lower_only = config, lower_only
    self.mesh = make_mesh(config, jax.devices()[:1])
    self.state = self.program = None
    batch = task_of(config).rows(config, config.data.batch_size)
    step = jit_train_step(config, self.mesh, at_step(config, config.train.steps))
    with _building_for_h200(self.mesh) if lower_only else jax.set_mesh(self.mesh):
      traced = step.trace(abstract_state(config, self.mesh), batch)
      platforms = ('cuda',) if lower_only else None
      self.lowered = traced.lower(lowering_platforms=platforms)

  def compile(self) -> float:
    """Compiles the step; its seconds."""
    start = time.perf_counter()
    self.program = self.lowered.compile()
    return time.perf_counter() - start

  def about(self) -> dict[str, Any]:
    """What is known of the program."""
    state = abstract_state(self.config, self.mesh)
    found = {'parameters': parameter_count(state.params)}
    if self.program is None:
      return found | {'kernels_lowered': self.lowered.as_text().count(LOWERED_KERNEL)}
    memory = self.program.memory_analysis()
    return found | {
      'kernels': self.program.as_text().count(KERNEL),
      'temporary_bytes': memory.temp_size_in_bytes,
      'state_bytes': memory.argument_size_in_bytes,
    }

  def start(self) -> None:
    with jax.set_mesh(self.mesh):
      self.state = create_state(self.config, self.mesh)
      self.batch = put_batch(random_batch(self.config), self.mesh)

  def step(self) -> float:
    """Takes a step; its milliseconds."""
    start = time.perf_counter()
    self.state, self.metrics = self.program(self.state, self.batch)
    jax.block_until_ready((self.state, self.metrics))
    return 1e3 * (time.perf_counter() - start)

  def loss(self) -> float:
    return float(self.metrics['loss'] / self.metrics['count'])

  def gradients(self) -> dict[str, np.ndarray]:
    """The feed-forward's, up to a factor: Adam's first moments after a first step."""
    leaves = jax.tree_util.tree_leaves_with_path(self.state.opt_state)
    named = ((path_name(path), leaf) for path, leaf in leaves)
    return {
      name: np.asarray(leaf)
      for name, leaf in named
      if '/mu/' in name and '/feed_forward/' in name
    }


@contextlib.contextmanager
def _building_for_h200(mesh: Mesh) -> Iterator[None]:
  with jax.set_mesh(mesh), dispatch.building_for(dispatch.H200):
    yield


@functools.cache
def kept() -> dict[str, Peer]:
  """The peers of this process, from `build` to `turns`."""
  return {}


def build(
  size: str,
  peers: dict[str, tuple[str, str]],
  rows: int,
  skip: Sequence[str] = (),
  fields: dict[str, Any] | None = None,
  lower_kernels: bool = False,
) -> dict[str, dict[str, Any]]:
  """Compiles all, several at a time. Name -> what is known of it, or {'failed': why}.

  Args:
    peers: name -> METHOD of configs/c4.py, and model.feed_forward.implementation.
    skip: names that are left out.
    fields: what is changed in all their configs that have it.
    lower_kernels: what has kernels is lowered for an H200, and not compiled.
  """
  kept().clear()
  note('compiling')
  found = {}
  for name, (method, implementation) in peers.items():
    if name in skip:
      continue
    try:
      config = config_of(size, method, implementation, rows, fields or {})
      kept()[name] = Peer(config, lower_only=lower_kernels and implementation == 'mosaic')
    except Exception as error:
      found[name] = {'failed': reason(error)}
  with futures.ThreadPoolExecutor(len(peers)) as pool:
    built = {name: pool.submit(_compiled, peer) for name, peer in kept().items()}
    found |= {name: task.result() for name, task in built.items()}
  for name in [name for name in kept() if 'failed' in found[name]]:
    del kept()[name]
  return found


def _compiled(peer: Peer) -> dict[str, Any]:
  if peer.lower_only:
    return peer.about() | {'not_run': 'its kernels are lowered, and not run here'}
  try:
    seconds = peer.compile()
  except Exception as error:
    return {'failed': reason(error)}
  return peer.about() | {'compile_seconds': seconds}


def turns(steps: int, compared: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
  """Runs WARMUP and `steps` steps of each peer that was built, in turns if all fit.

  Each on the same batch at every step. Where the device's memory does not hold all states
  at once, one peer runs after the other.

  Args:
    compared: two of them that are to compute the same; the second gets the differences
      from the first, of the losses and of the first step's gradients.
  """
  peers = {name: peer for name, peer in kept().items() if peer.program is not None}
  together = _fit(list(peers.values()))
  samples, gradients = {name: [] for name in peers}, {}

  def step(name: str, number: int) -> None:
    note(name)
    peer = peers[name]
    if peer.state is None:
      peer.start()
    milliseconds = peer.step()
    if number >= WARMUP:
      samples[name].append(milliseconds)
    if number == 0 and name in compared:
      gradients[name] = peer.gradients()

  numbers = range(WARMUP + steps)
  if together:
    order = [(name, number) for number in numbers for name in peers]
  else:
    order = [(name, number) for name in peers for number in numbers]
  for name, number in order:
    step(name, number)
    if not together and number == numbers[-1]:
      peers[name].state = None
  found = {name: _times(peers[name], samples[name], together) for name in peers}
  if compared and all(name in found for name in compared):
    first, second = compared
    losses = found[first]['loss'], found[second]['loss']
    found[second]['loss_difference'] = abs(losses[1] - losses[0])
    found[second]['gradient_difference'] = difference(*map(gradients.get, compared))
  return found


def _times(peer: Peer, samples: list[float], together: bool) -> dict[str, Any]:
  median = statistics.median(samples)
  tokens = peer.config.data.batch_size * peer.config.data.sequence_length
  return {
    'ms': {'median': median, 'min': min(samples), 'max': max(samples)},
    'tokens_per_second': tokens / median * 1e3,
    'loss': peer.loss(),
    'in_turns': together,
  }


def _fit(peers: list[Peer]) -> bool:
  limit = (jax.devices()[0].memory_stats() or {}).get('bytes_limit')
  if limit is None:
    return True
  about = [peer.about() for peer in peers]
  states = sum(x['state_bytes'] for x in about)
  return states + max(x['temporary_bytes'] for x in about) < 0.95 * limit


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
  """The largest ||b - a|| / ||a|| of arrays of the same names; infinite if one lacks."""
  if not a or a.keys() != b.keys():
    return float('inf')
  norm = lambda x: float(np.linalg.norm(np.asarray(x, np.float64)))
  return max(norm(b[name] - a[name]) / max(norm(a[name]), 1e-30) for name in a)
