"""Prepares a TFDS set of a few examples: what the cases of kinds that read one open."""

import contextlib
import io
import pathlib
from collections.abc import Sequence
from typing import Any


def write_set(
  data_dir: pathlib.Path,
  name: str,
  features: dict[str, Any],
  splits: dict[str, Sequence[dict[str, Any]]],
) -> None:
  """Prepares the set `name` in `data_dir`, from the examples of each split."""
  import tensorflow_datasets as tfds

  with tfds.core.registered.skip_registration():

    class TinySet(tfds.core.GeneratorBasedBuilder):
      """A few examples."""

      VERSION = tfds.core.Version('1.0.0')

      def _info(self):
        described = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=described)

      def _split_generators(self, _):
        return {split: enumerate(examples) for split, examples in splits.items()}

      def _generate_examples(self):
        raise NotImplementedError('_split_generators has the examples')

    TinySet.name = name
    builder = TinySet(data_dir=data_dir, file_format='array_record')
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces downloads there
    builder.download_and_prepare(download_dir=data_dir / 'downloads')
