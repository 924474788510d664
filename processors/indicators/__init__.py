"""Technical indicators, one file each; `contract.py` says what one is."""
