"""A room for every system: in each folder one plain dict of kinds, and one file each."""
