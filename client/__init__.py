"""The client: one flow for each operation, and two faces to call it by."""
