"""The contract: topics, codecs between bytes and columns, settings, validation. No I/O."""
