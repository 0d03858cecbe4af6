"""Stable hashes: fingerprints of cache folders and the train/validation split."""

import hashlib
import json
from typing import Any


def fingerprint(*parts: Any) -> str:
  """20 hex digits over the parts (anything JSON can write), equal on every machine."""
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:20]


def goes_to_validation(key: str, share: float) -> bool:
  """Whether the hash of `key` falls into the lowest `share` of all hashes.

  The answer depends on the key alone, so adding a file never moves another one from
  one split to the other. Python's own hash() would change with every process.
  """
  digest = hashlib.sha256(key.encode('utf-8', 'surrogateescape')).digest()
  return int.from_bytes(digest[:8], 'big') < share * 2**64
