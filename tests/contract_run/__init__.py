"""The contract against a running server: schemathesis makes up calls from `openapi.yaml` and judges every answer."""
