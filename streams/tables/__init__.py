"""Redis tables: views of topics that can be rebuilt from them at any time."""
