"""Kernels as ops, one folder each: reference, public function, kernel, named cases."""
