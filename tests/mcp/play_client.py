"""An MCP client without a model, in the server's environment. A test writes lines of JSON to it, and reads lines.

`{"list": true}` lists the tools, and `{"call": name, "arguments": {...}}` calls one. With elicitation,
`{"asked": ...}` is a question to the person, and the next line is their answer.
"""

import json
import sys
from typing import Any
from unittest.mock import patch

import anyio
import mcp_types
from mcp import Client, StdioServerParameters
from mcp.client._transport import Transport
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitationCapability, ElicitRequestParams, ElicitResult, TextContent


def say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


async def hear() -> dict[str, Any]:
    line: dict[str, Any] = json.loads(await anyio.to_thread.run_sync(sys.stdin.readline) or '{"end": true}')
    return line


async def ask(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    say(asked=params.model_dump(mode="json", by_alias=True, exclude_none=True))
    return ElicitResult.model_validate(await hear())


async def obey(client: Client, line: dict[str, Any]) -> None:
    if "list" in line:
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        while not tools or cursor:
            listed = await client.list_tools(cursor=cursor, cache_mode="bypass")
            tools += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools]
            cursor = listed.next_cursor
        say(tools=tools)
        return
    try:
        result = await client.call_tool(line["call"], line.get("arguments", {}))
    except MCPError as error:
        say(refused=error.error.message)
        return
    say(text="\n".join(part.text for part in result.content if isinstance(part, TextContent)), is_error=result.is_error)


async def main(wanted: dict[str, Any]) -> None:
    server: StdioServerParameters | Transport
    if "url" in wanted:
        http = create_mcp_http_client(headers=wanted["headers"])
        server = streamable_http_client(wanted["url"], http_client=http)
    else:
        server = StdioServerParameters(command=wanted["command"][0], args=wanted["command"][1:], env=wanted["env"])
    ways = wanted["elicitation"]
    callback = ask if ways else None
    if len(ways) == 1:  # the SDK itself always declares both
        capability = ElicitationCapability.model_validate({ways[0]: {}})
        patch.object(mcp_types, "ElicitationCapability", lambda **_: capability).start()
    async with Client(server, mode=wanted["mode"], elicitation_callback=callback) as client:
        say(ready=client.session.protocol_version)
        while "end" not in (line := await hear()):
            await obey(client, line)


anyio.run(main, json.loads(sys.argv[1]))
