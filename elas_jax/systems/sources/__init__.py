"""Corpora of documents: kinds of data.source of a language model.

Each has `corpus(data)`, what data/blocks.py prepares, of the config's section `data`;
`label()`, its name in records and tables; and `shown()`, how messages name it.
"""

from elas_jax.systems.sources.mixture import CORPORA, Mixture

SOURCES = {**CORPORA, 'mixture': Mixture}
