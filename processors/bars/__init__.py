"""Bars from ticks by event time: calendars, kernel, state of a partition, task."""
