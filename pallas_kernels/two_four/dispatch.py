"""Which implementation an operation runs on, and with which tiles.

'mosaic' needs a Hopper GPU: its sparse tensor cores are reached by an instruction of that
generation alone. None takes it on the kinds of device for which `tuned/` has a file, which
the third call of `pallas_kernels.gpu_check` makes once it has checked the kernels there.
"""

import contextlib
import contextvars
import dataclasses
import functools
import importlib
import json
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.two_four import reference

IMPLEMENTATIONS = (None, 'xla', 'mosaic')
TUNED = pathlib.Path(__file__).parents[1] / 'tuned'
H200 = types.SimpleNamespace(
  platform='gpu', device_kind='NVIDIA H200', compute_capability='9.0', num_cores=132
)
_EMULATED = contextvars.ContextVar('emulated', default=False)
_DEVICE = contextvars.ContextVar('device', default=None)  # instead of the process's own
_CONFIGURED = contextvars.ContextVar('configured', default=None)


def pick(
  implementation: str | None, *arrays: jax.Array, lacks: str = ''
) -> types.ModuleType:
  """The module to take a function from: reference.py, or mosaic.py with the kernels.

  Args:
    implementation: None, 'xla' or 'mosaic'.
    arrays: what the kernel would read.
    lacks: what speaks against it besides device and types.

  Raises:
    ValueError: for an unknown name.
    NotImplementedError: for 'mosaic' where it cannot run.
  """
  if not _use_mosaic(implementation, arrays, lacks):
    return reference
  # Only here: not every jaxlib has what the kernels import.
  return importlib.import_module('pallas_kernels.two_four.mosaic')


def takes_kernels(*arrays: jax.Array, implementation: str | None = None) -> bool:
  """Whether this implementation takes the kernels for these here; raises as `pick`."""
  return _use_mosaic(implementation, arrays, '')


def _use_mosaic(implementation: str | None, arrays: tuple, lacks: str) -> bool:
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f'implementation={implementation!r}: must be one of {IMPLEMENTATIONS}')
  if implementation == 'xla':
    return False
  lacks = lacks or _wrong_dtype(arrays) or _wrong_device()
  if implementation == 'mosaic':
    if lacks:
      raise NotImplementedError(f"implementation='mosaic': {lacks}")
    return True
  return not lacks and (is_emulated() or tuned_file(_device()).exists())


def _wrong_dtype(arrays: tuple[jax.Array, ...]) -> str:
  wrong = sorted({str(x.dtype) for x in arrays if x.dtype != jnp.bfloat16})
  return f'needs bfloat16, got {wrong[0]}' if wrong else ''


def _wrong_device() -> str:
  if is_emulated():
    return ''
  device = _device()
  capability = getattr(device, 'compute_capability', None)
  if device.platform == 'gpu' and str(capability).startswith('9.'):
    return ''
  has = f'{device.device_kind} ({device.platform}'
  has += f', compute capability {capability})' if capability else ')'
  return f'needs a Hopper GPU, compute capability 9.0; this process has {has}'


def _device() -> Any:
  return _DEVICE.get() or jax.devices()[0]


@contextlib.contextmanager
def building_for(device: Any) -> Iterator[None]:
  """Lets kernels be traced, lowered and compiled for a device that is not here."""
  kind = jax.sharding.AbstractDevice(device.device_kind, device.num_cores, device.platform)
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=kind)
  token = _DEVICE.set(device)
  try:
    with jax.sharding.use_abstract_mesh(mesh):
      yield
  finally:
    _DEVICE.reset(token)


@contextlib.contextmanager
def emulated() -> Iterator[None]:
  """Runs the kernels on a CPU: Mosaic GPU's interpreter, own instructions in jnp. Slow."""
  from jax.experimental.pallas import mosaic_gpu as plgpu

  token = _EMULATED.set(True)
  try:
    with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams()):
      yield
  finally:
    _EMULATED.reset(token)


def is_emulated() -> bool:
  return _EMULATED.get()


def tuned_file(device: jax.Device) -> pathlib.Path:
  return TUNED / f'{device.device_kind.replace(" ", "_")}.json'


def tuned_config(op: str, shape: dict[str, int], default: Any) -> Any:
  """The config that was fastest for this op and shape on this device, or the default."""
  if (configured := _CONFIGURED.get()) is not None:
    fields, asked = configured
    asked[key(op, shape)] = config = dataclasses.replace(default, **fields)
    return config
  fields = _tuned(tuned_file(_device())).get(key(op, shape))
  return type(default)(**fields) if fields else default


@contextlib.contextmanager
def configured(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
  """Changes these fields of every default; yields {key: config} of what is asked for."""
  asked = {}
  token = _CONFIGURED.set((fields, asked))
  try:
    yield asked
  finally:
    _CONFIGURED.reset(token)


def key(op: str, shape: dict[str, int]) -> str:
  return op + ''.join(f' {name}={size}' for name, size in shape.items())


@functools.cache
def _tuned(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  return json.loads(path.read_text())['configs'] if path.exists() else {}


def padded(x: jax.Array, multiples: tuple[int, ...], fill: int = 0) -> jax.Array:
  """Every dimension up to a multiple, at its end; x itself if they all are."""
  padding = [(0, -size % multiple) for size, multiple in zip(x.shape, multiples)]
  if not any(after for _, after in padding):
    return x
  return jnp.pad(x, padding, constant_values=fill)
