"""Tokenizers: kinds of data.tokenizer.

Each has `load()`, the tokenizer (data/tokenizers.py says what that offers); `is_there()`,
whether there is something to load; `file()`, the path of its tokenizer.json or '';
`label()`, its name in tables; and `shown()`, how messages name it.
"""

from elas_jax.systems.tokenizers.bytes import Bytes
from elas_jax.systems.tokenizers.file import File

TOKENIZERS = {'bytes': Bytes, 'file': File}
