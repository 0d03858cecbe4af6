"""Validation perplexity, parameters and memory of all methods: table 1 of ELAS.

  python -m experiments.run table1_perplexity --scale=proxy --workers=2
  python -m experiments.run table1_perplexity --scale=paper --only=60m \
      --config.data.source.path='c4/c4-train.*.json.gz' \
      --config.data.source.validation_path='c4/c4-validation.*.json.gz' \
      --config.data.tokenizer.path=t5-base/tokenizer.json

Reproduces: the table of arXiv 2605.03667 (v1) at 60m to 1b, with two controls that it
lacks, squared ReLU without pruning by LORO (loro_relu2) and by AdamW (low_rank_relu2).
Hardware: smoke three minutes; proxy 2.6 hours on two CPU cores, 86 runs; paper GPUs, not
yet run on any.
"""

from configs.methods import METHODS
from elas_jax.tables.agreement import gate
from elas_jax.tables.entries import Entry, gap_lines
from elas_jax.tables.plan import At
from elas_jax.tables.table import Row, Table
from experiments import published
from experiments.language import LANGUAGE, METRICS, scales
from experiments.published import ORDER, ORDERS

# What pruning alone costs: the same optimiser and activation without it.
CONTROLS = (('elas', 'loro_relu2'), ('elas_adamw', 'low_rank_relu2'))


def rows(at: At) -> list[Row]:
  # CoLA-M computes CoLA's numbers by another route: no run of its own at the proxy.
  methods = [x for x in METHODS if x != 'cola_m' or at.scale != 'proxy']
  return [Row(x, x, published=published.PERPLEXITY.get(x, {})) for x in methods]


def conclude(entries: list[Entry]) -> list[str]:
  return ['Gap to control, ' + x for x in gap_lines(entries, CONTROLS, METRICS)]


TABLE = Table(
  title='Validation perplexity of all methods (ELAS, table 1)',
  rows=rows,
  family=LANGUAGE,
  scales=scales(),
  conclude=conclude,
  first=lambda entries: gate(entries, ORDER, ORDERS, METRICS[0], 'full'),
)
