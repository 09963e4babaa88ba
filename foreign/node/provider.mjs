/**
 * An OpenID provider, for tests, the demo and the tour: `node provider.mjs PORT CONFIG.json`; port 0 takes a free one.
 *
 * Prints {"issuer": ...} when it listens, on 127.0.0.1. Its signing keys are new in each run. CONFIG has
 *
 *   clients    as in OpenID registration; also `agent_url`, the audience at which a client is an agent, so may exchange
 *              tokens; and `default_resource`, for clients that know no RFC 8707
 *   accounts   {name: its claims}: people, who sign in by a click, or by login_hint without one
 *   scopes     what may be asked of a resource, "a:b c:d"; whatever is on 127.0.0.1 is one
 *   resources  {url: its scopes}, where these differ
 *   algorithm  that access tokens are signed with: RS256 (default) or ES256
 *   ttl        {AccessToken: seconds, ClientCredentials: seconds}
 *
 * Grants: client credentials, authorization code with PKCE, device code, refresh tokens, token exchange (RFC 8693).
 * For tests, POST /test/rotate makes new signing keys (with ?withdraw=1 the old ones are no longer published), and
 * GET /test/requests counts requests by path.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import { calculateJwkThumbprint, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

const [port, file] = process.argv.slice(2);
const config = { clients: [], accounts: {}, scopes: '', resources: {}, algorithm: 'RS256', ttl: {}, ...JSON.parse(readFileSync(file)) };
const requests = {};
let issuer;
let keys = [];
let provider;

function newKeys() {
  return Promise.all(['RS256', 'ES256'].map(async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    const key = { ...await exportJWK(privateKey), alg };
    return { ...key, kid: await calculateJwkThumbprint(key) };
  }));
}

function resourceServer(ctx, resource) {
  const scope = config.resources[resource] ?? (new URL(resource).hostname === '127.0.0.1' ? config.scopes : undefined);
  if (scope === undefined) throw new errors.InvalidTarget();
  return { audience: resource, scope, accessTokenFormat: 'jwt', jwt: { sign: { alg: config.algorithm } } };
}

/** Whoever signs in has agreed: these are the firm's own applications. */
async function agreed(ctx) {
  const { client, session, params } = ctx.oidc;
  const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(`openid offline_access email ${config.scopes}`);
  for (const resource of [params.resource ?? client.default_resource ?? []].flat()) {
    grant.addResourceScope(resource, resourceServer(ctx, resource).scope);
  }
  await grant.save();
  return grant;
}

/** RFC 8693: an agent gives a token that was made out to it for one that is made out to the next agent. */
async function exchange(ctx) {
  const { client, params } = ctx.oidc;
  if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('subject_token is an access token');
  let subject;
  try {
    const verified = await jwtVerify(params.subject_token, createLocalJWKSet({ keys: keys.map(published) }), {
      issuer, audience: client.agent_url ?? 'nobody', typ: 'at+jwt',
    });
    subject = verified.payload;
  } catch (error) {
    throw new errors.InvalidGrant('subject_token', error.message);
  }
  const resource = params.resource ?? params.audience;
  if (typeof resource !== 'string') throw new errors.InvalidTarget('name one resource or audience');
  const server = new ctx.oidc.provider.ResourceServer(resource, resourceServer(ctx, resource));
  const allowed = (client.scope ?? server.scope).split(' ').filter((scope) => server.scopes.has(scope));
  const asked = params.scope?.split(' ') ?? allowed;
  if (!asked.every((scope) => allowed.includes(scope))) throw new errors.InvalidScope('not for this client', params.scope);
  const act = { sub: client.clientId, ...(subject.act && { act: subject.act }) };
  const { AccessToken } = ctx.oidc.provider;
  const token = new AccessToken({ accountId: subject.sub, client, gty: EXCHANGE, scope: asked.join(' '), extra: { act } });
  token.resourceServer = server;
  ctx.oidc.entity('AccessToken', token);
  ctx.body = {
    access_token: await token.save(),
    issued_token_type: ACCESS_TOKEN,
    token_type: 'Bearer',
    expires_in: token.expiration,
    scope: token.scope,
  };
}

function published({ kty, n, e, crv, x, y, kid, alg }) {
  return { kty, n, e, crv, x, y, kid, alg };
}

function made() {
  const made = new Provider(issuer, {
    clients: config.clients,
    extraClientMetadata: { properties: ['agent_url', 'default_resource'] },
    jwks: { keys },
    responseTypes: ['code'],
    scopes: ['openid', 'offline_access', 'email', ...config.scopes.split(' ').filter(Boolean)],
    claims: { openid: ['sub'], email: ['email'] },
    ttl: { AccessToken: 300, ClientCredentials: 300, ...config.ttl },
    cookies: { keys: ['only of this process'] },
    pkce: { required: () => true },
    findAccount: (ctx, id) => id in config.accounts && { accountId: id, claims: () => ({ sub: id, ...config.accounts[id] }) },
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: agreed,
    issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
    extraTokenClaims: (ctx, token) => token.extra,
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: (ctx, client) => client.default_resource,
        getResourceServerInfo: resourceServer,
        useGrantedResource: () => true,
      },
    },
  });
  made.registerGrantType(EXCHANGE, exchange, ['subject_token', 'subject_token_type', 'audience', 'resource', 'scope']);
  return made;
}

/** Who signs in: the only account, the one that is hinted at, or the one that is clicked. */
async function signIn(request, response, url) {
  const { params } = await provider.interactionDetails(request, response);
  const accounts = Object.keys(config.accounts);
  const chosen = url.searchParams.get('account') ?? params.login_hint ?? (accounts.length === 1 ? accounts[0] : '');
  if (accounts.includes(chosen)) {
    await provider.interactionFinished(request, response, { login: { accountId: chosen }, consent: {} });
    return;
  }
  const links = accounts.map((name) => `<p><a href="?account=${encodeURIComponent(name)}">${encodeURIComponent(name)}</a></p>`);
  response.setHeader('content-type', 'text/html').end(`<title>Sign in</title><h1>Sign in as</h1>${links.join('')}`);
}

async function serve(request, response) {
  const url = new URL(request.url, issuer);
  requests[url.pathname] = (requests[url.pathname] ?? 0) + 1;
  if (url.pathname.startsWith('/interaction/')) {
    await signIn(request, response, url);
  } else if (url.pathname === '/test/rotate' && request.method === 'POST') {
    keys = [...await newKeys(), ...(url.searchParams.has('withdraw') ? [] : keys)];
    provider = made();
    response.writeHead(204).end();
  } else if (url.pathname === '/test/requests') {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(requests));
  } else {
    await provider.callback()(request, response);
  }
}

const server = createServer((request, response) => {
  serve(request, response).catch((error) => response.writeHead(400).end(String(error)));
});
server.listen(Number(port), '127.0.0.1', async () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  keys = await newKeys();
  provider = made();
  console.log(JSON.stringify({ issuer }));
});
