"""Supervised fine-tuning on conversations, in two phases, as PLM has it (arXiv 2503.12167).

  python -m elas_jax.data.rules --output=runs/rules --rules=addition,copy,reverse,count
  python -m elas_jax.data.rules --output=runs/harder --seed=1
  python -m elas_jax.train --config=configs/sft.py:1 --workdir=runs/sft_1 \
      --config.restore=runs/default --config.data.source.path=runs/rules/train.jsonl \
      --config.data.source.validation_path=runs/rules/validation.jsonl
  python -m elas_jax.train --config=configs/sft.py:2 --workdir=runs/sft_2 \
      --config.restore=runs/sft_1 --config.data.source.path=runs/harder/train.jsonl \
      --config.data.source.validation_path=runs/harder/validation.jsonl
  python -m elas_jax.generate --workdir=runs/sft_2 --chat --prompt='What is 12 + 30?'
  python -m elas_jax.reward --workdir=runs/sft_2 --prompts=runs/harder/validation.jsonl

Phase 1 is general, phase 2 harder, on smaller rates: each is a run, which starts from the
parameters of the one before. The model is that of configs/default.py, without an argument;
give the --config.model fields of another run that is to be restored. Conversations of one's
own are JSON lines of {"messages": [{"role": "user", "content": "..."}, ...]}.

Published of PLM's fine-tuning is one script, of MindSpeed-LLM: AdamW with betas 0.9 and
0.999, weight decay 0.1, gradients clipped at 1, a constant rate of 1.25e-6, 16 sequences of
4096 tokens. The betas, the decay, the clipping, the schedule and the batch are those; the
rates, lengths and steps are ours, for a model of a thousandth of the size.

Hardware: two CPU cores; about 0.1 s a step.
Expected: after each phase the loss on answers is below half of what it was at its start.
"""

from ml_collections import ConfigDict

from elas_jax.common.errors import UserError
from elas_jax.common.limits import quoted, shown
from elas_jax.config.overrides import choose
from elas_jax.configs import default

PHASES = {'1': {'learning_rate': 1e-3}, '2': {'learning_rate': 3e-4}}


def get_config(arg: str = '1') -> ConfigDict:
  if arg not in PHASES:
    raise UserError(f'configs/sft.py:{shown(arg)}: must be one of {quoted(PHASES)}')
  config = default.get_config()
  choose(config, 'data.source', 'chat')
  choose(
    config,
    'optimizer',
    'adamw',
    b1=0.9,
    b2=0.999,
    weight_decay=0.1,
    clip_norm=1.0,
    **PHASES[arg],
  )
  choose(config, 'schedule', 'constant', warmup_steps=0.03)
  config.data.batch_size = 16
  config.train.steps = 1_000
  config.eval.prompt = 'What is 12 + 30?'
  config.eval.sample_tokens = config.data.get_ref('sequence_length') // 2
  return config
