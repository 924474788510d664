import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, test } from "node:test";

import grpc from "@grpc/grpc-js";

import { MarketStream, Subscription, blamedFields, call, connect, rowsOf } from "./bridge.js";
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "./gen/health_pb.js";
import { BacktestService } from "./gen/mystocks/v1/backtest_pb.js";
import { RealTimeService, SlowReaderPolicy } from "./gen/mystocks/v1/realtime_pb.js";

const address = process.env.BRIDGE;
const realTime = connect(RealTimeService, address);
const health = connect(Health, address);
const backtests = connect(BacktestService, address);
after(() => [realTime, health, backtests].forEach((client) => client.close()));

const newSymbol = () => `N${randomUUID().replaceAll("-", "").slice(0, 10).toUpperCase()}.US`;
const prices = (count) => Array.from({ length: count }, (_, i) => 100 + ((i * 37) % 23) / 7);

/** Ticks a millisecond apart, from the present second on. */
function ticksOf(symbol, values) {
  const start = BigInt(Math.floor(Date.now() / 1000)) * 1_000_000_000n;
  return values.map((price, i) => ({
    symbol,
    eventTimeNs: start + BigInt(i) * 1_000_000n,
    price,
    size: 1,
  }));
}

async function sendAndDrain(...batches) {
  const stream = new MarketStream(realTime);
  for (const ticks of batches) stream.send("batch", { ticks });
  await stream.finish();
  return stream;
}

const timesOf = (rows) => rows.map((row) => row.time);
const eventTimes = (ticks) => ticks.map((tick) => tick.eventTimeNs);

test("health check says serving", async () => {
  for (const service of ["", RealTimeService.typeName]) {
    assert.equal((await call(health, "check", { service })).status, ServingStatus.SERVING);
  }
});

test("single ticks and batches are acknowledged and come back as rows", async () => {
  const [one, other] = [newSymbol(), newSymbol()];
  const single = ticksOf(one, prices(25));
  const stream = new MarketStream(realTime);
  const numbers = single.map((tick) => stream.send("tick", tick));
  const batch = stream.send("batch", { ticks: ticksOf(other, prices(300)) });
  await stream.untilAcknowledged(325);
  assert.deepEqual(numbers.map((n) => stream.accepted.get(n)), Array(25).fill(1));
  assert.equal(stream.accepted.get(batch), 300);
  await stream.untilRows(325);
  await stream.finish();
  assert.deepEqual(stream.refused, []);

  const rows = stream.rows.filter((row) => row.symbol === one);
  assert.equal(stream.rows.length, 325);
  assert.deepEqual(timesOf(rows), eventTimes(single));
  assert.equal(rows[18].values.sma_20, null);
  const average = single.slice(5).reduce((sum, tick) => sum + tick.price, 0) / 20;
  assert.ok(Math.abs(rows[24].values.sma_20 / average - 1) < 1e-12);
  for (const block of stream.blocks) {
    for (const row of rowsOf([block]).filter((row) => row.symbol === one)) {
      const [place] = stream.places.get(numbers[single.findIndex((t) => t.eventTimeNs === row.time)]);
      assert.equal(place.partition, row.partition);
      assert.ok(block.sourceFirstOffset <= place.offset && place.offset <= block.sourceLastOffset);
    }
  }
});

test("a half-closed stream is drained to the last row", async () => {
  const ticks = ticksOf(newSymbol(), prices(1000));
  const stream = await sendAndDrain(ticks.slice(0, 500), ticks.slice(500));
  assert.deepEqual(timesOf(stream.rows), eventTimes(ticks));
});

test("a bad tick is refused by field and the stream goes on", async () => {
  const good = ticksOf(newSymbol(), prices(3));
  const stream = new MarketStream(realTime);
  stream.send("tick", good[0]);
  const negative = stream.send("tick", { ...good[1], price: -1 });
  const batch = stream.send("batch", { ticks: [good[1], { ...good[2], symbol: "no spaces" }] });
  stream.send("tick", good[2]);
  await stream.untilAcknowledged(5);
  await stream.finish();
  const refused = stream.refused.toSorted((a, b) => Number(a.number - b.number));
  assert.deepEqual(refused.map((bad) => [bad.number, bad.row]), [[negative, 0], [batch, 1]]);
  assert.match(refused[0].reason, /price/);
  assert.match(refused[1].reason, /symbol/);
  assert.deepEqual(timesOf(stream.rows), eventTimes(good));
});

test("a subscription that is cut resumes without gap or double", async () => {
  const symbol = newSymbol();
  const ticks = ticksOf(symbol, prices(200));
  const subscription = new Subscription(realTime, { symbols: [symbol] });
  await subscription.open();
  for (let part = 0; part < 10; part += 1) {
    await sendAndDrain(ticks.slice(part * 20, part * 20 + 20));
    if (part % 3 === 1) {
      if (part % 2) await subscription.take();
      subscription.cut();
      await subscription.open();
    }
  }
  await subscription.until((rows) => rows.length >= 200);
  subscription.cut();
  assert.deepEqual(timesOf(subscription.rows), eventTimes(ticks));
});

test("every row of the topic comes once however often the reader is cut", async () => {
  const ticks = ticksOf(newSymbol(), prices(100));
  await sendAndDrain(ticks.slice(0, 50));
  await sendAndDrain(ticks.slice(50));
  const { symbol, eventTimeNs } = ticks.at(-1);
  const arrived = (rows) => rows.some((row) => row.symbol === symbol && row.time === eventTimeNs);
  const subscription = new Subscription(realTime, {});
  await subscription.open({ case: "earliest", value: true });
  while (!arrived(subscription.rows)) {
    await subscription.take();
    subscription.cut();
    await subscription.open();
  }
  subscription.cut();
  const next = new Map();
  for (const { partition, row } of subscription.rows) {
    assert.equal(row, next.get(partition) ?? 0n, `partition ${partition}`);
    next.set(partition, row + 1n);
  }
});

test("a subscription since a time begins with the first row of it", async () => {
  const ticks = ticksOf(newSymbol(), prices(60));
  await sendAndDrain(ticks);
  const subscription = new Subscription(realTime, { symbols: [ticks[0].symbol] });
  await subscription.open({ case: "sinceNs", value: ticks[41].eventTimeNs });
  await subscription.until((rows) => rows.length >= 19);
  subscription.cut();
  assert.deepEqual(timesOf(subscription.rows), eventTimes(ticks.slice(41)));
});

test("a selection on the stream brings the chosen features of the chosen symbols", async () => {
  const [one, other] = [newSymbol(), newSymbol()];
  const stream = new MarketStream(realTime);
  stream.send("select", { symbols: [one], names: ["ema_12"] });
  // A selection has no acknowledgement of its own; that of a tick sent after it stands for it.
  stream.send("batch", { ticks: ticksOf(other, prices(30)) });
  await stream.untilAcknowledged(30);
  const ticks = ticksOf(one, prices(30));
  stream.send("batch", { ticks });
  await stream.untilRows(30);
  stream.cut();
  assert.deepEqual(timesOf(stream.rows), eventTimes(ticks));
  assert.deepEqual(Object.keys(stream.rows[0].values), ["ema_12"]);
});

test("a stream that wants no rows gets acknowledgements alone", async () => {
  const stream = new MarketStream(realTime);
  stream.send("noRows", {});
  stream.send("batch", { ticks: ticksOf(newSymbol(), prices(100)) });
  await stream.untilAcknowledged(100);
  await stream.finish();
  assert.equal(stream.rows.length, 0);
});

test("the newest rows alone are kept for a reader that wants no more", async () => {
  const ticks = ticksOf(newSymbol(), prices(200));
  const policy = SlowReaderPolicy.LATEST;
  const subscription = new Subscription(realTime, { symbols: [ticks[0].symbol], policy });
  await subscription.open();
  await sendAndDrain(ticks);
  const newest = ticks.at(-1).eventTimeNs;
  await subscription.until((rows) => rows.at(-1)?.time === newest);
  subscription.cut();
  const times = timesOf(subscription.rows);
  assert.deepEqual(times, times.toSorted());
  assert.equal(new Set(times).size, times.length);
});

test("open streams and partitions are told", async () => {
  const stream = new MarketStream(realTime);
  stream.send("batch", { ticks: ticksOf(newSymbol(), prices(7)) });
  await stream.untilRows(7);
  const stats = await call(realTime, "getStreamStats");
  const own = stats.streams.find((s) => s.ticksAcknowledged === 7n && s.rowsSent === 7n);
  assert.match(own.method, /StreamMarketData/);
  assert.ok(stats.maxStreams >= stats.streams.length);
  assert.ok(stats.partitions.every((p) => p.groupOffset <= p.sourceEndOffset));
  await stream.finish();
});

test("features are computed over own rows", async () => {
  const close = prices(60);
  const { features } = await call(realTime, "computeFeatures", {
    features: ["sma_5", "rsi_14"],
    rows: { close },
    last: 10,
  });
  const rows = rowsOf([features]);
  assert.equal(features.firstRow, undefined);
  assert.deepEqual(rows.map((row) => row.price), close.slice(-10));
  const average = close.slice(-5).reduce((sum, price) => sum + price, 0) / 5;
  assert.ok(Math.abs(rows.at(-1).values.sma_5 / average - 1) < 1e-12);
});

test("features over the log are those that were streamed, bit for bit", async () => {
  const ticks = ticksOf(newSymbol(), prices(80));
  const streamed = (await sendAndDrain(ticks)).rows;
  const names = ["sma_20", "ema_12", "rsi_14"];
  const { features } = await call(realTime, "computeFeatures", {
    symbol: ticks[0].symbol,
    features: names,
  });
  const plain = (rows) => rows.map((row) => [row.time, row.price, ...names.map((n) => row.values[n])]);
  assert.equal(streamed.length, 80);
  assert.deepEqual(plain(rowsOf([features])), plain(streamed));
});

test("a bad request is answered with its code and field", async () => {
  const rows = { close: prices(30) };
  const refusal = (request) =>
    call(realTime, "computeFeatures", request).then(
      () => assert.fail("expected a refusal"),
      (error) => error,
    );
  const unknownFeature = await refusal({ features: ["smma_20"], rows });
  assert.equal(unknownFeature.code, grpc.status.INVALID_ARGUMENT);
  assert.match(unknownFeature.details, /rsi/);
  assert.deepEqual(blamedFields(unknownFeature).map((f) => f.split(/[.[]/)[0]), ["features"]);
  const unknownSymbol = await refusal({ features: ["sma_5"], symbol: "NEVER.SENT" });
  assert.equal(unknownSymbol.code, grpc.status.NOT_FOUND);
  assert.match(unknownSymbol.details, /NEVER\.SENT/);
  const tooFew = await refusal({ features: ["sma_50"], rows });
  assert.equal(tooFew.code, grpc.status.FAILED_PRECONDITION);
  assert.match(tooFew.details, /50/);
});

test("a service that is not there yet says so", async () => {
  await assert.rejects(call(backtests, "listBacktests"), (error) => {
    assert.equal(error.code, grpc.status.UNIMPLEMENTED);
    return true;
  });
});

test("the latest row is in the table and unknown symbols are listed", async () => {
  const ticks = ticksOf(newSymbol(), prices(40));
  const last = (await sendAndDrain(ticks)).rows.at(-1);
  const request = { symbols: [last.symbol, "NEVER.SENT"] };
  // The table is written a moment after the row is in the topic.
  for (let attempt = 0; attempt < 500; attempt += 1) {
    const answer = await call(realTime, "getFeatures", request);
    const [row] = rowsOf([answer.features]);
    if (row?.time !== last.time) continue;
    assert.deepEqual(answer.unknownSymbols, ["NEVER.SENT"]);
    assert.deepEqual(row.values, last.values);
    return;
  }
  assert.fail("expected the last row in the table, was an older one");
});
