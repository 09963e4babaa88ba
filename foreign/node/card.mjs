// Agent Cards as the official JavaScript SDK signs, canonicalizes and verifies them: one JSON request per line of
// standard input, {"do": "sign" | "verify", "card": …, "key": <JWK>}, one JSON answer per line of standard output.
import { createInterface } from "node:readline";
import { generateAgentCardSignature, verifyAgentCardSignature } from "@a2a-js/sdk";
import { importJWK } from "jose";

console.log = console.info = console.warn = console.debug = console.error; // the SDK prints on; standard output is the answers

const work = {
  async sign({ card, key }) {
    const header = { alg: key.alg, kid: key.kid, typ: "JOSE" };
    return { card: await generateAgentCardSignature(await importJWK(key), header)(card) };
  },
  async verify({ card, key }) {
    await verifyAgentCardSignature(async () => importJWK(key))(card);
    return { verified: true };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  const answer = await work[request.do](request).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
