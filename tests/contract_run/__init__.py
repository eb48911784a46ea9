"""The contract against a running server: schemathesis generates calls from `openapi.yaml` and checks the answers."""
