"""Keeps freed memory in the process, for training on a CPU."""

import ctypes
import platform

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
  """Tells malloc not to give memory back to the system between training steps.

  XLA takes its temporary buffers anew in each step. By default glibc returns such large
  pieces at once, and the kernel zeroes every page again: a sixth of a step on two cores.
  One arena, so that all threads reuse the same pieces. Does nothing without glibc.
  """
  if platform.libc_ver()[0] != 'glibc':
    return
  libc = ctypes.CDLL(None)
  libc.mallopt(M_ARENA_MAX, 1)
  libc.mallopt(M_MMAP_MAX, 0)
  libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
