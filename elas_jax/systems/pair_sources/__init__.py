"""Pairs of answers: kinds of data.source of preference learning.

Each has `pairs(data, tokenizer)`, data/pairs.py:PreparedPairs, of the config's section
`data` and a tokenizer, None for data.tokenizer; `label()`, its name in records and tables;
and `shown()`, how messages name it.
"""

from elas_jax.systems.pair_sources.pairs import Pairs

PAIR_SOURCES = {'pairs': Pairs}
