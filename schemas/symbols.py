"""What a symbol looks like and which market it trades on."""

import re

from schemas.errors import InvalidInputError

MAX_SYMBOL_BYTES = 32
SYMBOL_PATTERN = re.compile(r"[A-Za-z0-9._:/^=-]{1,32}")

# Venue suffix -> market rule set. Besides the exchanges' usual short names: ISO 10383 codes, and
# the "SS" that Yahoo uses for Shanghai.
MARKET_OF_SUFFIX = {
    "SH": "cn_ashare",
    "SS": "cn_ashare",
    "XSHG": "cn_ashare",
    "SZ": "cn_ashare",
    "XSHE": "cn_ashare",
    "BJ": "cn_ashare",
    "XBSE": "cn_ashare",
    "US": "us_equity",
    "XNYS": "us_equity",
    "XNAS": "us_equity",
    "ARCX": "us_equity",
    "XASE": "us_equity",
    "CME": "us_futures",
    "XCME": "us_futures",
    "CBOT": "us_futures",
    "XCBT": "us_futures",
    "NYMEX": "us_futures",
    "XNYM": "us_futures",
    "COMEX": "us_futures",
    "XCEC": "us_futures",
    "BINANCE": "crypto",
    "BYBIT": "crypto",
    "COINBASE": "crypto",
    "KRAKEN": "crypto",
    "OKX": "crypto",
}

# First digits of a bare A-share code -> its exchange's suffix; the longest match counts.
_ASHARE_EXCHANGE = {
    "0": "SZ",
    "1": "SZ",
    "2": "SZ",
    "3": "SZ",
    "4": "BJ",
    "5": "SH",
    "6": "SH",
    "8": "BJ",
    "9": "SH",
    "11": "SH",
    "92": "BJ",
}
_ASHARE_CODE = re.compile(r"[0-9]{6}")


def symbol_problem(symbol: str) -> str | None:
    """Returns what is wrong with `symbol` in words, or None when it is acceptable."""
    if not symbol:
        return "symbol is empty"
    if SYMBOL_PATTERN.fullmatch(symbol):
        return None
    size = len(symbol.encode("utf-8", "surrogatepass"))
    if size > MAX_SYMBOL_BYTES:
        return f"symbol has {size} bytes, expected at most {MAX_SYMBOL_BYTES} ({symbol[:40]!a})"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in symbol):
        return f"symbol contains a control character ({symbol!a})"
    return f"symbol {symbol!a} has a character outside A-Z a-z 0-9 . _ : / ^ = -"


def market_of(symbol: str) -> str | None:
    """Returns the market of a symbol by its venue suffix (``600000.SH``), or None."""
    _, dot, suffix = symbol.rpartition(".")
    return MARKET_OF_SUFFIX.get(suffix.upper()) if dot else None


def qualify(symbol: str, market: str) -> str:
    """Returns `symbol` with its venue suffix where the request names the market.

    Args:
        symbol: A symbol with or without suffix; a bare A-share code has six digits.
        market: Name of a market rule set, for example ``cn_ashare``.

    Raises:
        InvalidInputError: The symbol is malformed, or belongs to another market.
    """
    problem = symbol_problem(symbol)
    if problem:
        raise InvalidInputError(f"expected a symbol, was {symbol!a} ({problem}); correct it")
    if market == "cn_ashare" and _ASHARE_CODE.fullmatch(symbol):
        suffix = _ASHARE_EXCHANGE.get(symbol[:2]) or _ASHARE_EXCHANGE.get(symbol[0])
        if suffix is None:
            raise InvalidInputError(
                f"expected an A-share code, was {symbol} (no exchange uses its first digits); "
                "add the suffix .SH, .SZ or .BJ"
            )
        return f"{symbol}.{suffix}"
    found = market_of(symbol)
    if found is not None and found != market:
        raise InvalidInputError(
            f"expected a symbol of market {market}, was {symbol} (of {found}); "
            "name that market or another symbol"
        )
    return symbol
