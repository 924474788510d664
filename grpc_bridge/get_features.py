"""`GetFeatures`: the latest rows, from the Redis table."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import redis.asyncio
from redis.exceptions import RedisError

from grpc_bridge.fanout.choice import checked_names, checked_symbols, listed
from grpc_bridge.fanout.hub import FeatureHub
from grpc_bridge.limits import max_response_bytes
from mystocks.v1.market_pb2 import FeatureBlock, RowPosition
from mystocks.v1.realtime_pb2 import GetFeaturesRequest, GetFeaturesResponse
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from streams.tables.feature_table import TableNames

# What a row has beside the features.
_FIXED = frozenset({"symbol", "event_time_ns", "price", "partition", "row"})
# Without symbols: more rows than this are refused.
_MAX_ROWS = 10_000
# Rows come in parts, since Redis does nothing else while it collects one.
_ROWS_PER_PART = 1000
_NAN = float("nan")


class GetFeatures:
    """Reads the table of a feature set.

    Args:
        settings: Where Redis is.
        hub: Knows which feature sets there are.
    """

    def __init__(self, settings: Settings, hub: FeatureHub) -> None:
        self._settings = settings
        self._hub = hub
        self._client: redis.asyncio.Redis | None = None
        if settings.redis.url is not None:
            self._client = redis.asyncio.Redis.from_url(
                settings.redis.url.get_secret_value(),
                socket_timeout=settings.redis.timeout_s,
                socket_connect_timeout=settings.redis.timeout_s,
            )

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def answer(self, request: GetFeaturesRequest) -> GetFeaturesResponse:
        """Returns the latest row of each symbol.

        Args:
            request: Without symbols, of all symbols.

        Raises:
            RequestFailedError: A symbol or a name is not acceptable, there is no such set, there
                are too many rows, or Redis is not there.
        """
        checked_symbols(request.symbols)
        checked_names(request.names)
        feature_set = request.feature_set or self._settings.features.name
        info = await self._hub.describe(feature_set)
        key = TableNames.of(feature_set).rows
        symbols = list(dict.fromkeys(request.symbols))
        try:
            values = await (self._of(key, symbols) if symbols else self._all(key))
        except RedisError as error:
            raise RequestFailedError(
                Code.UNAVAILABLE,
                f"expected Redis at {self._settings.redis.redacted_url()}, was not there "
                f"({error}); start it, or correct MYSTOCKS_REDIS__URL",
                retry_after_s=1.0,
            ) from error
        # Many rows take longer than other streams should wait for the event loop.
        return await asyncio.to_thread(
            self._response, feature_set, symbols, values, request.names, info.columns
        )

    def _response(
        self,
        feature_set: str,
        symbols: Sequence[str],
        values: Mapping[str, bytes],
        wanted: Sequence[str],
        columns: Sequence[str],
    ) -> GetFeaturesResponse:
        rows = [orjson.loads(value) for value in values.values()]
        names = _names(rows, wanted, columns)
        most = max_response_bytes(self._settings.grpc)
        # Times, prices and features alone.
        size = 8 * len(rows) * (2 + len(names))
        if size <= most:
            response = GetFeaturesResponse(
                features=_block(feature_set, names, rows),
                unknown_symbols=[symbol for symbol in symbols if symbol not in values],
            )
            size = response.ByteSize()
            if size <= most:
                return response
        raise RequestFailedError(
            Code.RESOURCE_EXHAUSTED,
            f"expected a response of at most {most} bytes, was {size} ({len(rows)} rows of "
            f"{len(names)} features); name fewer symbols or features at a time",
            field="symbols",
        )

    def _connected(self) -> redis.asyncio.Redis:
        if self._client is None:
            raise RequestFailedError(
                Code.FAILED_PRECONDITION,
                "expected a Redis server, none is configured; set MYSTOCKS_REDIS__URL",
            )
        return self._client

    async def _of(self, key: str, symbols: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for begin in range(0, len(symbols), _ROWS_PER_PART):
            part = list(symbols[begin : begin + _ROWS_PER_PART])
            values: list[Any] = await self._connected().hmget(key, part)
            found.update(
                (symbol, value)
                for symbol, value in zip(part, values, strict=True)
                if value is not None
            )
        return found

    async def _all(self, key: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        cursor = 0
        while True:
            answer: Any = await self._connected().hscan(key, cursor, count=_ROWS_PER_PART)
            cursor, part = answer
            found.update((symbol.decode(), value) for symbol, value in part.items())
            if len(found) > _MAX_ROWS:
                raise RequestFailedError(
                    Code.RESOURCE_EXHAUSTED,
                    f"expected at most {_MAX_ROWS} rows, were more; name the symbols, or read "
                    "all of them with SubscribeFeatures",
                    field="symbols",
                )
            if not cursor:
                return dict(sorted(found.items()))


def _names(
    rows: Sequence[Mapping[str, Any]], wanted: Sequence[str], columns: Sequence[str]
) -> list[str]:
    """Returns the features to show, in order."""
    known = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
    known = [name for name in known if name not in _FIXED]
    for i, name in enumerate(wanted):
        if name not in known and known:
            raise RequestFailedError(
                Code.INVALID_ARGUMENT,
                f"expected a feature of the set, was {name[:64]!a}; there are {listed(known)}",
                field=f"names[{i}]",
            )
    return list(dict.fromkeys(wanted)) or known


def _block(
    feature_set: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> FeatureBlock:
    block = FeatureBlock(
        feature_set=feature_set,
        names=names,
        symbols=[row["symbol"] for row in rows],
        symbol_index=range(len(rows)),
        event_time_ns=[row["event_time_ns"] for row in rows],
        prices=[row["price"] for row in rows],
    )
    for name in names:
        values = [row.get(name) for row in rows]
        block.values.extend([_NAN if value is None else value for value in values])
    if rows and len({row["partition"] for row in rows}) == 1:
        first = min(row["row"] for row in rows)
        offsets = [row["row"] - first for row in rows]
        if max(offsets) < 2**32:
            position = RowPosition(partition=rows[0]["partition"], row=first)
            block.first_row.CopyFrom(position)
            block.row_offset.extend(offsets)
    return block
