// npm oidc-provider with a PostgreSQL adapter, for its introspection endpoint (RFC 7662), seeded with access tokens.
//
// node oidc_provider.mjs PORT SOCKET_FOLDER DATABASE ROWS_FILE
//
// ROWS_FILE has one opaque token a line. Each gets the payload of a token that the provider itself has saved, and a
// grant of its own, as after a sign-in. Prints `READY` and serves until it is ended.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';
import pg from 'pg';

const [port, socketFolder, database, rowsFile] = process.argv.slice(2);
const pool = new pg.Pool({ host: socketFolder, user: 'postgres', database, max: 8 });

const TABLE = `CREATE TABLE IF NOT EXISTS payloads (
  model text NOT NULL, id text NOT NULL, payload jsonb NOT NULL, grant_id text, expires_at timestamptz,
  PRIMARY KEY (model, id))`;
const UPSERT = `INSERT INTO payloads (model, id, payload, grant_id, expires_at)
  VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
  ON CONFLICT (model, id) DO UPDATE SET payload = excluded.payload, expires_at = excluded.expires_at`;
// Named, so that PostgreSQL prepares it once for each connection.
const FIND = { name: 'find', text: 'SELECT payload FROM payloads WHERE model = $1 AND id = $2 AND expires_at > now()' };

class PostgreSQLAdapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    await pool.query(UPSERT, [this.model, id, payload, payload.grantId ?? null, expiresIn]);
  }

  async find(id) {
    const found = await pool.query({ ...FIND, values: [this.model, id] });
    return found.rows[0]?.payload;
  }

  async destroy(id) {
    await pool.query('DELETE FROM payloads WHERE model = $1 AND id = $2', [this.model, id]);
  }

  async revokeByGrantId(grantId) {
    await pool.query('DELETE FROM payloads WHERE grant_id = $1', [grantId]);
  }
}

const provider = new Provider(`http://localhost:${port}`, {
  adapter: PostgreSQLAdapter,
  clients: [{
    client_id: 'bench',
    client_secret: 'of-the-benchmark-alone',
    redirect_uris: ['https://bench.test/callback'],
  }],
  cookies: { keys: ['of-the-benchmark-alone'] },
  scopes: ['openid', 'orders.read'],
  ttl: { AccessToken: 43200, Grant: 43200 },
  features: {
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: (ctx, client, token) => token.clientId === client.clientId },
  },
});

// One token as the provider saves it; the others are its copies with names of their own.
async function seed(tokens) {
  await pool.query(TABLE);
  const client = await provider.Client.find('bench');
  const grant = new provider.Grant({ accountId: 'ada', clientId: 'bench' });
  grant.addOIDCScope('orders.read');
  const grantId = await grant.save();
  const token = new provider.AccessToken({ accountId: 'ada', client, grantId, scope: 'orders.read' });
  const jti = await token.save();
  const copies = `INSERT INTO payloads (model, id, payload, grant_id, expires_at)
    SELECT model, ids.id, payload || jsonb_build_object('jti', ids.id) || $3::jsonb
      || CASE WHEN model = 'AccessToken' THEN jsonb_build_object('grantId', ids.id) ELSE '{}' END,
      ids.id, expires_at
    FROM payloads, unnest($1::text[]) AS ids(id) WHERE payloads.id = $2`;
  for (const id of [grantId, jti]) {
    await pool.query(copies, [tokens, id, {}]);
  }
  await pool.query('VACUUM ANALYZE payloads');
}

await seed(readFileSync(rowsFile, 'utf8').split('\n').filter(Boolean));
provider.on('server_error', (ctx, error) => console.error(error));
createServer(provider.callback()).listen(Number(port), '127.0.0.1', () => console.log('READY'));
