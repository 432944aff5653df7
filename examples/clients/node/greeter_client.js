// A plain gRPC client, balanced over the addresses that DNS gives for a name.
//
//     node greeter_client.js dns:///hello.lookaside.internal:50051 [CALLS]

"use strict";

const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");
const grpc = require("@grpc/grpc-js");
const { loadSync } = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../../proto/helloworld/greeter.proto");
const { helloworld } = grpc.loadPackageDefinition(loadSync(PROTO));

// grpc-js has no grpclb. Without this it would stay with the first address.
const OPTIONS = { "grpc.service_config": '{"loadBalancingConfig":[{"round_robin":{}}]}' };

async function main(target, count) {
  const greeter = new helloworld.Greeter(target, grpc.credentials.createInsecure(), OPTIONS);
  for (let made = 1; ; made++) {
    await new Promise((resolve) => {
      greeter.sayHello({ name: "world" }, { deadline: Date.now() + 5000 }, (error, reply) => {
        console.log(error ? error.message : reply.message);
        resolve();
      });
    });
    if (made === count) break;
    await sleep(1000);
  }
  greeter.close();
}

const [target, count] = process.argv.slice(2);
if (!target) {
  console.error("dns:///NAME:PORT, the port being every server's; then calls to make");
  process.exit(64);
}
main(target, Number(count ?? 0));
