"""Preference learning on pairs of answers: DPO (arXiv 2305.18290), and rounds of ARIES.

  python -m elas_jax.data.rules --output=runs/rules
  python -m elas_jax.data.refinement --input=runs/rules/train.jsonl --output=runs/train
  python -m elas_jax.data.refinement --input=runs/rules/validation.jsonl \
      --output=runs/held_out
  python -m elas_jax.train --config=configs/sft.py:1 --workdir=runs/sft \
      --config.restore=runs/default --config.data.source.path=runs/train/sft.jsonl \
      --config.data.source.validation_path=runs/held_out/sft.jsonl \
      --config.data.source.counted=last
  python -m elas_jax.pairs --workdir=runs/sft --prompts=runs/rules/train.jsonl \
      --output=runs/pairs_1/pairs.jsonl
  python -m elas_jax.train --config=configs/preference.py --workdir=runs/dpo_1 \
      --config.restore=runs/sft --config.data.source.path=runs/pairs_1 \
      --config.data.source.validation_path=runs/held_out/pairs.jsonl
  python -m elas_jax.reward --workdir=runs/dpo_1 --prompts=runs/rules/validation.jsonl

The last three are a round of ARIES (arXiv 2502.05605; elas_jax/data/refinement.py); the
next one begins with `pairs --workdir=runs/dpo_1`. Pairs of one's own are JSON lines of
{"prompt": "...", "chosen": "...", "rejected": "..."}. The model is that of
configs/default.py, without an argument; give the --config.model fields of another run that
is to be restored.

Published, in the paper and its authors' code: beta of 0.1, 64 pairs a step, gradients
clipped at 10, a constant rate, 5e-7 to 1e-6, after a warm-up of 150 steps, and RMSprop. The
rate, the length of the warm-up, the steps and AdamW, without weight decay, are ours, for a
model of a thousandth of the size. An nll of 1 is on, which another paper has for answers
that are right or wrong (arXiv 2404.19733), since where two answers differ by a letter DPO
alone makes both improbable: in the trial below, 120 steps of it on the run's own pairs took
the share of right answers from 85 % to none, though the accuracy on the pairs that were
learned rose beyond 90 %.

Hardware: two CPU cores.
Expected: of one seed of a smaller trial (D 64, dense maps, copies and reversals of four
letters, 32 pairs a step, a rate of 2e-4, 100 steps): on held-out pairs of refinement.py an
accuracy of 92.5 % where such pairs are learned; of 200 held-out questions 98.5 % answered
rightly, 85 % before, where the run's own pairs are. The nll alone (a beta of 1e-6) gave
100 %: that the comparison of answers adds something is not shown by this.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import choose
from elas_jax.configs import default


def get_config() -> ConfigDict:
  config = default.base('preference')
  config.model = default.get_config().model
  choose(
    config,
    'optimizer',
    'adamw',
    learning_rate=1e-4,
    b1=0.9,
    b2=0.999,
    weight_decay=0.0,
    clip_norm=10.0,
  )
  choose(config, 'schedule', 'constant', warmup_steps=0.1)
  config.train.preference.beta, config.train.preference.nll = 0.1, 1.0
  config.data.batch_size = 64
  config.train.steps = 200
  config.train.log_every = 10
  config.checkpoint.every = (config.train.get_ref('steps') + 3) // 4
  config.eval.every = (config.train.get_ref('steps') + 3) // 4
  config.eval.prompt = 'What is 12 + 30?'
  config.eval.sample_tokens = 64
  return config
