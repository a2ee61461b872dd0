"""The only package that imports Ray: `ingest`, and a module or package for each command."""
