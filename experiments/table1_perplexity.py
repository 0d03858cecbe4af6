"""Validation perplexity, parameters and memory of all methods: table 1 of ELAS.

  python -m experiments.table1_perplexity --scale=smoke
  python -m experiments.table1_perplexity --scale=proxy
  python -m experiments.table1_perplexity --scale=paper --only=60m \
      --config.data.source.path='c4/c4-train.*.json.gz' \
      --config.data.source.validation_path='c4/c4-validation.*.json.gz' \
      --config.data.tokenizer.path=t5-base/tokenizer.json

Reproduces: the table of arXiv 2605.03667 (v1) at 60m to 1b, with two controls that it
lacks, squared ReLU without pruning by LORO (loro_relu2) and by AdamW (low_rank_relu2).
Hardware: smoke two CPU cores, 3 minutes from empty caches; proxy two CPU cores, 42 runs of
500 steps after experiments.learning_rates, three to five minutes each on a core of its own;
paper GPUs, not yet run on any.
Expected: experiments/results/table1_perplexity/proxy.md.
"""

from typing import Any

from configs.methods import METHODS
from elas_jax.config.cli import run_command
from experiments import published, report
from experiments.harness import Experiment, main
from experiments.runs import Row, Setting

# What pruning alone costs: the same optimiser and activation without it.
CONTROLS = (('elas', 'loro_relu2'), ('elas_adamw', 'low_rank_relu2'))


def rows(setting: Setting, size: str) -> list[Row]:
  return [
    Row(method, method, published=published.PERPLEXITY.get(method, {}))
    for method in METHODS
  ]


def conclude(entries: list[dict[str, Any]]) -> tuple[Any, list[str]]:
  gaps, lines = report.gaps(entries, CONTROLS)
  return {'gaps_to_control': gaps}, ['Gap to control, ' + line for line in lines]


EXPERIMENT = Experiment(
  name='table1_perplexity',
  title='Validation perplexity of all methods (ELAS, table 1)',
  rows=rows,
  conclude=conclude,
)

if __name__ == '__main__':
  run_command(lambda: main(EXPERIMENT))
