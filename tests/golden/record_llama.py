"""Records tests/golden/llama.npz: a tiny LLaMA in PyTorch, the independent reference.

  pip install torch transformers numpy
  python tests/golden/record_llama.py

Weights are NumPy arithmetic, saved under this project's parameter paths. Recorded: the
logits, the mean next-token loss, its gradient norm, and the losses of the first AdamW
steps on the same batch (clipping at 1, decoupled decay of all but the norms).
"""

import pathlib

import numpy as np
import torch
import transformers

V, D, F, N, H, J, L, B = 61, 32, 48, 2, 4, 2, 24, 3
LEARNING_RATE, WEIGHT_DECAY, STEPS = 3e-3, 0.1, 4


def weights() -> dict[str, np.ndarray]:
  """Paths and shapes as in models/decoder.py, values from sines."""
  K = D // H
  shapes = {
    'embedding': (V, D),
    'head': (D, V),
    'final_norm/scale': (D,),
    'layers/attention_norm/scale': (N, D),
    'layers/feed_forward_norm/scale': (N, D),
    'layers/attention/query/kernel': (N, D, H * K),
    'layers/attention/key/kernel': (N, D, J * K),
    'layers/attention/value/kernel': (N, D, J * K),
    'layers/attention/output/kernel': (N, H * K, D),
    'layers/feed_forward/gate/kernel': (N, D, F),
    'layers/feed_forward/up/kernel': (N, D, F),
    'layers/feed_forward/down/kernel': (N, F, D),
  }
  made = {}
  for number, (name, shape) in enumerate(shapes.items()):
    index = np.arange(np.prod(shape), dtype=np.float64)
    wave = np.sin(index * (1.37 + 0.11 * number) + number)
    value = 1.0 + 0.2 * wave if name.endswith('scale') else 0.12 * wave
    made[name] = value.reshape(shape).astype(np.float32)
  return made


def torch_model(w: dict[str, np.ndarray]) -> torch.nn.Module:
  config = transformers.LlamaConfig(
    vocab_size=V,
    hidden_size=D,
    intermediate_size=F,
    num_hidden_layers=N,
    num_attention_heads=H,
    num_key_value_heads=J,
    rms_norm_eps=1e-6,
    max_position_embeddings=L,
    tie_word_embeddings=False,
    use_cache=False,
    attn_implementation='eager',
  )
  model = transformers.LlamaForCausalLM(config).float()
  state = {
    'model.embed_tokens.weight': w['embedding'],
    'lm_head.weight': w['head'].T,
    'model.norm.weight': w['final_norm/scale'],
  }
  names = {
    'input_layernorm.weight': 'attention_norm/scale',
    'post_attention_layernorm.weight': 'feed_forward_norm/scale',
    'self_attn.q_proj.weight': 'attention/query/kernel',
    'self_attn.k_proj.weight': 'attention/key/kernel',
    'self_attn.v_proj.weight': 'attention/value/kernel',
    'self_attn.o_proj.weight': 'attention/output/kernel',
    'mlp.gate_proj.weight': 'feed_forward/gate/kernel',
    'mlp.up_proj.weight': 'feed_forward/up/kernel',
    'mlp.down_proj.weight': 'feed_forward/down/kernel',
  }
  for layer in range(N):
    for theirs, ours in names.items():
      state[f'model.layers.{layer}.{theirs}'] = w[f'layers/{ours}'][layer].T
  state = {name: torch.tensor(np.ascontiguousarray(x)) for name, x in state.items()}
  model.load_state_dict(state, strict=True)
  return model


def main() -> None:
  w = weights()
  tokens = (np.arange(B * L).reshape(B, L) * 7919 % 104729 % V).astype(np.int64)
  model = torch_model(w)
  batch = torch.tensor(tokens)
  decayed = [p for n, p in model.named_parameters() if 'norm' not in n]
  norms = [p for n, p in model.named_parameters() if 'norm' in n]
  optimizer = torch.optim.AdamW(
    [{'params': decayed}, {'params': norms, 'weight_decay': 0.0}],
    lr=LEARNING_RATE,
    betas=(0.9, 0.95),
    eps=1e-8,
    weight_decay=WEIGHT_DECAY,
  )
  logits = model(input_ids=batch).logits.detach().numpy()
  losses, norms_of_gradient = [], []
  for _ in range(STEPS):
    loss = model(input_ids=batch, labels=batch).loss
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    losses.append(loss.item())
    norms_of_gradient.append(norm.item())
  path = pathlib.Path(__file__).with_name('llama.npz')
  np.savez_compressed(
    path,
    tokens=tokens.astype(np.int32),
    logits=logits,
    losses=np.array(losses),
    gradient_norms=np.array(norms_of_gradient),
    **{f'weights/{name}': x for name, x in w.items()},
  )
  print(f'torch {torch.__version__}, transformers {transformers.__version__}')
  print(f'{path}: losses {losses}, gradient norms {norms_of_gradient}')


if __name__ == '__main__':
  main()
