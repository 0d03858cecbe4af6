"""Corpora of documents: kinds of data.source of a language model.

Each has `corpus(data)`, what data/blocks.py prepares, of the config's section `data`;
`label()`, its name in records and tables; and `shown()`, how messages name it. One whose
rows change by phase has at_step(step), what tells the phase of a step (from 1).
A new one goes into mixture.py:CORPORA, the kinds that a mixture may be of.
"""

from elas_jax.systems.sources.mixture import CORPORA, Mixture

SOURCES = {**CORPORA, 'mixture': Mixture}
