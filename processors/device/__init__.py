"""CPU or GPU: the only package that knows CUDA."""
