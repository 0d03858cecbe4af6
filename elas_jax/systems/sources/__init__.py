"""Corpora of documents: kinds of data.source of a language model.

Each has `corpus(data)`, what data/blocks.py prepares, of the config's section `data`;
`label()`, its name in records and tables; `shown()`, how messages name it; and, if its
batches say which targets count, `answers()`, True.
"""

from elas_jax.systems.sources.chat import Chat
from elas_jax.systems.sources.python_source import PythonSource
from elas_jax.systems.sources.text_files import TextFiles
from elas_jax.systems.sources.tfds import Tfds

SOURCES = {
  'text_files': TextFiles,
  'python_source': PythonSource,
  'tfds': Tfds,
  'chat': Chat,
}
