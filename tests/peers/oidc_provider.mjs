// npm oidc-provider over TLS on a loopback port, as strict as it can be: PKCE with S256 always, form-encoded HTTP Basic
// (RFC 6749 section 2.3.1), `iss` in the authorization response (RFC 9207). It sends a refresh token that nobody asked for.
//
// node oidc_provider.mjs CERTIFICATE_FILE KEY_FILE [RESOURCE [dpop]]
//
// With a RESOURCE, access tokens are bound to audiences (RFC 8707): one that was issued for no or another resource does not
// open the orders, whatever its scope. With `dpop`, too, they are JWTs, requests have to be pushed (RFC 9126), and a proof
// (DPoP, RFC 9449) needs a nonce.
//
// A login such as `ada+otp` is Ada with a second factor, and `ada+old` is Ada as she signed in an hour ago. The payments want the
// factor, and the address a sign-in of the last minute (RFC 9470).
//
// Prints `READY {issuer}` on standard output and serves until its standard input closes.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

import Provider from 'oidc-provider';

const [certificateFile, keyFile, resource, dpop] = process.argv.slice(2);

// Id and secret hold characters that HTTP Basic loses unless both are form-encoded first.
const CLIENT_SECRET_END = 'p@ss:w/ord+%';
let registered = 0;

// What the token endpoint answered, for tests that look for a value where it must not be.
const tokenResponses = [];

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const configuration = {
  jwks: { keys: [{ ...signingKey, kid: 'peer-1', use: 'sig', alg: 'RS256' }] },
  cookies: { keys: ['only-for-tests'] },
  scopes: ['openid', 'offline_access', 'orders.read', 'orders.write'],
  claims: { openid: ['sub'] },
  acrValues: ['urn:peer:password', 'urn:peer:otp'],
  pkce: { required: () => true },
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  // A client may be registered with a life of its own for its access tokens, in seconds.
  extraClientMetadata: { properties: ['access_token_lifetime'] },
  ttl: {
    AccessToken: (ctx, token, client) => client.access_token_lifetime ?? client.accessTokenLifetime ?? 3600,
    AuthorizationCode: 60,
    Grant: 3600,
    IdToken: 3600,
    Interaction: 600,
    RefreshToken: 86400,
    Session: 3600,
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  features: {
    ...(resource && {
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: 'orders.read orders.write',
          audience: resource,
          accessTokenFormat: dpop ? 'jwt' : 'opaque',
        }),
      },
    }),
    ...(dpop && {
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      pushedAuthorizationRequests: { enabled: true, requirePushedAuthorizationRequests: true },
    }),
    introspection: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    revocation: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
    registration: {
      enabled: true,
      issueRegistrationAccessToken: false,
      idFactory: () => `delegation:client+${(registered += 1)}`,
      secretFactory: () => `secret-of-client-${registered}-${CLIENT_SECRET_END}`,
    },
  },
};

function answer(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(value));
}

// The brand's own API: the orders of whoever the access token belongs to.
async function orders(provider, request, response) {
  const [scheme, value] = (request.headers.authorization ?? '').split(' ');
  const token = scheme.toLowerCase() === 'bearer' && value ? await provider.AccessToken.find(value) : undefined;
  if (!token || !token.isValid || (resource && token.aud !== resource)) {
    response.setHeader('www-authenticate', 'Bearer error="invalid_token"');
    answer(response, 401, { error: 'invalid_token' });
  } else if (!token.scopes.has('orders.read')) {
    answer(response, 403, { error: 'insufficient_scope' });
  } else {
    answer(response, 200, { customer: token.accountId, orders: [{ number: '1001', item: 'Blue teapot' }] });
  }
}

// How somebody signed in, by the end of the login.
function howSignedIn(login) {
  const [accountId, how] = login.accountId.split('+');
  const strong = how === 'otp';
  return {
    ...login,
    accountId,
    acr: strong ? 'urn:peer:otp' : 'urn:peer:password',
    amr: strong ? ['pwd', 'otp'] : ['pwd'],
    ...(how === 'old' && { ts: Math.floor(Date.now() / 1000) - 3600 }),
  };
}

// Parts of the brand's API that the token alone does not open.
async function guarded(provider, request, response) {
  const token = await provider.AccessToken.find((request.headers.authorization ?? '').split(' ')[1] ?? '');
  const session = token && (await provider.Session.findByUid(token.sessionUid));
  const demands = request.url === '/payments' ? 'acr_values="urn:peer:otp"' : 'max_age="0"';
  const isGood = request.url === '/payments'
    ? session?.acr === 'urn:peer:otp'
    : session?.loginTs > Date.now() / 1000 - 60;
  if (isGood) {
    answer(response, 200, { customer: token.accountId });
  } else {
    response.setHeader('www-authenticate', `Bearer error="insufficient_user_authentication", ${demands}`);
    answer(response, 401, { error: 'insufficient_user_authentication' });
  }
}

const server = createServer({ cert: readFileSync(certificateFile), key: readFileSync(keyFile) });
server.listen(0, '127.0.0.1', () => {
  const issuer = `https://localhost:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  provider.on('grant.success', (ctx) => tokenResponses.push(ctx.body));
  provider.on('server_error', (ctx, error) => console.error(error));
  const finished = provider.interactionFinished.bind(provider);
  provider.interactionFinished = (request, response, { login, ...result }, options) =>
    finished(request, response, { ...result, ...(login && { login: howSignedIn(login) }) }, options);
  const speakOAuth = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/orders') {
      orders(provider, request, response);
    } else if (['/payments', '/address'].includes(request.url)) {
      guarded(provider, request, response);
    } else if (request.url === '/test/token-responses') {
      answer(response, 200, tokenResponses);
    } else {
      speakOAuth(request, response);
    }
  });
  console.log(`READY ${issuer}`);
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
