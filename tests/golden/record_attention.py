"""Records tests/golden/attention.npz: attention in PyTorch, the independent reference.

  pip install torch transformers numpy
  python tests/golden/record_attention.py

The attention modules of transformers' LLaMA, Qwen3, DeepSeek-V2 and DeepSeek-V3, on rows of
a few positions with a causal mask. Weights are NumPy arithmetic, saved under this project's
names; what is rotated lies there as halves, in DeepSeek's modules as neighbours.
"""

import pathlib

import numpy as np
import torch
import transformers
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3
from transformers.models.llama import modeling_llama as llama
from transformers.models.qwen3 import modeling_qwen3 as qwen3

B, L, D, H, J = 2, 9, 16, 4, 2
C, Q, NOPE, ROPE, VALUE = 6, 5, 4, 6, 3  # of latent attention


def waves(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
  made = {}
  for number, (name, shape) in enumerate(shapes.items()):
    index = np.arange(np.prod(shape), dtype=np.float64)
    wave = np.sin(index * (1.37 + 0.11 * number) + number)
    value = 1.0 + 0.3 * wave if name.endswith('scale') else 0.6 * wave
    made[name] = value.reshape(shape).astype(np.float32)
  return made


def of_heads(norm: bool) -> dict[str, np.ndarray]:
  K = D // H
  shapes = {'query/kernel': (D, H * K), 'key/kernel': (D, J * K)}
  shapes |= {'value/kernel': (D, J * K), 'output/kernel': (H * K, D)}
  if norm:
    shapes |= {'query_norm/scale': (K,), 'key_norm/scale': (K,)}
  return waves(shapes)


def of_latents(query_rank: int) -> dict[str, np.ndarray]:
  shapes = {'query/kernel': (query_rank or D, H * (NOPE + ROPE))}
  if query_rank:
    shapes |= {'query_latent/kernel': (D, query_rank), 'query_norm/scale': (query_rank,)}
  return waves(
    shapes
    | {
      'latent/kernel': (D, C),
      'latent_norm/scale': (C,),
      'rope_key/kernel': (D, ROPE),
      'key/kernel': (C, H * NOPE),
      'value/kernel': (C, H * VALUE),
      'output/kernel': (H * VALUE, D),
    }
  )


def neighbours(kernel: np.ndarray) -> np.ndarray:
  """The last ROPE outputs, halves before, as pairs (2i, 2i + 1)."""
  nope, rope = np.split(kernel, [kernel.shape[-1] - ROPE], axis=-1)
  pairs = np.stack(np.split(rope, 2, axis=-1), -1).reshape(rope.shape)
  return np.concatenate([nope, pairs], -1)


def state_of_latents(w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  query = w['query/kernel']
  query = neighbours(query.reshape(len(query), H, -1)).reshape(query.shape)
  up = [w[f'{name}/kernel'].reshape(C, H, -1) for name in ('key', 'value')]
  down = [w['latent/kernel'], neighbours(w['rope_key/kernel'])]
  state = {
    'kv_a_proj_with_mqa.weight': np.concatenate(down, -1).T,
    'kv_a_layernorm.weight': w['latent_norm/scale'],
    'kv_b_proj.weight': np.concatenate(up, -1).reshape(C, -1).T,
    'o_proj.weight': w['output/kernel'].T,
  }
  if 'query_latent/kernel' not in w:
    return state | {'q_proj.weight': query.T}
  return state | {
    'q_a_proj.weight': w['query_latent/kernel'].T,
    'q_a_layernorm.weight': w['query_norm/scale'],
    'q_b_proj.weight': query.T,
  }


def state_of_heads(w: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  letters = {'query': 'q', 'key': 'k', 'value': 'v', 'output': 'o'}
  state = {f'{x}_proj.weight': w[f'{name}/kernel'].T for name, x in letters.items()}
  norms = {'q_norm.weight': 'query_norm/scale', 'k_norm.weight': 'key_norm/scale'}
  return state | {theirs: w[ours] for theirs, ours in norms.items() if ours in w}


COMMON = {'hidden_size': D, 'num_attention_heads': H, 'attn_implementation': 'eager'}
HEADS = COMMON | {'num_key_value_heads': J, 'head_dim': D // H}
LATENTS = COMMON | {
  'num_key_value_heads': H,
  'kv_lora_rank': C,
  'qk_nope_head_dim': NOPE,
  'qk_rope_head_dim': ROPE,
  'v_head_dim': VALUE,
}


def output(module: torch.nn.Module, rotary: torch.nn.Module, state: dict, x: np.ndarray):
  """(B, L, D), each position seeing itself and those before it."""
  state = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
  module.float().load_state_dict(state, strict=True)
  x = torch.tensor(x)
  angles = rotary(x, torch.arange(L)[None])
  mask = torch.full((L, L), float('-inf')).triu(1)[None, None]
  with torch.no_grad():
    found = module(x, position_embeddings=angles, attention_mask=mask)
  return found[0].numpy()


def main() -> None:
  x = waves({'x': (B, L, D)})['x'] / 0.6
  cases = {
    'gqa': (of_heads(False), HEADS, {'Llama': llama}),
    'gqa_qk_norm': (of_heads(True), HEADS, {'Qwen3': qwen3}),
  }
  for name, rank in (('mla', 0), ('mla_query_rank', Q)):
    both = {'DeepseekV2': v2, 'DeepseekV3': v3}
    cases[name] = of_latents(rank), LATENTS | {'q_lora_rank': rank or None}, both
  found = {'x': x}
  for name, (w, fields, modules) in cases.items():
    state = state_of_latents(w) if 'mla' in name else state_of_heads(w)
    for prefix, module in modules.items():
      config = getattr(module, f'{prefix}Config')(**fields)
      attention = getattr(module, f'{prefix}Attention')(config, 0)
      rotary = getattr(module, f'{prefix}RotaryEmbedding')(config)
      found[f'{name}/y/{prefix}'] = output(attention, rotary, state, x)
    found |= {f'{name}/weights/{path}': value for path, value in w.items()}
  path = pathlib.Path(__file__).with_name('attention.npz')
  np.savez_compressed(path, **found)
  versions = f'torch {torch.__version__}, transformers {transformers.__version__}'
  print(f'{path}: {", ".join(cases)}, of {versions}')


if __name__ == '__main__':
  main()
