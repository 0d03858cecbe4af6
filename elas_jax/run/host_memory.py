"""Memory of the host: freed memory stays in the process, for training on a CPU."""

import ctypes
import platform

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def share_one_arena() -> None:
  """All threads allocate from the same pieces. To be called before JAX starts its threads.

  A thread that has an arena of its own keeps it, and a piece of more than 64 MB is never
  kept in one: it is mapped and unmapped in each step. On an accelerator too, since which
  device there is, is known after these threads are: those that read data share the lock of
  an arena there. Does nothing without glibc.
  """
  _set(M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
  """Tells malloc not to give memory back to the system between training steps.

  XLA takes its temporary buffers anew in each step. By default glibc returns such large
  pieces at once, and the kernel zeroes every page again: a sixth of a step on two cores,
  two fifths of a language proxy's on one. After share_one_arena. Nothing without glibc.
  """
  _set(M_MMAP_MAX, 0)
  _set(M_TRIM_THRESHOLD, 2**31 - 1)


def _set(parameter: int, value: int) -> None:
  if platform.libc_ver()[0] == 'glibc':
    ctypes.CDLL(None).mallopt(parameter, value)
