"""Runs a module that ends when the process that started it has ended, however it did.

  python -m pallas_kernels.bench.tied PID MODULE [WORDS]

A run with a GPU that outlives its parent would disturb all that is measured after it.
"""

import os
import runpy
import sys
import threading

from pallas_kernels.bench.workers import end_with


def tied(*words: str) -> list[str]:
  """The command for `python -m words`, tied to this process."""
  return [sys.executable, '-m', 'pallas_kernels.bench.tied', str(os.getpid()), *words]


if __name__ == '__main__':
  threading.Thread(target=end_with, args=(int(sys.argv[1]),), daemon=True).start()
  sys.argv = sys.argv[2:]
  runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
