"""A folder of one's own text: .txt, .md, .py, .jsonl, .jsonl.gz, .jsonl.zst.

  python -m elas_jax.train --config=configs/text.py --workdir=runs/mine \
      --config.data.source.path=FOLDER

A small low-rank model on bytes. For a larger corpus train a tokenizer first and say how
many ids it has:

  python -m elas_jax.data.train_tokenizer --source=text_files --path=FOLDER \
      --vocab_size=8192 --output=bpe.json
  ... --config.data.tokenizer=file \
      --config.data.tokenizer.path=bpe.json --config.model.vocab_size=8192

Hardware: a CPU of two cores takes about 0.05 s a step; any GPU runs it too.
Expected: depends on the text; Python source gives about the result of configs/default.py.
"""

from ml_collections import ConfigDict

from elas_jax.config.overrides import choose
from elas_jax.configs import default


def get_config() -> ConfigDict:
  config = default.get_config()
  choose(config, 'data.source', 'text_files')
  config.eval.prompt = ''
  return config
