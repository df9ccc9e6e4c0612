// A certified identity provider (oidc-provider) for tests: anybody may log in under any name, and clients register themselves.
//
// Reads its settings as JSON from the first argument: `package` (the folder of oidc-provider), `accessTokens` (for how many seconds they are
// good) and `idTokenClaims` (whether ID tokens have the claims that scopes ask for). Writes its port on a line when it serves.
// `POST /test/forget` makes it forget all refresh tokens, and `GET /test/count` tells how many requests for tokens it has seen.

import http from 'node:http';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(process.argv[2]);
const { Provider } = await import(pathToFileURL(`${settings.package}/lib/index.js`).href);

/** Everything in memory, by kind and name. */
const kinds = new Map();

class Memory {
  constructor(kind) {
    if (!kinds.has(kind)) kinds.set(kind, new Map());
    this.all = kinds.get(kind);
  }

  async upsert(id, payload, seconds) {
    this.all.set(id, { payload, until: seconds ? Date.now() + seconds * 1000 : Infinity });
  }

  async find(id) {
    const found = this.all.get(id);
    return found && found.until > Date.now() ? found.payload : undefined;
  }

  async findByUid(uid) {
    return [...this.all.values()].map((one) => one.payload).find((payload) => payload.uid === uid);
  }

  async consume(id) {
    const found = this.all.get(id);
    if (found) found.payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.all.delete(id);
  }

  async revokeByGrantId(grant) {
    for (const [id, { payload }] of this.all) if (payload.grantId === grant) this.all.delete(id);
  }
}

/** Whoever logs in has agreed to everything. */
async function loadExistingGrant(ctx) {
  const { client, session } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  if (known) return ctx.oidc.provider.Grant.find(known);
  const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope('openid email profile offline_access groups');
  grant.addOIDCClaims(['email', 'groups']);
  await grant.save();
  return grant;
}

let tokens = 0;
let handle = (_, response) => response.writeHead(503).end();
const server = http.createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/test/forget') {
    kinds.get('RefreshToken')?.clear();
    return response.writeHead(204).end();
  }
  if (request.url === '/test/count') return response.end(String(tokens));
  if (request.url === '/token') tokens += 1;
  return handle(request, response);
});

server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    adapter: Memory,
    claims: { openid: ['sub'], email: ['email'], groups: ['groups'], profile: ['name'] },
    conformIdTokenClaims: !settings.idTokenClaims,
    cookies: { keys: ['a key for tests alone'] },
    features: {
      backchannelLogout: { enabled: true },
      registration: { enabled: true },
    },
    // It would not speak to addresses of this machine by itself.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@id.test`, groups: ['staff'], name: id }),
    }),
    issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
    loadExistingGrant,
    rotateRefreshToken: true,
    ttl: { AccessToken: settings.accessTokens, IdToken: 600, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  });
  provider.on('backchannel.error', (_, error, client) => console.error('no logout at', client.clientId, error.message, error.cause));
  handle = provider.callback();
  console.log(port);
});
