"""What workers are told to call in place of a GPU's functions; nothing is computed.

As a command, with words to say, it says them and refuses.
"""

import sys
import time

from pallas_kernels.bench.workers import note

TIMES = {'median': 10.0, 'min': 9.0, 'max': 11.0}


def device():
  return {
    'device': 'Fake GPU', 'versions': {}, 'unavailable': '', 'cpus': 16,
    'ptxas': '/x/ptxas: V13.0', 'cuda_path': '/x', 'memory_bytes': 80_000_000_000,
  }  # fmt: skip


def probe_timer():
  raise RuntimeError('no CUPTI here')


def peaks(repetitions, timer):
  return {'matmul_tflops': 800.0, 'bandwidth_tb': 3.0, 'asked': [repetitions, timer]}


def check(name, seed):
  return {'passed': True}


def slow_check(name, seed):
  time.sleep(0.2)
  return {'passed': True}


def time_case(name, tokens, repetitions, timer, seed, skip, tiles=False):
  peers = {'XLA dense': {'us': TIMES}}
  for peer in ('ours', 'ours, cluster=2'):
    if peer not in skip:
      note(peer)
      if tiles and peer != 'ours':
        raise SystemExit(3)  # the process is lost
      peers[peer] = {'us': TIMES}
  return {'sets': 1, 'peers': peers}


def time_layer(name, tokens, repetitions, timer, seed, skip):
  """The kernels of the first layer hang, and are not tried at the others."""
  peers = {'XLA dense': {'us': TIMES, 'saved_bytes': 4}}
  if 'ours' not in skip:
    print('tried ours', flush=True)  # into the log
    note('ours', 1)
    time.sleep(60)
  return {'sets': 1, 'peers': peers}


def tune_key(key, tokens, repetitions, timer, seed, skip):
  times = {'us': TIMES}
  faster = {'us': {'median': 5.0, 'min': 5.0, 'max': 5.0}}
  configs = [{'warpgroups': 2, 'stages': 2}, {'warpgroups': 1, 'stages': 2}]
  return [{'config': c} | x for c, x in zip(configs, (times, faster))]


def measure(repetitions, timer, skip):
  return {'timer': timer}


def render(record):
  return f'Ceilings by {record["timer"]}.'


if __name__ == '__main__':
  print(*sys.argv[1:])
  sys.exit(2)
