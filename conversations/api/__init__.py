"""The bots' JSON API: parse, call the flow, answer. The contract is `openapi.yaml`."""
