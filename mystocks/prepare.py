"""`python -m mystocks.prepare`: makes now what the first start of the roles would have to make.

Compiled kernels of the default settings, and the sessions of the markets; both are kept on disk.
"""

from mystocks.bar_tasks import BarTasks
from mystocks.feature_tasks import FeatureTasks, source_decoder
from processors.features import compute
from schemas.settings import Settings
from schemas.ticks.splitter import TickSplitter
from schemas.topics import MAX_MESSAGE_BYTES, bars_topic


def main() -> None:
    """Compiles or loads everything."""
    # The defaults, whatever the environment says.
    settings = Settings.model_construct()
    FeatureTasks(settings)
    BarTasks(settings)
    source_decoder(bars_topic("1m"))
    TickSplitter(settings.kafka.partitions, MAX_MESSAGE_BYTES).warm_up()
    compute.warm_up()


if __name__ == "__main__":
    main()
