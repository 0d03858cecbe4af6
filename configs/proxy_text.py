"""The second proxy of the language tables: METHOD on short documents, by a BPE.

  python -m experiments.text_corpus
  python -m elas_jax.train --config=configs/proxy_text.py:elas --workdir=runs/text_elas
  python -m experiments.run proxy_text --scale=proxy --workers=2

METHOD: one of configs/methods.py. All is as in configs/proxy.py but data, vocabulary and
steps: 1,250 of 16 documents, 2.2 million tokens. That is 3.0 for a parameter of the dense
model, of which embedding and head are 72 %, and 10.9 for each of the others; the published
runs have about 20. It is what a CPU core does in the time of a run of configs/proxy.py.

Data: what the first command writes, a document a row, cut or padded to 128 tokens, 110 of
which are targets: 16,529 rows, 1.2 times over; evaluated on 131,072 tokens.
Hardware: a CPU core (of an AMD EPYC), two and a half minutes by the seconds of the recorded
runs.
Expected: 1.65 bits per byte of elas, 1.49 of full; all are in the table of this name.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import choose
from elas_jax.configs import proxy

FOLDER = 'runs/text'
VOCABULARY = 4_096
VALIDATION_SHARE = 0.08  # more than the 131,072 tokens that are evaluated


def get_config(arg: str = 'elas') -> ConfigDict:
  config = proxy.get_config(arg)
  choose(
    config,
    'data.source',
    'text_files',
    path=f'{FOLDER}/*.jsonl',
    validation_share=VALIDATION_SHARE,
  )
  choose(config, 'data.tokenizer', 'file', path=f'{FOLDER}/tokenizer.json')
  config.data.protocol = 'document'
  config.model.vocab_size = VOCABULARY
  config.train.steps = 1_250
  return config
