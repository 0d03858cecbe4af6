"""Corpora of documents: kinds of data.source of a language model.

Each has `corpus(data)`, what data/blocks.py prepares, of the config's section `data`;
`label()`, its name in records and tables; `shown()`, how messages name it; and, if its
batches say which targets count, `answers()`, True. One whose rows change by phase has
at_step(step), what tells the phase of a step (from 1). A new one that a mixture may be of
goes into mixture.py:CORPORA.
"""

from elas_jax.systems.sources.chat import Chat
from elas_jax.systems.sources.mixture import CORPORA, Mixture

SOURCES = {**CORPORA, 'mixture': Mixture, 'chat': Chat}
