// A gRPC client of mystocks.v1, from code that protoc-gen-es generated into gen/.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import grpc from "@grpc/grpc-js";

import { BadRequestSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";

const CALL_TIMEOUT_MS = 30_000;

/** Returns a client of a generated service: paths and encodings stand in its description. */
export function connect(service, address) {
  const methods = Object.values(service.method).map((method) => [
    method.localName,
    {
      path: `/${service.typeName}/${method.name}`,
      requestStream: ["client_streaming", "bidi_streaming"].includes(method.methodKind),
      responseStream: ["server_streaming", "bidi_streaming"].includes(method.methodKind),
      requestSerialize: (fields) => Buffer.from(toBinary(method.input, create(method.input, fields))),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    },
  ]);
  const Client = grpc.makeGenericClientConstructor(Object.fromEntries(methods), service.typeName);
  return new Client(address, grpc.credentials.createInsecure());
}

export function deadline() {
  return { deadline: Date.now() + CALL_TIMEOUT_MS };
}

/** Calls a method with one request and one response. */
export function call(client, method, request = {}) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(), (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

/** Rows of feature blocks, as market.proto describes them. */
export function rowsOf(blocks) {
  return blocks.flatMap((block) => {
    const count = block.symbolIndex.length;
    return block.symbolIndex.map((symbol, i) => ({
      partition: block.firstRow?.partition,
      row: (block.firstRow?.row ?? 0n) + BigInt(block.rowOffset.length ? block.rowOffset[i] : i),
      symbol: block.symbols[symbol],
      time: block.eventTimeNs[i],
      price: block.prices[i],
      values: Object.fromEntries(
        block.names.map((name, k) => {
          const value = block.values[k * count + i];
          return [name, Number.isNaN(value) ? null : value];
        }),
      ),
    }));
  });
}

/** Names of the fields that an error blames. */
export function blamedFields(error) {
  const [encoded] = error.metadata.get("grpc-status-details-bin");
  return fromBinary(StatusSchema, encoded)
    .details.map((detail) => anyUnpack(detail, BadRequestSchema))
    .flatMap((detail) => detail?.fieldViolations ?? [])
    .map((violation) => violation.field);
}

/** One call of StreamMarketData, and everything that came back on it. */
export class MarketStream {
  accepted = new Map();
  places = new Map();
  refused = [];
  blocks = [];
  #number = 0n;

  constructor(client) {
    this.call = client.streamMarketData(deadline());
    this.call.on("error", () => {}); // the iterator reports it
    this.responses = this.call[Symbol.asyncIterator]();
  }

  get rows() {
    return rowsOf(this.blocks);
  }

  /** Sends a request of kind tick, batch, select or noRows; returns its number. */
  send(kind, value) {
    this.#number += 1n;
    this.call.write({ number: this.#number, kind: { case: kind, value } });
    return this.#number;
  }

  async until(reached) {
    while (!reached()) {
      const { value, done } = await this.responses.next();
      if (done) throw new Error("the server ended the stream");
      this.#take(value);
    }
  }

  untilAcknowledged(ticks) {
    const count = () => [...this.accepted.values()].reduce((sum, n) => sum + n, this.refused.length);
    return this.until(() => count() >= ticks);
  }

  untilRows(count) {
    return this.until(() => this.rows.length >= count);
  }

  /** Closes the sending side and reads until the server has ended the stream. */
  async finish() {
    this.call.end();
    for await (const response of this.responses) this.#take(response);
  }

  cut() {
    this.call.cancel();
  }

  #take(response) {
    const told = response.acknowledgements;
    told?.number.forEach((number, i) => {
      this.accepted.set(number, (this.accepted.get(number) ?? 0) + told.accepted[i]);
      const place = { partition: told.partition[i], offset: told.offset[i] };
      this.places.set(number, [...(this.places.get(number) ?? []), place]);
    });
    this.refused.push(...(told?.refused ?? []));
    this.blocks.push(...response.blocks);
  }
}

/** A subscription that may be cut and taken up again. */
export class Subscription {
  rows = [];
  #token;

  constructor(client, selection) {
    this.client = client;
    this.selection = selection;
  }

  async open(start) {
    const from = this.#token ? { case: "resume", value: this.#token } : start;
    this.call = this.client.subscribeFeatures({ selection: this.selection, start: from }, deadline());
    this.call.on("error", () => {}); // the iterator reports it
    this.responses = this.call[Symbol.asyncIterator]();
    const first = await this.#next();
    if (first.blocks.length) throw new Error("expected a first response without blocks");
  }

  async take() {
    this.rows.push(...rowsOf((await this.#next()).blocks));
  }

  async until(reached) {
    while (!reached(this.rows)) await this.take();
  }

  cut() {
    this.call.cancel();
  }

  async #next() {
    const { value, done } = await this.responses.next();
    if (done) throw new Error("the server ended the subscription");
    this.#token = value.resume ?? this.#token;
    return value;
  }
}
