"""Feature sets: indicators compiled into one kernel, and the task that runs it."""
