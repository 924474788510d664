"""What every frame of a client has: its columns as tables of other libraries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from mystocks.sdk.libraries import need_library

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
        need_library("pandas", "to_pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> pl.DataFrame:
        """Returns a Polars data frame.

        Raises:
            MissingLibraryError: Polars is not installed.
        """
        polars: Any = need_library("polars", "to_polars")
        frame: pl.DataFrame = polars.from_arrow(self.to_arrow())
        return frame
