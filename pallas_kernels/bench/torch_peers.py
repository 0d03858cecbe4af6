"""PyTorch's dense and 2:4 products of the same shapes, in a process without JAX."""

import statistics
from collections.abc import Callable
from typing import Any

from pallas_kernels.bench.workers import note, reason

L2_BYTES = 60e6
DENSE, SPARSE, BEST = 'torch dense', 'torch 2:4', 'torch 2:4, best algorithm'
LARGEST_ERROR = 1e-2


def device() -> dict[str, Any]:
  import torch

  if not torch.cuda.is_available():
    raise RuntimeError('no CUDA')
  return {'torch': torch.__version__, 'device': torch.cuda.get_device_name()}


def time_matmul(
  M: int, K: int, N: int, repetitions: int, seed: int, skip: list[str]
) -> dict[str, Any]:
  """Peer -> its check and its time by CUDA events, of X b with X (M, K) pruned by rows."""
  import torch

  torch.manual_seed(seed)
  sets = max(1, min(8, int(-(-2 * L2_BYTES // (2 * M * K + 2 * K * N)))))
  operands = [_operands(torch, M, K, N) for _ in range(sets)]
  expected = operands[0][0].float() @ operands[0][1].float()
  result, calls = {}, {}
  for name, make in {DENSE: _dense, SPARSE: _sparse, BEST: _best}.items():
    if name in skip:
      continue
    note(name)
    try:
      call = make(torch, operands)
      error = (
        torch.linalg.norm(call(0).float() - expected) / torch.linalg.norm(expected)
      ).item()
      result[name] = {'check': 'passed', 'error': float(f'{error:.3g}')}
      if error <= LARGEST_ERROR:
        calls[name] = call
      else:
        result[name] |= {'check': 'failed', 'failed': 'its result is wrong'}
    except Exception as error:
      if 'CUDA error' in str(error):
        raise
      result[name] = {'failed': reason(error)}
  note('timing')
  samples = {name: [] for name in calls}
  for _ in range(repetitions):
    for name, call in calls.items():
      samples[name].append(_turn(torch, call))
  for name, values in samples.items():
    spread = {'median': statistics.median(values), 'min': min(values), 'max': max(values)}
    result[name]['us'] = {k: round(v, 2) for k, v in spread.items()}
  return result


def _operands(torch: Any, M: int, K: int, N: int) -> tuple:
  x = torch.randn(M, K, device='cuda', dtype=torch.bfloat16)
  kept = x.abs().reshape(M, K // 4, 4).topk(2, dim=-1).indices
  mask = torch.zeros(M, K // 4, 4, device='cuda', dtype=torch.bool)
  x = x * mask.scatter_(-1, kept, True).reshape(M, K)
  return x, torch.randn(K, N, device='cuda', dtype=torch.bfloat16)


def _dense(torch: Any, operands: list) -> Callable[[int], Any]:
  return lambda i: torch.mm(*operands[i % len(operands)])


def _sparse(torch: Any, operands: list) -> Callable[[int], Any]:
  """The documented way; cuSPARSELt where PyTorch has it, else CUTLASS's Ampere kernels."""
  convert = torch.sparse.to_sparse_semi_structured
  # K contiguous: the order in which its kernels want the dense operand.
  packed = [(convert(x), b.t().contiguous().t()) for x, b in operands]
  return lambda i: torch.mm(*packed[i % len(packed)])


def _best(torch: Any, operands: list) -> Callable[[int], Any]:
  """By cuSPARSELt, with the algorithm that its own search finds for the shape."""
  packed = [(torch._cslt_compress(x), b.t().contiguous().t()) for x, b in operands]
  algorithm = torch._cslt_sparse_mm_search(*packed[0])
  return lambda i: torch._cslt_sparse_mm(*packed[i % len(packed)], alg_id=algorithm)


def _turn(torch: Any, call: Callable[[int], Any]) -> float:
  """Microseconds a call, between two events around several."""
  start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
  count = 30
  call(0)
  start.record()
  for i in range(count):
    call(i)
  end.record()
  torch.cuda.synchronize()
  return start.elapsed_time(end) / count * 1e3
