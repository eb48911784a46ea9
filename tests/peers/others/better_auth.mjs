// npm better-auth with its oauth-provider over HTTP on a loopback port, in memory. It ships no pages: the two here are as
// plain as they can be. Adds `iss` to the authorization response (RFC 9207) and wants PKCE.
//
// node better_auth.mjs
//
// Prints `READY {origin}` on standard output and serves until its standard input closes.

import { createServer } from 'node:http';

import { oauthProvider, oauthProviderAuthServerMetadata, oauthProviderOpenIdConfigMetadata } from '@better-auth/oauth-provider';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { toNodeHandler } from 'better-auth/node';
import { jwt } from 'better-auth/plugins';

const PASSWORD = 'correct horse battery staple';
const tables = Object.fromEntries(
  ['user', 'session', 'account', 'verification', 'jwks', 'rateLimit', 'oauthClient', 'oauthResource', 'oauthClientResource',
    'oauthRefreshToken', 'oauthAccessToken', 'oauthConsent', 'oauthClientAssertion'].map((name) => [name, []]),
);
const tokenResponses = [];

const PAGES = {
  '/login': `<!doctype html><title>Sign in</title><form method="post"><input name="login">
    <input name="password" type="password"><button>Sign in</button></form>`,
  '/consent': `<!doctype html><title>Allow?</title><form method="post"><button name="decision" value="allow">Allow</button>
    <button name="decision" value="deny">Deny</button></form>`,
};

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

function answer(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(value));
}

const server = createServer();
server.listen(0, '127.0.0.1', async () => {
  const origin = `http://localhost:${server.address().port}`;
  const auth = betterAuth({
    baseURL: origin,
    secret: 'only-for-tests-and-long-enough-for-them',
    database: memoryAdapter(tables),
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    rateLimit: { enabled: false },
    disabledPaths: ['/token'],
    plugins: [
      jwt(),
      oauthProvider({
        loginPage: '/login',
        consentPage: '/consent',
        scopes: ['openid', 'offline_access', 'orders.read'],
        silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
      }),
    ],
  });
  for (const name of ['ada', 'rita']) {
    await auth.api.signUpEmail({ body: { name, email: `${name}@acme.test`, password: PASSWORD } });
  }
  const operator = await auth.api.signUpEmail({
    body: { name: 'operator', email: 'operator@acme.test', password: PASSWORD },
    returnHeaders: true,
  });
  const asOperator = new Headers({ cookie: operator.headers.getSetCookie().map((cookie) => cookie.split(';')[0]).join('; ') });
  const speakOAuth = toNodeHandler(auth);

  // What the pages' scripts would do: call the library's own endpoints with the signed query, and go where they say.
  async function decide(request, response, url) {
    const form = new URLSearchParams((await body(request)).toString());
    const oauth_query = url.searchParams.toString();
    const headers = { 'content-type': 'application/json', origin, cookie: request.headers.cookie ?? '' };
    const [path, given] = url.pathname === '/login'
      ? ['/sign-in/email', { email: `${form.get('login')}@acme.test`, password: form.get('password'), oauth_query }]
      : ['/oauth2/consent', { accept: form.get('decision') === 'allow', oauth_query }];
    const answered = await auth.handler(new Request(`${origin}/api/auth${path}`, { method: 'POST', headers, body: JSON.stringify(given) }));
    const said = await answered.json();
    const next = said.url ?? said.redirect_uri;
    if (!next) return answer(response, answered.status, said);
    for (const cookie of answered.headers.getSetCookie()) response.appendHeader('set-cookie', cookie);
    response.writeHead(303, { location: next });
    return response.end();
  }

  async function register(request, response) {
    const wanted = JSON.parse((await body(request)).toString());
    answer(response, 201, await auth.api.adminCreateOAuthClient({ body: wanted, headers: asOperator }));
  }

  async function orders(request, response) {
    const [, token] = (request.headers.authorization ?? '').split(' ');
    const userinfo = await auth.handler(new Request(`${origin}/api/auth/oauth2/userinfo`, { headers: { authorization: `Bearer ${token}` } }));
    answer(response, userinfo.status, userinfo.ok ? { customer: (await userinfo.json()).sub, orders: [] } : { error: 'invalid_token' });
  }

  server.on('request', async (request, response) => {
    const url = new URL(request.url, origin);
    if (url.pathname === '/orders') await orders(request, response);
    else if (url.pathname === '/test/register') await register(request, response);
    else if (url.pathname === '/test/token-responses') answer(response, 200, tokenResponses);
    else if (url.pathname in PAGES) {
      if (request.method === 'POST') await decide(request, response, url);
      else {
        response.writeHead(200, { 'content-type': 'text/html' });
        response.end(PAGES[url.pathname]);
      }
    } else if (url.pathname.startsWith('/.well-known/oauth-authorization-server')) {
      const said = await oauthProviderAuthServerMetadata(auth)(new Request(url));
      answer(response, said.status, await said.json());
    } else if (url.pathname.startsWith('/.well-known/openid-configuration') || url.pathname === '/api/auth/.well-known/openid-configuration') {
      const said = await oauthProviderOpenIdConfigMetadata(auth)(new Request(url));
      answer(response, said.status, await said.json());
    } else {
      speakOAuth(request, response);
    }
  });
  console.log(`READY ${origin}`);
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
