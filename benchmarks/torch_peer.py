"""Times the peer of benchmarks/speed.py: eager PyTorch on transformers' LLaMA.

  python benchmarks/torch_peer.py '{"width": 128, ...}' REPETITIONS

Prints a JSON object with the seconds of each training step. Runs under a Python that has
torch and transformers, which this project does not need.
"""

import json
import sys
import time

import torch
import transformers


def main() -> None:
  case, repetitions = json.loads(sys.argv[1]), int(sys.argv[2])
  torch.manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=case['vocab_size'],
      hidden_size=case['width'],
      intermediate_size=case['feed_forward_width'],
      num_hidden_layers=case['layers'],
      num_attention_heads=case['heads'],
      num_key_value_heads=case['heads'],
      max_position_embeddings=case['sequence_length'],
      tie_word_embeddings=False,
      use_cache=False,
    )
  )
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
  shape = (case['batch_size'], case['sequence_length'])
  tokens = torch.randint(0, case['vocab_size'], shape)
  seconds = []
  for _ in range(repetitions + 3):
    start = time.perf_counter()
    loss = model(input_ids=tokens, labels=tokens).loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    loss.item()
    seconds.append(time.perf_counter() - start)
  result = {
    'seconds': seconds[3:],  # the first ones warm up
    'parameters': sum(p.numel() for p in model.parameters()),
    'versions': {'torch': torch.__version__, 'transformers': transformers.__version__},
    'threads': torch.get_num_threads(),
  }
  print(json.dumps(result))


if __name__ == '__main__':
  main()
