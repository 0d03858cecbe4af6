"""The proxy of the language tables: METHOD at D 64, by 22 tokens a parameter.

  python -m elas_jax.train --config=configs/proxy.py:elas --workdir=runs/proxy_elas
  python -m experiments.run table1_perplexity --scale=proxy --workers=2

METHOD: one of configs/methods.py. As many tokens a parameter as the published runs at 60m
have; embedding and head train at one rate whatever the method, which its own rate is
looked for beside (experiments/language.py); all periods are shares of the run.

Data: the standard library of the running interpreter, as bytes: 5.1 million of them, all
evaluations on the same 131,072.
Hardware: a CPU core, below 1 GB of memory; about three minutes.
Expected: 1.32 bits per byte of full, 1.59 of low_rank, 1.60 of elas, at the rates found
for them.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import set_field
from elas_jax.configs import default, methods


def get_config(arg: str = 'elas') -> ConfigDict:
  methods.check(arg, f'configs/proxy.py:{arg}')
  config = default.base()
  config.model.width = 64
  methods.apply_short(config, arg, rank=16, swiglu_width=176, relu2_width=264)
  # Of all methods alike. No weight decay, as LORO has none and GaLore's and SLTrain's runs
  # had none: it is times the learning rate, so that 0.1 of it took most where kernels want
  # a large one (GaLore ends 0.06 bits per byte lower without, full rank 0.01: 1,500 steps,
  # one seed).
  if 'weight_decay' in config.optimizer:
    set_field(config, 'optimizer.weight_decay', 0.0)

  config.train.steps = 2_500
  config.checkpoint.every = 500
  config.checkpoint.keep_latest = 1
  config.checkpoint.keep_best = 0
  config.eval.every = config.train.get_ref('steps') + 0  # a reference of its own
  config.eval.units = 131_072  # the same ones for every run
  config.eval.sample_tokens = 0
  return config
