"""Where names of older versions are now, for who still writes them: hints of errors."""

from collections.abc import Iterable

from elas_jax.config import version_0

# Field of version 0 or 1 -> where it is now, of those that no table of version_0.py has.
MOVED = {
  'model.layer': 'model.linear',
  'model.kan': 'model.linear',
  'model.heads': 'model.attention.heads model.architecture.attention.heads',
  'model.kv_heads': 'model.attention.kv_heads',  # of gqa
  'model.patch': 'model.architecture.patch',
  'model.rational_groups': 'model.linear.groups model.feed_forward.groups',
  'model.architecture.heads': 'model.architecture.attention.heads',
  'model.norm_epsilon': 'model.norm.epsilon',
  'model.rope_base': 'model.position.base',
  'model.two_four_rule': 'model.feed_forward.recipe',
  'model.two_four_backward': 'model.feed_forward.recipe.backward',
  'model.two_four_refresh': 'model.feed_forward.recipe.refresh',
  'model.two_four_dense_steps': 'model.feed_forward.dense_steps',
  'model.two_four_implementation': 'model.feed_forward.implementation',
  'optimizer.name': 'optimizer',
  'optimizer.schedule': 'schedule',
  'data.path': 'data.source.path data.source.data_dir',
  'eval.tokens': 'eval.units',
  'train.z_loss': 'train.objectives.z_loss.coefficient',
}
# That configs of version 0 named as their source of images.
NAMED_SETS = ('mnist', 'fashion_mnist', 'cifar10', 'cifar100')
for _name in ('merge_every', 'relinear', 'relinear_g', 'relinear_b'):
  MOVED[f'optimizer.{_name}'] = f'model.linear.{_name}'
for _name in ('validation_path', 'validation_share', 'examples', 'noise', 'draw_seed'):
  MOVED[f'data.{_name}'] = f'data.source.{_name}'


def moved(path: str) -> list[str]:
  """Where a field of version 0 is now, if it has moved."""
  section, _, name = path.partition('.')
  if path in MOVED:
    return MOVED[path].split()
  if section == 'model':
    name = name.removeprefix('kan.')
    old = {old: new for names in version_0.LINEARS.values() for new, old in names.items()}
    old |= {field: field for fields in version_0.KANS.values() for field in fields}
    return [f'model.linear.{old[name]}'] if name in old else []
  if section == 'optimizer':
    if any(name in fields for fields in version_0.SCHEDULES.values()):
      return [f'schedule.{name}']
    old = {
      old: new for names in version_0.OPTIMIZERS.values() for new, old in names.items()
    }
    return [f'optimizer.{old[name]}'] if old.get(name, name) != name else []
  return []


def moved_kind(path: str, value: str, kinds: Iterable[str]) -> str:
  """How a field's value is said now, where `kinds` are; '' if that has not changed."""
  if path == 'model.feed_forward' and value in version_0.UNITS:
    unit, activation = version_0.UNITS[value]
    return f'{path}={unit} with {path}.activation={activation}'
  if path == 'data.tokenizer':
    return f'{path}=file with {path}.path={value}' if value else ''
  if path == 'data.source' and value:
    named = {'function': value in version_0.FUNCTIONS, 'shape': value in version_0.SHAPES}
    named |= {'tfds_images': True, 'tfds': True}
    kind = next((kind for kind in named if named[kind] and kind in kinds), '')
    return f'{path}={kind} with {path}.name={value}' if kind else ''
  return ''
