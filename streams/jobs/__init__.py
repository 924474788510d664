"""Jobs as records: commands in, events out. A job's state is the fold of its events."""
