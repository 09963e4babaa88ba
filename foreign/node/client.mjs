/**
 * A client on A2A's JavaScript SDK, which calls somebody's agent: `node client.mjs CONFIG.json` prints what it met.
 *
 * CONFIG has
 *
 *   agent      base URL
 *   key        the public JWK that is pinned for its card
 *   headers    what says who calls
 *   binding    JSONRPC (default) or HTTP+JSON
 *   version    1.0 (default) or 0.3
 *   text       a message to send, and to send again as a stream
 *   slow       a message whose task runs until it is canceled
 *   metadata   of every message
 *
 * Prints {"interface", "sent", "repeated", "streamed", "got", "canceled"}; ends with 1 when the card is not believed.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { Role, TaskState, taskStateToJSON, verifyAgentCardSignature } from '@a2a-js/sdk';
import { ClientFactory, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory } from '@a2a-js/sdk/client';

const config = { binding: 'JSONRPC', version: '1.0', headers: {}, metadata: {}, ...JSON.parse(readFileSync(process.argv[2])) };
console.debug = () => {};

const answer = await fetch(`${config.agent}/.well-known/agent-card.json`);
const card = await answer.json();
try {
  await verifyAgentCardSignature(async (kid) => {
    if (kid !== config.key.kid) throw new Error(`no key ${kid} is pinned`);
    return config.key;
  })(card);
} catch (error) {
  console.log(JSON.stringify({ error: `its card is not believed: ${error.message}` }));
  process.exit(1);
}

const legacyCompat = { enabled: true };
const withHeaders = (url, options = {}) => {
  const headers = new Headers(options.headers);
  Object.entries(config.headers).forEach(([name, value]) => headers.set(name, value));
  return fetch(url, { ...options, headers });
};
const transport = { fetchImpl: withHeaders, legacyCompat };
const factory = new ClientFactory({
  transports: [config.binding === 'JSONRPC' ? new JsonRpcTransportFactory(transport) : new RestTransportFactory(transport)],
  cardResolver: new DefaultAgentCardResolver({ legacyCompat }),
});
const wanted = ({ protocolBinding, protocolVersion }) => protocolBinding === config.binding && protocolVersion === config.version;
const [spoken] = card.supportedInterfaces.filter(wanted);
const client = await factory.createFromAgentCard({ ...card, supportedInterfaces: [spoken] });

function message(text, messageId = randomUUID()) {
  const part = { content: { $case: 'text', value: text }, filename: '', mediaType: '', metadata: undefined };
  return {
    tenant: '',
    configuration: undefined,
    metadata: undefined,
    message: {
      messageId, role: Role.ROLE_USER, parts: [part], contextId: '', taskId: '', metadata: config.metadata, extensions: [], referenceTaskIds: [],
    },
  };
}

function told(task) {
  const texts = task.artifacts.flatMap(({ parts }) => parts.map(({ content }) => content.value));
  return { id: task.id, state: taskStateToJSON(task.status.state), texts };
}

const taskOf = (result) => result.task ?? (result.payload?.$case === 'task' ? result.payload.value : result);

const messageId = randomUUID();
const sent = taskOf(await client.sendMessage(message(config.text, messageId)));
const repeated = taskOf(await client.sendMessage(message(config.text, messageId)));

const streamed = [];
for await (const event of client.sendMessageStream(message(config.text))) streamed.push(event.payload.$case);

const got = await client.getTask({ tenant: '', id: sent.id, historyLength: undefined });

let canceled;
for await (const event of client.sendMessageStream(message(config.slow))) {
  const { $case: kind, value } = event.payload;
  if (!canceled) {
    canceled = await client.cancelTask({ tenant: '', id: kind === 'task' ? value.id : value.taskId, metadata: undefined });
  }
  if (kind === 'statusUpdate' && value.status.state === TaskState.TASK_STATE_CANCELED) break;
}

console.log(JSON.stringify({
  interface: { url: spoken.url, version: client.protocolVersion },
  sent: told(sent), repeated: told(repeated), streamed, got: told(got), canceled: told(canceled),
}));
