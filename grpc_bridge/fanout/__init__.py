"""Feature rows from one topic reader to many streams.

One `FeatureHub` serves a bridge process. It reads each feature topic once, encodes a block once for
all readers that made the same choice, and lets nobody wait for anybody. Everything runs in the
event loop that called `FeatureHub.start`; only Kafka calls happen in threads.

::

    hub = FeatureHub(settings)
    await hub.start()

    async with hub.subscribe(selection, request) as subscription:
        async for encoded in subscription:     # serialized SubscribeFeaturesResponse
            ...
        delivery = await subscription.take()   # or in parts, for other messages

    async with hub.listen("ticks", {"AAPL"}) as listener:   # rows of symbols, from now on
        listener.add_symbols({"MSFT"})
        delivery = await listener.take()       # waits
        delivery = listener.take_nowait()      # or None

    delivery.blocks   # tuple[EncodedBlock, ...]: .partition .rows .source_first_offset
                      #     .source_last_offset .data (a serialized FeatureBlock)
    delivery.token    # bytes: a serialized ResumeToken that goes on after this delivery
    delivery.rows     # int

    hub.next_rows("ticks")                # {partition: identity of the next row}
    await hub.caught_up("ticks", offsets) # until read up to offsets (None: the ends as of now)
    await hub.describe("ticks")           # FeatureSetInfo: .name .topic .topic_id .partitions
                                          #     .columns (() while the topic is empty)
    await hub.close()                     # ends all streams with StreamCutError

`Subscription` and `Listener` also have ``queued_bytes``, ``lag_rows``, ``rows_sent`` and ``token``.
Errors are in `grpc_bridge.fanout.errors`; each has the class attribute ``code``
(`grpc.StatusCode`), and those that end a stream carry ``resume`` (a serialized ResumeToken) and
``retry_after_s`` (None or seconds).
"""
