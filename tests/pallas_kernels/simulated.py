"""A warpgroup of 128 threads in NumPy: the machine of mosaic_gpu/packing.py, for tests.

A word is a uint32 array of 128, a reference to shared memory a `Shared`.
"""

import dataclasses

import ml_dtypes
import numpy as np

from pallas_kernels.two_four.mosaic_gpu.lanes import Lane, lane_of

POISON = 0xDEADBEEF


@dataclasses.dataclass
class Shared:
  """Shared memory as words; every one must be written, and no two threads may race."""

  words: np.ndarray

  @classmethod
  def of_bytes(cls, count: int) -> 'Shared':
    return cls(np.full(count // 4, POISON, np.uint32))


class Simulated:
  def __init__(self, warpgroup: int = 0):
    self.threads = np.arange(128, dtype=np.uint32)
    self.warpgroup = warpgroup

  def thread(self) -> np.ndarray:
    return self.threads + np.uint32(128 * self.warpgroup)

  def lane(self) -> Lane:
    return lane_of(self.threads)

  maximum = staticmethod(np.maximum)
  minimum = staticmethod(np.minimum)
  where = staticmethod(np.where)

  def shuffle(self, x: np.ndarray, distance: int) -> np.ndarray:
    assert distance < 32
    return np.broadcast_to(x, 128)[self.threads ^ distance]

  def store(self, x: np.ndarray, ref: Shared, byte: np.ndarray) -> None:
    assert x.dtype == np.uint32 and not (byte % 4).any()
    assert len(set(byte.tolist())) == 128, 'two threads write one place'
    ref.words[byte // 4] = x

  def load(self, ref: Shared, byte: np.ndarray) -> np.ndarray:
    assert not (byte % 4).any()
    return ref.words[byte // 4]

  def store2(self, words: list, ref: Shared, byte: np.ndarray) -> None:
    assert not (byte % 8).any()
    for number, word in enumerate(words):
      self.store(word, ref, byte + 4 * number)

  def load2(self, ref: Shared, byte: np.ndarray) -> list[np.ndarray]:
    assert not (byte % 8).any()
    return [self.load(ref, byte + 4 * number) for number in range(2)]

  def constant(self, x: int) -> np.ndarray:
    return np.full(128, x, np.uint32)

  def permute(self, a: np.ndarray, b: np.ndarray, selector) -> np.ndarray:
    bytes_of = np.stack([a, b], axis=1).view(np.uint8)
    nibbles = (np.broadcast_to(selector, 128)[:, None] >> np.arange(0, 16, 4)) & 15
    chosen = np.take_along_axis(bytes_of, nibbles & 7, axis=1)
    signs = np.where(chosen > 127, 255, 0)
    return np.where(nibbles > 7, signs, chosen).astype(np.uint8).view(np.uint32)[:, 0]

  def add_floats(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.view(np.float32) + b.view(np.float32)).view(np.uint32)

  def store4(self, words: list[np.ndarray], ref: Shared, byte: np.ndarray) -> None:
    assert not (byte % 16).any()
    for number, word in enumerate(words):
      self.store(word, ref, byte + np.uint32(4 * number))

  def load4(self, ref: Shared, byte: np.ndarray) -> list[np.ndarray]:
    assert not (byte % 16).any()
    return [self.load(ref, byte + np.uint32(4 * number)) for number in range(4)]

  def squared_relu(self, x: np.ndarray) -> np.ndarray:
    x = np.maximum(x.view(ml_dtypes.bfloat16).astype(np.float32), np.float32(0))
    return (x * x).astype(ml_dtypes.bfloat16).view(np.uint32)

  def slope(self, z: np.ndarray, d: np.ndarray) -> np.ndarray:
    z, d = (x.view(ml_dtypes.bfloat16).astype(np.float32) for x in (z, d))
    return (np.float32(2) * np.sqrt(z) * d).astype(ml_dtypes.bfloat16).view(np.uint32)


def fragments_of(x: np.ndarray) -> np.ndarray:
  """A bf16 matrix (64, N) as the words [N/8, 2] of 128 threads that lanes.py describes."""
  blocks = x.view(np.uint32).reshape(4, 2, 8, x.shape[1] // 8, 4)  # w, half, r, j, q
  words = np.empty((x.shape[1] // 8, 2), object)
  for j, half in np.ndindex(words.shape):
    words[j, half] = np.ascontiguousarray(blocks[:, half, :, j, :]).reshape(128)
  return words


def swizzled(rows: np.ndarray) -> Shared:
  """A bf16 matrix in tiles of 8 x 64, the 16-byte chunk c of row r at c ^ r % 8."""
  height, width = rows.shape
  x = rows.view(np.uint32).reshape(height // 8, 8, width // 64, 8, 4)
  x = x.transpose(0, 2, 1, 3, 4).copy()  # row tile, column tile, row, chunk, word
  for row in range(8):
    x[:, :, row] = x[:, :, row][:, :, np.arange(8) ^ row]
  return Shared(x.reshape(-1))


def unswizzled(shared: Shared, height: int, width: int) -> np.ndarray:
  x = shared.words.reshape(height // 8, width // 64, 8, 8, 4).copy()
  for row in range(8):
    x[:, :, row] = x[:, :, row][:, :, np.arange(8) ^ row]
  x = np.ascontiguousarray(x.transpose(0, 2, 1, 3, 4)).reshape(height, width // 2)
  return x.view(ml_dtypes.bfloat16)
