// The client of MCP for TypeScript, which speaks revision 2025-11-25. It takes and prints the lines of play_client.py.
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const wanted = JSON.parse(process.argv[2]);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

async function hear() {
  const { value, done } = await lines.next();
  return done ? { end: true } : JSON.parse(value);
}

async function listed(client) {
  const tools = [];
  let cursor;
  do {
    const page = await client.listTools({ cursor });
    tools.push(...page.tools);
    cursor = page.nextCursor;
  } while (cursor);
  return tools;
}

async function obey(client, line) {
  if ("list" in line) return say({ tools: await listed(client) });
  try {
    const result = await client.callTool({ name: line.call, arguments: line.arguments ?? {} });
    const text = result.content.filter((part) => part.type === "text").map((part) => part.text).join("\n");
    say({ text, is_error: result.isError === true });
  } catch (error) {
    say({ refused: error.message.replace(/^MCP error -?\d+: /, "") });
  }
}

const elicitation = Object.fromEntries(wanted.elicitation.map((way) => [way, {}]));
const capabilities = wanted.elicitation.length ? { elicitation } : {};
const client = new Client({ name: "play", version: "1" }, { capabilities });
if (wanted.elicitation.length) {
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
    say({ asked: params });
    return await hear();
  });
}
const [command, ...args] = wanted.command ?? [];
const transport = wanted.url
  ? new StreamableHTTPClientTransport(new URL(wanted.url), { requestInit: { headers: wanted.headers } })
  : new StdioClientTransport({ command, args, env: wanted.env });
let revision;
const agreed = transport.setProtocolVersion?.bind(transport);
transport.setProtocolVersion = (version) => {
  revision = version;
  agreed?.(version);
};
await client.connect(transport);
say({ ready: revision });
for (let line = await hear(); !("end" in line); line = await hear()) await obey(client, line);
await client.close();
