"""What every frame of a client has: its columns as tables of other libraries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mystocks.sdk.errors import MissingLibraryError

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class ArrowFrame(ABC):
    """Columns that a subclass gives as an Arrow table."""

    @abstractmethod
    def to_arrow(self) -> pa.Table:
        """Returns a pyarrow table; symbols are a dictionary of strings."""

    def to_pandas(self) -> pd.DataFrame:
        """Returns a pandas data frame; null is NaN.

        Raises:
            MissingLibraryError: pandas is not installed.
        """
        _need("pandas", "to_pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Returns a Polars data frame.

        Raises:
            MissingLibraryError: Polars is not installed.
        """
        polars: Any = _need("polars", "to_polars")
        frame: pl.DataFrame = polars.from_arrow(self.to_arrow())
        return frame


def _need(library: str, method: str) -> Any:
    try:
        return import_module(library)
    except ImportError:
        raise MissingLibraryError(
            f"expected {library} to be installed, was not ({method}); install it with "
            f"`pip install {library}`, or use to_arrow()"
        ) from None
