"""PLM: latent attention, squared ReLU, WSDC and data in phases (arXiv 2503.12167): SIZE.

  python -m elas_jax.train --config=configs/plm.py:tiny --workdir=runs/plm
  python -m elas_jax.train --config=configs/plm.py:1.8b --dry_run

SIZE: tiny, 60m, 1.8b. The model of 1.8b is the published one, 1.825 B parameters, by the
numbers of the authors' PLMConfig in transformers; 60m has the sizes of configs/c4.py, and
tiny those of configs/default.py, with PLM's proportions of attention (a latent of D / 4,
half as many rotated entries of a head as others).

Published of the training: about 2.48 T tokens, in several phases, by a schedule of warm-up,
stable, decay and constant. Its rates, its floor and the tokens and shares of its phases are
not: all numbers of optimiser, schedule and phases here are ours. A phase begins where the
decay does, and at 1.8b another where the rate has reached its floor.

Data: at tiny two halves of the running interpreter's library, as bytes, modules and files
of packages; at 60m C4 as in configs/c4.py, and that library; at 1.8b folders of one's own
in plm/ and the tokenizer of Qwen2. Download first; no network is used here.
Hardware: two CPU cores for tiny, some minutes, below 3 GB of memory. The others are meant
for GPUs or TPUs and have not been run on any; `--config.mesh.data=1 --config.mesh.fsdp=8`
shards 1.8b, and `--dry_run` prints its memory.
Expected: tiny ends with 2.18 bits per byte of its validation documents.
"""

import sysconfig

from ml_collections import ConfigDict

from elas_jax.config.overrides import choose, set_field
from elas_jax.configs import c4, default

# D, F, N, H, steps, B, L
SIZES = {
  'tiny': (128, 512, 4, 4, 1_000, 8, 128),
  '60m': (512, c4.squared_relu_width(1376), 8, 8, 10_000, 512, 256),
  '1.8b': (2048, 8192, 32, 16, 590_000, 1024, 4096),  # steps and B: 2.47 T tokens
}
LIBRARY = sysconfig.get_path('stdlib')
# Sources, and their shares of rows by phase.
DATA = {
  'tiny': (
    # Without the encodings, which are tables.
    f'modules=text_files:{LIBRARY}/*.py,packages=text_files:{LIBRARY}/[a-df-r]*/*.py',
    'modules=0.7,packages=0.3 | 0.7: modules=0.2,packages=0.8',
  ),
  '60m': (
    'web=text_files:c4/c4-train.*.json.gz;validation_path=c4/c4-validation.*.json.gz,'
    'code=python_source',
    'web=0.99,code=0.01 | 0.7: web=0.95,code=0.05',
  ),
  '1.8b': (
    'web=text_files:plm/web,code=text_files:plm/code,math=text_files:plm/math,'
    'instructions=text_files:plm/instructions',
    'web=0.7,code=0.2,math=0.1 | 0.7: web=0.5,code=0.25,math=0.2,instructions=0.05 | '
    '0.9: web=0.3,code=0.25,math=0.25,instructions=0.2',
  ),
}


def get_config(arg: str = 'tiny') -> ConfigDict:
  if arg not in SIZES:
    raise ValueError(f'--config=configs/plm.py:{arg}: must be one of {", ".join(SIZES)}')
  config = default.base()
  _model(config, arg)
  _data(config, arg)

  rate = {'tiny': 4e-3, '60m': 1e-3, '1.8b': 4e-4}[arg]
  choose(
    config,
    'optimizer',
    'adamw',
    learning_rate=rate,
    b1=0.9,
    b2=0.95,
    epsilon=1e-8,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  choose(
    config,
    'schedule',
    'wsdc',
    warmup_steps=2_000 if arg == '1.8b' else 0.05,
    decay_steps=0.2,
    decay_shape='linear',
    constant_steps=0.1,
    final_fraction=0.1,
  )
  return config


def _model(config: ConfigDict, size: str) -> None:
  D, F, N, H, *_ = SIZES[size]
  model = config.model
  model.width, model.feed_forward_width, model.layers = D, F, N
  model.vocab_size = {'tiny': 257, '60m': 32_000, '1.8b': 151_936}[size]
  choose(config, 'model.linear', 'dense')
  choose(config, 'model.feed_forward', 'mlp')  # squared ReLU
  choose(
    config,
    'model.attention',
    'mla',
    heads=H,
    kv_rank=D // 4,
    query_rank=0,
    nope_size=D // H,
    rope_size=D // H // 2,
    value_size=D // H,
  )
  choose(config, 'model.norm', 'rms', epsilon=1e-6)
  choose(config, 'model.position', 'rope', base=100_000.0)
  model.init_std = 0.02
  model.tied_head = True
  if size != 'tiny':
    model.unroll = 1
    model.compute_dtype = 'bfloat16'
  if size == '1.8b':
    model.remat = 'full'


def _data(config: ConfigDict, size: str) -> None:
  *_, steps, batch_size, length = SIZES[size]
  sources, phases = DATA[size]
  choose(config, 'data.source', 'mixture', sources=sources, phases=phases)
  if size != 'tiny':
    name = {'60m': 't5-base', '1.8b': 'qwen2'}[size]
    choose(config, 'data.tokenizer', 'file', path=f'{name}/tokenizer.json')
  config.data.sequence_length, config.data.batch_size = length, batch_size
  config.train.steps = steps
  config.eval.units = {'tiny': 131_072, '60m': 10_000_000, '1.8b': 10_000_000}[size]
  if size == 'tiny':
    config.checkpoint.every = (config.train.get_ref('steps') + 1) // 2
    config.eval.every = (config.train.get_ref('steps') + 1) // 2
    return
  config.train.log_every = 10
  config.checkpoint.every = config.eval.every = 1_000
  config.eval.prompt = 'The'
  if size == '1.8b':
    set_field(config, 'train.accumulation', 128)  # of 8 rows each
    config.eval.batch_size = 8
